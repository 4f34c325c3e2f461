//! What the answers of a server hold.

use crate::redis::link::Reply;

/// The number that the server answered; 0 if it answered anything else.
pub(super) fn integer(reply: Option<&Reply>) -> u64 {
    match reply {
        Some(Reply::Int(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    }
}

pub(super) fn bytes(reply: Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::BulkString(bytes) => Some(bytes),
        Reply::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

pub(super) fn text(reply: Reply) -> Option<String> {
    String::from_utf8(bytes(reply)?).ok()
}

/// The words of a list, a set or a map, which is the first answer.
pub(super) fn words(replies: Vec<Reply>) -> Vec<Reply> {
    match replies.into_iter().next() {
        Some(Reply::Array(words) | Reply::Set(words)) => words,
        Some(Reply::Map(pairs)) => {
            let pairs = pairs.into_iter();
            pairs.flat_map(|(key, value)| [key, value]).collect()
        }
        _ => Vec::new(),
    }
}
