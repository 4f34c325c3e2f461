//! Where a message stands in the stream of its group, and the text that says so.
//!
//! The text is 28 characters of the URL-safe base64 alphabet: 32 bits of a hash of the group's name, 53 of the epoch, 51 of
//! the number, and 32 of the fingerprint. A client may hold it anywhere. It is no secret and grants nothing: whoever sends a
//! forged one gets at most what a member of the group gets.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A place in the stream of a group: that of a message, or the one before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which stream: random, less than 2^53, and never zero.
    pub epoch: u64,
    /// The number of the message, from one on; zero stands before the first. Less than 2^51.
    pub number: u64,
    /// A fingerprint of the message, where numbers alone could be counted wrongly; else zero.
    pub print: u32,
}

const EPOCH_BITS: u32 = 53;
const NUMBER_BITS: u32 = 51;
/// The bytes of a token: those of the hash, of epoch and number, and of the fingerprint.
const BYTES: usize = 4 + 13 + 4;

impl Position {
    /// How many characters the text of a position has.
    pub const LENGTH: usize = BYTES / 3 * 4;
    /// The largest epoch.
    pub const MAX_EPOCH: u64 = (1 << EPOCH_BITS) - 1;

    /// The place behind this one.
    #[must_use]
    pub fn next(self, print: u32) -> Self {
        Self {
            number: self.number.saturating_add(1),
            print,
            ..self
        }
    }

    /// The text of this position of a group.
    pub fn encode(self, group: &str) -> String {
        Stamp::new(group, self).token().as_str().to_owned()
    }

    /// Reads the text of a position of this group. Any other text, and that of another group, is none.
    pub fn decode(group: &str, text: &str) -> Option<Self> {
        let stamp = Stamp::read(text)?;
        (stamp.tag == tag_of(group)).then_some(stamp.position)
    }
}

/// 32 bits of FNV-1a over the name: the same in each process and release.
pub fn tag_of(group: &str) -> u32 {
    let hash = group.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // What is left has 32 bits.
    u32::try_from(hash >> 32 ^ hash & u64::from(u32::MAX)).unwrap_or_default()
}

/// A position with what its text says of the group: what a message carries on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Where the message stands.
    pub position: Position,
    /// 32 bits of a hash of the group's name.
    pub tag: u32,
}

impl Stamp {
    /// A position of this group.
    pub fn new(group: &str, position: Position) -> Self {
        Self {
            position,
            tag: tag_of(group),
        }
    }

    /// Reads the text of a position, of whichever group. Any other text is none.
    pub fn read(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        if read != BYTES {
            return None;
        }
        let (tag, rest) = bytes.split_first_chunk()?;
        let (place, print) = rest.split_last_chunk()?;
        let place = place
            .iter()
            .fold(0_u128, |place, byte| place << 8 | u128::from(*byte));
        let position = Position {
            epoch: u64::try_from(place >> NUMBER_BITS).ok()?,
            number: u64::try_from(place & ((1 << NUMBER_BITS) - 1)).ok()?,
            print: u32::from_be_bytes(*print),
        };
        let tag = u32::from_be_bytes(*tag);
        (position.epoch != 0).then_some(Self { position, tag })
    }

    /// Its text.
    pub fn token(&self) -> Token {
        let Position {
            epoch,
            number,
            print,
        } = self.position;
        let epoch = u128::from(epoch & Position::MAX_EPOCH);
        let number = u128::from(number & ((1 << NUMBER_BITS) - 1));
        let place = (epoch << NUMBER_BITS | number).to_be_bytes();
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&self.tag.to_be_bytes());
        bytes[4..17].copy_from_slice(&place[3..]);
        bytes[17..].copy_from_slice(&print.to_be_bytes());
        let mut text = [0; Position::LENGTH];
        // There is room for all of it.
        let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        Token(text)
    }
}

/// A message that can note where it stands in the stream of its group.
pub trait Stamped {
    /// Notes it, once. It is called under the engine's lock, and must run no foreign code.
    fn stamp(&self, stamp: Stamp);

    /// What was noted.
    fn stamped(&self) -> Option<Stamp>;
}

/// The text of a position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; Position::LENGTH]);

impl Token {
    /// The text.
    pub fn as_str(&self) -> &str {
        // All characters are of the alphabet.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(epoch: u64, number: u64, print: u32) -> Position {
        Position {
            epoch,
            number,
            print,
        }
    }

    #[test]
    fn the_text_of_a_position_stays_what_it_is() {
        let text = position(1, 2, 3).encode("room.1");
        assert_eq!(text, "R6zr0wAAAAAAAAgAAAAAAAIAAAAD");
        assert_eq!(Position::decode("room.1", &text), Some(position(1, 2, 3)));
        assert_eq!(
            Stamp::read(&text),
            Some(Stamp::new("room.1", position(1, 2, 3)))
        );
    }

    #[test]
    fn what_is_no_position_of_the_group_is_none() {
        let text = position(Position::MAX_EPOCH, 7, 9).encode("room.1");
        let huge = text.repeat(10_000);
        for wrong in [
            "",
            "A",
            &text[1..],
            &text[..27],
            &format!("{text}="),
            &format!("{text}\n"),
            &format!("{}é", &text[..26]),
            &format!("{}+", &text[..27]),
            &huge,
            "null",
            "0000000000000000000000000000",
        ] {
            assert_eq!(Position::decode("room.1", wrong), None, "{wrong:.40}");
        }
        assert_eq!(Position::decode("room.2", &text), None);
        assert_eq!(Position::decode("", &text), None);
    }

    /// centrifuge-go #159: a position without an epoch was taken for one of any stream.
    #[test]
    fn centrifuge_go_159_an_empty_epoch_is_no_position() {
        let text = position(0, 7, 0).encode("g");
        assert_eq!(Position::decode("g", &text), None);
    }

    proptest! {
        #[test]
        fn a_position_comes_back_as_it_was(
            group in "[a-zA-Z0-9._-]{1,100}",
            epoch in 1..=Position::MAX_EPOCH,
            number in 0..1_u64 << 51,
            print: u32,
        ) {
            let text = position(epoch, number, print).encode(&group);
            prop_assert!(text.len() <= 40);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(Position::decode(&group, &text), Some(position(epoch, number, print)));
        }

        /// A text has one position, and a position one text: what was changed is another position, or none.
        #[test]
        fn any_text_is_a_position_or_none(text in "\\PC{0,60}", other in "[a-zA-Z0-9_-]{28}") {
            for text in [text, other] {
                if let Some(read) = Position::decode("g", &text) {
                    prop_assert_eq!(read.encode("g"), text);
                }
            }
        }
    }
}
