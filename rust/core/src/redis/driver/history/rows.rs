//! The entries of a stream, as a server answers them.

use crate::history::Position;
use crate::redis::driver::reply;
use crate::redis::link::Reply;
use crate::redis::wire::history::{EntryId, FIELD, Identity, print};

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: EntryId,
    /// The envelope; nothing of a head.
    pub(super) value: Vec<u8>,
}

impl Row {
    pub(super) fn identity(&self) -> Option<Identity> {
        Identity::of(&self.value)
    }

    pub(super) fn print(&self) -> u32 {
        print(&self.value)
    }

    pub(super) fn position(&self) -> Position {
        Position {
            epoch: self.id.epoch,
            number: self.id.number,
            print: self.print(),
        }
    }
}

/// The entries of an answer, in its order. What is no entry of a history is left out.
pub(super) fn rows(answer: Reply) -> Vec<Row> {
    let Reply::Array(entries) = answer else {
        return Vec::new();
    };
    entries.into_iter().filter_map(row).collect()
}

fn row(entry: Reply) -> Option<Row> {
    let Reply::Array(parts) = entry else {
        return None;
    };
    let mut parts = parts.into_iter();
    let id = EntryId::parse(&reply::bytes(parts.next()?)?)?;
    let Reply::Array(fields) = parts.next()? else {
        return None;
    };
    let mut fields = fields.into_iter();
    let field = reply::bytes(fields.next()?)?;
    let value = reply::bytes(fields.next()?)?;
    let is_ours = field == FIELD.as_bytes() && fields.next().is_none();
    is_ours.then_some(Row { id, value })
}

/// The last of these entries, so many: a server may have earlier ones still, because it removes them by the block.
pub(super) fn newest_rows(mut rows: Vec<Row>, size: usize) -> Vec<Row> {
    rows.split_off(rows.len().saturating_sub(size))
}

/// The answers to the commands of a transaction; nothing if it was not done.
pub(super) fn done(replies: Vec<Reply>) -> Vec<Reply> {
    match replies.into_iter().next_back() {
        Some(Reply::Array(done)) => done,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::BulkString(text.as_bytes().to_vec())
    }

    fn entry(id: &str, fields: &[&str]) -> Reply {
        let fields = fields.iter().map(|field| text(field)).collect();
        Reply::Array(vec![text(id), Reply::Array(fields)])
    }

    #[test]
    fn entries_are_read_in_their_order_and_what_is_none_is_left_out() {
        let answer = Reply::Array(vec![
            entry("5-0", &["e", ""]),
            entry("5-x", &["e", "a"]),
            entry("5-1", &["x", "a"]),
            entry("5-1", &["e"]),
            entry("5-1", &["e", "a", "f", "b"]),
            Reply::Array(vec![text("5-1")]),
            text("5-1"),
            Reply::Nil,
            entry("6-2", &["e", "a"]),
        ]);
        let row = |epoch, number, value: &str| Row {
            id: EntryId { epoch, number },
            value: value.as_bytes().to_vec(),
        };
        assert_eq!(rows(answer), [row(5, 0, ""), row(6, 2, "a")]);
        assert_eq!(rows(Reply::Nil), []);
        assert_eq!(row(5, 0, "").print(), 0);
    }

    #[test]
    fn the_newest_entries_are_those_that_come_last() {
        let row = |number| Row {
            id: EntryId { epoch: 5, number },
            value: Vec::new(),
        };
        let all = || vec![row(1), row(2), row(3)];
        assert_eq!(newest_rows(all(), 2), [row(2), row(3)]);
        assert_eq!(newest_rows(all(), 3), all());
        assert_eq!(newest_rows(all(), 9), all());
        assert_eq!(newest_rows(all(), 0), []);
    }

    #[test]
    fn a_transaction_that_was_not_done_has_no_answers() {
        let queued = || Reply::SimpleString("QUEUED".to_owned());
        let all = vec![Reply::Okay, queued(), Reply::Array(vec![Reply::Int(1)])];
        assert_eq!(done(all), [Reply::Int(1)]);
        assert_eq!(done(vec![Reply::Okay, queued(), Reply::Nil]), []);
        assert_eq!(done(Vec::new()), []);
    }
}
