//! The few forms of msgpack that events and lists are written in.

pub(super) fn map(bytes: &mut Vec<u8>, entries: usize) {
    container(bytes, entries, 0x80, 0xdf);
}

pub(super) fn array(bytes: &mut Vec<u8>, items: usize) {
    container(bytes, items, 0x90, 0xdd);
}

/// A container of up to 15 has its length in the first byte, a longer one in the four bytes behind it.
fn container(bytes: &mut Vec<u8>, count: usize, short: u8, long: u8) {
    match u8::try_from(count) {
        Ok(count) if count < 16 => bytes.push(short | count),
        _ => {
            bytes.push(long);
            bytes.extend(length(count).to_be_bytes());
        }
    }
}

pub(super) fn text(bytes: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 32 => bytes.push(0xa0 | length),
        Ok(length) => bytes.extend([0xd9, length]),
        Err(_) => {
            bytes.push(0xdb);
            bytes.extend(length(text.len()).to_be_bytes());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
}

pub(super) fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.push(0xcf);
    bytes.extend(number.to_be_bytes());
}

/// There is nothing as long as four bytes can count: keys, metas and lists are bounded.
fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> rmpv::Value {
        let mut rest = bytes;
        let value = rmpv::decode::read_value(&mut rest).expect("it is msgpack");
        assert!(rest.is_empty());
        value
    }

    #[test]
    fn texts_and_containers_of_all_lengths_are_read_back() {
        for count in [0, 1, 15, 16, 31, 32, 255, 256, 70_000] {
            let written = "x".repeat(count);
            let mut bytes = Vec::new();
            text(&mut bytes, &written);
            assert_eq!(read(&bytes).as_str(), Some(written.as_str()));
            let mut bytes = Vec::new();
            array(&mut bytes, count);
            (0..count).for_each(|item| number(&mut bytes, item as u64));
            assert_eq!(read(&bytes).as_array().map(Vec::len), Some(count));
            let mut bytes = Vec::new();
            map(&mut bytes, count);
            for item in 0..count {
                text(&mut bytes, &item.to_string());
                number(&mut bytes, item as u64);
            }
            assert_eq!(read(&bytes).as_map().map(Vec::len), Some(count));
        }
    }
}
