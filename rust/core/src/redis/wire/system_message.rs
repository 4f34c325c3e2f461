//! The messages that the engine itself puts into local mailboxes, in msgpack.

/// A message that has nothing but a type.
pub(crate) fn plain(kind: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    text(&mut bytes, "type");
    text(&mut bytes, kind);
    bytes
}

/// A message that names a group which may have missed messages, and how many are known to be missing.
pub(crate) fn gap(kind: &str, group: &str, missed: u64) -> Vec<u8> {
    let mut bytes = vec![0x83];
    text(&mut bytes, "type");
    text(&mut bytes, kind);
    text(&mut bytes, "group");
    text(&mut bytes, group);
    text(&mut bytes, "missed");
    bytes.push(0xcf);
    bytes.extend(missed.to_be_bytes());
    bytes
}

/// Text of any length that fits in four bytes; there is none longer here.
fn text(bytes: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).unwrap_or(0);
    bytes.push(0xdb);
    bytes.extend(length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::wire::payload::inspect;

    #[test]
    fn notices_are_messages_with_a_type() {
        for bytes in [plain("redis.lost"), gap("redis.lost", "room", 300)] {
            let shape = inspect(&bytes).expect("it is msgpack");
            let kind = shape.kind.expect("it has a type");
            assert_eq!(&bytes[kind], b"redis.lost");
        }
    }
}
