//! The head of a WebSocket frame that a server sends (RFC 6455, 5.2): whole, that is one frame for a message, and not masked.
//!
//! A frame that goes to a thousand clients is the same for all of them. So it is made once, of this head and the payload, and only
//! written for each.

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

const FIN: u8 = 0x80;
/// Of a message that is compressed (RFC 7692, 6).
const RSV1: u8 = 0x40;
/// In the place of the length: it follows in two bytes.
const IN_TWO: u8 = 126;
/// In the place of the length: it follows in eight bytes.
const IN_EIGHT: u8 = 127;
/// The length of the longest head.
const MOST: usize = 10;

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead {
    bytes: [u8; MOST],
    length: usize,
}

impl FrameHead {
    /// The head of the frame of a whole message.
    ///
    /// `length` is the length of the payload as it is sent, in bytes; `compressed` says that it is compressed.
    pub fn new(opcode: Opcode, compressed: bool, length: usize) -> Self {
        let mut bytes = [0; MOST];
        let [first, second, rest @ ..] = &mut bytes;
        *first = FIN | if compressed { RSV1 } else { 0 };
        *first |= match opcode {
            Opcode::Text => 1,
            Opcode::Binary => 2,
        };
        let length = if let Ok(short) = u8::try_from(length)
            && short < IN_TWO
        {
            *second = short;
            2
        } else if let Ok(medium) = u16::try_from(length) {
            *second = IN_TWO;
            rest[..2].copy_from_slice(&medium.to_be_bytes());
            4
        } else {
            *second = IN_EIGHT;
            rest.copy_from_slice(&(length as u64).to_be_bytes());
            MOST
        };
        Self { bytes, length }
    }

    /// Its bytes, which the payload follows.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FrameHead, Opcode};

    fn head(length: usize) -> Vec<u8> {
        FrameHead::new(Opcode::Text, false, length)
            .as_bytes()
            .to_vec()
    }

    #[test]
    fn the_length_takes_no_more_bytes_than_it_needs() {
        assert_eq!(head(0), [0x81, 0]);
        assert_eq!(head(1), [0x81, 1]);
        assert_eq!(head(125), [0x81, 125]);
        assert_eq!(head(126), [0x81, 126, 0, 126]);
        assert_eq!(head(65_535), [0x81, 126, 0xff, 0xff]);
        assert_eq!(head(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn the_first_byte_says_what_follows() {
        let first = |opcode, compressed| FrameHead::new(opcode, compressed, 0).as_bytes()[0];
        assert_eq!(first(Opcode::Text, false), 0x81);
        assert_eq!(first(Opcode::Binary, false), 0x82);
        assert_eq!(first(Opcode::Text, true), 0xc1);
        assert_eq!(first(Opcode::Binary, true), 0xc2);
    }

    /// Reads a head as RFC 6455 has it: what it says of the length, and how long it is itself.
    fn read(head: &[u8]) -> (u64, usize) {
        match head[1] {
            126 => (u64::from(u16::from_be_bytes([head[2], head[3]])), 4),
            127 => {
                let mut length = 0;
                for byte in &head[2..10] {
                    length = length << 8 | u64::from(*byte);
                }
                (length, 10)
            }
            short => (u64::from(short), 2),
        }
    }

    proptest! {
        #[test]
        fn a_reader_finds_the_length(length in prop_oneof![
            0..=130_usize,
            65_530..=65_540_usize,
            any::<u32>().prop_map(|length| length as usize),
        ]) {
            let head = head(length);
            prop_assert_eq!(read(&head), (length as u64, head.len()));
            prop_assert_eq!(head[1] & 0x80, 0, "a server does not mask");
            let shortest = match length { 0..=125 => 2, 126..=65_535 => 4, _ => 10 };
            prop_assert_eq!(head.len(), shortest);
        }
    }
}
