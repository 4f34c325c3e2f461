//! The newest messages of one stream.

use std::collections::VecDeque;
use std::sync::Arc;

use super::position::Position;
use super::replay::Replay;
use crate::shrink::Shrink;

/// The newest messages of one stream, and where they stand.
///
/// The numbers of its messages have no gap. A message that does not follow the last one begins it anew.
#[derive(Debug)]
pub struct Ring<M> {
    /// That of the newest message, or of the one before the first.
    head: Position,
    /// The fingerprint of the message before the oldest that is held; not known if the ring began behind it.
    before: Option<u32>,
    entries: VecDeque<Entry<M>>,
    /// The bytes of all messages.
    bytes: usize,
    /// The newest so many messages, as those who resume share them; until the next message comes.
    shared: Option<Arc<Vec<M>>>,
}

#[derive(Debug)]
struct Entry<M> {
    message: M,
    print: u32,
    /// As it was counted; more than 4 GiB counts as that.
    bytes: u32,
}

impl<M: Clone> Ring<M> {
    /// An empty ring. The next message is the one behind this position.
    pub fn new(head: Position) -> Self {
        Self {
            head,
            before: Some(head.print),
            entries: VecDeque::new(),
            bytes: 0,
            shared: None,
        }
    }

    /// The position of the newest message, or the one before the first.
    pub fn head(&self) -> Position {
        self.head
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no message.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of its messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the message at this position, and drops the oldest if there are more than `size`.
    ///
    /// If it does not follow the newest one, because the stream is another or messages are missing, what was held
    /// is dropped before: nobody is told that a part is all.
    pub fn push(
        &mut self,
        position: Position,
        message: M,
        bytes: usize,
        size: usize,
        dropped: &mut Vec<M>,
    ) {
        let follows = position.epoch == self.head.epoch
            && self.head.number.checked_add(1) == Some(position.number);
        if !follows {
            self.restart(position, dropped);
            self.before = None;
        }
        while self.entries.len() >= size.max(1) {
            self.drop_oldest(dropped);
        }
        self.unshare(dropped);
        if self.entries.len() == self.entries.capacity() {
            // No more room than can ever be used.
            let more = self
                .entries
                .len()
                .max(4)
                .min(size.max(1) - self.entries.len());
            self.entries.reserve_exact(more);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes += bytes as usize;
        self.head = position;
        self.entries.push_back(Entry {
            message,
            print: position.print,
            bytes,
        });
    }

    /// Drops all messages. The next one is the one behind this position.
    pub fn restart(&mut self, head: Position, dropped: &mut Vec<M>) {
        self.unshare(dropped);
        dropped.extend(self.entries.drain(..).map(|entry| entry.message));
        self.bytes = 0;
        self.head = head;
        self.before = Some(head.print);
    }

    /// Drops the oldest message; false if there is none.
    pub fn drop_oldest(&mut self, dropped: &mut Vec<M>) -> bool {
        self.unshare(dropped);
        let Some(oldest) = self.entries.pop_front() else {
            return false;
        };
        self.bytes -= oldest.bytes as usize;
        self.before = Some(oldest.print);
        dropped.push(oldest.message);
        self.entries.shrink_if_sparse();
        true
    }

    /// How many messages are behind this position; `None` if not all of them are held, or if it is not one of this stream.
    pub fn behind(&self, position: &Position) -> Option<usize> {
        if position.epoch != self.head.epoch {
            return None;
        }
        let behind = self.head.number.checked_sub(position.number)?;
        let behind = usize::try_from(behind).ok()?;
        // How many that are held are not behind it; the last of them is the one at the position.
        let known = self.entries.len().checked_sub(behind)?;
        let print = match known.checked_sub(1) {
            Some(at) => Some(self.entries.get(at)?.print),
            None => self.before,
        };
        (print == Some(position.print)).then_some(behind)
    }

    /// The position of the message that has so many behind it.
    pub fn position_before(&self, behind: usize) -> Option<Position> {
        let known = self.entries.len().checked_sub(behind)?;
        let print = match known.checked_sub(1) {
            Some(at) => self.entries.get(at)?.print,
            None => self.before?,
        };
        let number = self.head.number.checked_sub(behind as u64)?;
        Some(Position {
            number,
            print,
            ..self.head
        })
    }

    /// The newest `count` messages, or all if there are fewer.
    pub fn replay(&mut self, count: usize) -> Replay<M> {
        let count = count.min(self.entries.len());
        let shared = match &self.shared {
            Some(shared) if shared.len() >= count => Arc::clone(shared),
            smaller => {
                // Twice as many as the last time, so that few lists are made whatever the order of those who resume.
                let doubled = smaller.as_ref().map_or(0, |smaller| 2 * smaller.len());
                let most = count.max(doubled.min(self.entries.len()));
                let skipped = self.entries.len() - most;
                let newest = self.entries.iter().skip(skipped);
                Arc::new(newest.map(|entry| entry.message.clone()).collect())
            }
        };
        // What it replaces holds only messages that are held here too.
        self.shared = Some(Arc::clone(&shared));
        Replay::of_last(shared, count)
    }

    /// The messages, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &M> {
        self.entries.iter().map(|entry| &entry.message)
    }

    fn unshare(&mut self, dropped: &mut Vec<M>) {
        if let Some(shared) = self.shared.take() {
            dropped.extend(Arc::into_inner(shared).into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Position = Position {
        epoch: 5,
        number: 0,
        print: 0,
    };

    fn at(epoch: u64, number: u64, print: u32) -> Position {
        Position {
            epoch,
            number,
            print,
        }
    }

    fn filled(size: usize, count: u32) -> Ring<u32> {
        let mut ring = Ring::new(START);
        for number in 1..=count {
            let position = at(5, number.into(), number * 10);
            ring.push(position, number, 100, size, &mut Vec::new());
        }
        ring
    }

    fn given(ring: &mut Ring<u32>, since: Position) -> Option<Vec<u32>> {
        ring.behind(&since)
            .map(|behind| ring.replay(behind).collect())
    }

    #[test]
    fn a_position_is_complete_as_long_as_all_behind_it_is_held() {
        let mut ring = filled(3, 5);
        assert_eq!(
            (ring.len(), ring.bytes(), ring.head()),
            (3, 300, at(5, 5, 50))
        );
        assert_eq!(given(&mut ring, at(5, 5, 50)), Some(vec![]));
        assert_eq!(given(&mut ring, at(5, 4, 40)), Some(vec![5]));
        assert_eq!(given(&mut ring, at(5, 2, 20)), Some(vec![3, 4, 5]));
        assert_eq!(given(&mut ring, at(5, 1, 10)), None);
        assert_eq!(given(&mut ring, START), None);
        assert_eq!(given(&mut filled(3, 3), START), Some(vec![1, 2, 3]));
        assert_eq!(given(&mut filled(3, 0), START), Some(vec![]));
    }

    #[test]
    fn a_position_that_is_not_of_the_stream_is_not_complete() {
        let ring = filled(3, 5);
        for wrong in [
            at(6, 4, 40),
            at(5, 6, 60),
            at(5, 4, 41),
            at(5, 2, 21),
            at(5, u64::MAX, 0),
        ] {
            assert_eq!(ring.behind(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_message_that_does_not_follow_begins_anew() {
        for (position, known) in [(at(5, 7, 70), 6), (at(6, 6, 70), 5), (at(5, 5, 70), 4)] {
            let (mut ring, mut dropped) = (filled(3, 5), Vec::new());
            ring.push(position, 7, 1, 3, &mut dropped);
            assert_eq!(dropped, vec![3, 4, 5]);
            assert_eq!((ring.len(), ring.bytes()), (1, 1));
            assert_eq!(ring.behind(&at(position.epoch, known, 0)), None);
            assert_eq!(ring.behind(&at(5, 4, 40)), None);
            assert_eq!(ring.behind(&position), Some(0));
        }
    }

    #[test]
    fn a_restart_knows_the_position_that_it_begins_behind() {
        let (mut ring, mut dropped) = (filled(3, 5), Vec::new());
        ring.restart(at(9, 41, 8), &mut dropped);
        assert_eq!((dropped.len(), ring.is_empty()), (3, true));
        ring.push(at(9, 42, 1), 42, 1, 3, &mut dropped);
        assert_eq!(given(&mut ring, at(9, 41, 8)), Some(vec![42]));
        assert_eq!(given(&mut ring, at(9, 41, 7)), None);
    }

    #[test]
    fn a_replay_keeps_what_the_ring_drops_meanwhile() {
        let mut ring = filled(3, 3);
        let mut replay = ring.replay(3);
        assert_eq!(replay.next(), Some(1));
        let mut dropped = Vec::new();
        for number in 4..9 {
            ring.push(at(5, number, 0), 0, 1, 3, &mut dropped);
        }
        assert_eq!((replay.len(), replay.next()), (2, Some(2)));
        let (mut rest, mut unused) = (Vec::new(), Vec::new());
        replay.finish(&mut rest, &mut unused);
        assert_eq!((rest, unused), (vec![3], vec![1, 2, 3]));
    }

    #[test]
    fn those_who_resume_share_their_messages() {
        let mut ring: Ring<Arc<u32>> = Ring::new(START);
        for number in 1..=100 {
            ring.push(at(5, number, 0), Arc::new(0), 1, 100, &mut Vec::new());
        }
        let resumed: Vec<_> = (0..10_000).map(|_| ring.replay(50)).collect();
        let held = ring.messages().map(Arc::strong_count).max();
        // The ring's own, and one list for all.
        assert_eq!((resumed.len(), held), (10_000, Some(2)));
        let growing: Vec<_> = (1..=100).map(|count| ring.replay(count)).collect();
        let held = ring.messages().map(Arc::strong_count).max();
        assert_eq!((growing.len(), held), (100, Some(3)));
    }

    proptest! {
        /// Against the obvious model: all messages ever, from which the newest are cut.
        #[test]
        fn a_ring_is_the_end_of_the_stream(size in 1..6_usize, steps in prop::collection::vec((0..5_u8, 0..8_u64), 0..60)) {
            let mut ring: Ring<u64> = Ring::new(START);
            let (mut all, mut held, mut dropped) = (Vec::new(), 0, Vec::new());
            let mut replays: Vec<(Replay<u64>, Vec<u64>)> = Vec::new();
            for (action, number) in steps {
                match action {
                    0 | 1 => {
                        all.push(all.len() as u64 + 1);
                        held = size.min(held + 1);
                        let next = ring.head().next(0);
                        ring.push(next, next.number, 3, size, &mut dropped);
                    }
                    2 => {
                        prop_assert_eq!(ring.drop_oldest(&mut dropped), held > 0);
                        held = held.saturating_sub(1);
                    }
                    _ => {
                        let behind = (all.len() as u64).checked_sub(number).filter(|behind| *behind <= held as u64);
                        prop_assert_eq!(ring.behind(&at(5, number, 0)), behind.map(|behind| usize::try_from(behind).unwrap_or(0)));
                        if let Some(behind) = ring.behind(&at(5, number, 0)) {
                            prop_assert_eq!(ring.position_before(behind), Some(at(5, number, 0)));
                            replays.push((ring.replay(behind), all[all.len() - behind..].to_vec()));
                        }
                    }
                }
                prop_assert_eq!(ring.messages().copied().collect::<Vec<_>>(), &all[all.len() - held..]);
                prop_assert_eq!((ring.len(), ring.bytes(), ring.head().number), (held, 3 * held, all.len() as u64));
            }
            for (replay, expected) in replays {
                prop_assert_eq!(replay.collect::<Vec<_>>(), expected);
            }
        }
    }
}
