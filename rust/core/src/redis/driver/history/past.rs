//! A part of a stream that was read, for those who want to go on in it.

use std::sync::Arc;

use crate::history::{Found, Position, Since};

/// The entries from one on up to the last that the members have had, as far as there is no hole among their messages.
#[derive(Debug)]
pub(super) struct Past<M> {
    /// The number of the entry from which on it was read.
    from: u64,
    /// The entry before the first message, if that is known.
    before: Option<Position>,
    positions: Vec<Position>,
    messages: Arc<Vec<M>>,
}

impl<M: Clone> Past<M> {
    /// That of these entries. One without a message is a head, or one that cannot be opened.
    pub(super) fn new(from: u64, entries: &[(Position, Option<M>)]) -> Self {
        let mut past = Self {
            from,
            before: None,
            positions: Vec::new(),
            messages: Arc::default(),
        };
        let mut messages = Vec::new();
        for (position, message) in entries {
            let last = past.positions.last().copied().or(past.before);
            if last.is_some_and(|last| last.next(position.print) != *position) {
                past.before = None;
                past.positions.clear();
                messages.clear();
            }
            if let Some(message) = message {
                past.positions.push(*position);
                messages.push(message.clone());
            } else {
                past.before = Some(*position);
                past.positions.clear();
                messages.clear();
            }
        }
        past.messages = Arc::new(messages);
        past
    }

    /// Whether the stream has no more of what is wanted from this entry on.
    pub(super) fn covers(&self, number: u64) -> bool {
        self.from <= number
    }

    /// The number of the oldest message, or of the next one.
    pub(super) fn oldest(&self) -> Option<u64> {
        let next = self.before.map(|before| before.number.saturating_add(1));
        self.positions.first().map(|first| first.number).or(next)
    }

    /// What is behind a position, if that is here; or the newest messages, up to so many, if it has as many or there are no more.
    pub(super) fn behind(&self, since: Since, wanted: u64, head: Position) -> Option<Found<M>> {
        let count = self.positions.len();
        let behind = match since {
            Since::Position(position) => {
                let position = position?;
                let at = self.positions.iter().position(|here| *here == position);
                let is_before = self.before == Some(position);
                at.map_or(is_before.then_some(count), |at| Some(count - at - 1))
            }
            Since::Newest(most) => {
                (most <= count || self.covers(wanted)).then_some(most.min(count))
            }
        };
        behind.map(|behind| Found::read(&self.messages, behind, head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 7;

    fn at(number: u64) -> Position {
        Position {
            epoch: EPOCH,
            number,
            print: u32::try_from(number * 10).expect("it is small"),
        }
    }

    /// What is read from number 1 on, where these numbers have messages, and this one has none.
    fn past(numbers: &[u64], without: Option<u64>) -> Past<u64> {
        let message = |number: &u64| (Some(*number) != without).then_some(*number);
        let entries = numbers.iter().map(|number| (at(*number), message(number)));
        Past::new(1, &entries.collect::<Vec<_>>())
    }

    fn given(past: &Past<u64>, since: Since, wanted: u64) -> Option<Vec<u64>> {
        let found = past.behind(since, wanted, at(9))?;
        found.replay.map(Iterator::collect)
    }

    fn behind(past: &Past<u64>, number: u64) -> Option<Vec<u64>> {
        given(past, Since::Position(Some(at(number))), number)
    }

    #[test]
    fn what_is_behind_an_entry_is_given_and_nothing_behind_another_one() {
        let past = past(&[1, 2, 3, 4], None);
        assert_eq!(behind(&past, 1), Some(vec![2, 3, 4]));
        assert_eq!(behind(&past, 4), Some(vec![]));
        for number in [0, 5] {
            assert_eq!(behind(&past, number), None);
        }
        let forged = Position { print: 1, ..at(2) };
        assert_eq!(given(&past, Since::Position(Some(forged)), 2), None);
        assert_eq!(given(&past, Since::Position(None), 2), None);
        assert_eq!(past.oldest(), Some(1));
    }

    #[test]
    fn the_newest_are_given_if_there_are_as_many_or_no_more() {
        let past = past(&[1, 2, 3], None);
        assert_eq!(given(&past, Since::Newest(2), 1), Some(vec![2, 3]));
        assert_eq!(given(&past, Since::Newest(9), 1), Some(vec![1, 2, 3]));
        assert_eq!(given(&past, Since::Newest(9), 0), None);
    }

    #[test]
    fn nothing_is_complete_over_a_hole() {
        for (numbers, without, before) in [
            (&[1, 2, 3, 4, 5][..], Some(3), Some(3)),
            (&[1, 2, 4, 5], None, None),
            (&[1, 2, 3, 5], Some(3), None),
        ] {
            let past = past(numbers, without);
            for number in [1, 2] {
                assert_eq!(behind(&past, number), None, "{numbers:?} {number}");
            }
            assert_eq!(behind(&past, 5), Some(vec![]));
            if let Some(before) = before {
                assert_eq!(behind(&past, before), Some(vec![4, 5]));
                assert_eq!(past.oldest(), Some(4));
            }
        }
        assert_eq!(past(&[1, 2], Some(2)).oldest(), Some(3));
        assert_eq!(past(&[], None).oldest(), None);
    }
}
