//! Which processes live. Each counts in one hash, at every beat; whose count stands still for some beats is dead.
//!
//! Nothing is measured by a clock, neither that of the server nor that of another machine: it is counted how often this process
//! has read the same. After a reading that failed the counting begins anew, because the server may have been away for all.

use std::collections::HashMap;

use crate::redis::wire::keys::ProcessId;
use crate::shrink::Shrink;

/// How many readings in a row show the same count of a process that is dead.
const STILL: u32 = 3;
/// How many readings in a row show the same count of one that will not come back.
const FORGOTTEN: u32 = 1000;

/// The processes that count, or that have entries, and those that died lately.
#[derive(Debug, Default)]
pub(super) struct Living(HashMap<ProcessId, Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// What was read last; none if it has no field.
    count: Option<u64>,
    /// How many readings in a row have shown that.
    still: u32,
}

impl Seen {
    fn is_dead(&self) -> bool {
        self.still >= STILL
    }
}

impl Living {
    /// A process has entries: from now on it has to count. Gives whether it lives.
    pub(super) fn met(&mut self, process: ProcessId) -> bool {
        !self.0.entry(process).or_default().is_dead()
    }

    /// A process has sent something.
    pub(super) fn heard(&mut self, process: ProcessId) {
        self.0.entry(process).or_default().still = 0;
    }

    /// The counts were read. Gives those that have died since the reading before, and whether one that was taken for dead lives.
    pub(super) fn read(&mut self, counts: &HashMap<ProcessId, u64>) -> (Vec<ProcessId>, bool) {
        for process in counts.keys() {
            self.met(*process);
        }
        let (mut dead, mut is_back) = (Vec::new(), false);
        self.0.retain(|process, seen| {
            let count = counts.get(process).copied();
            if count.is_some() && count != seen.count {
                is_back |= seen.is_dead();
                *seen = Seen { count, still: 0 };
                return true;
            }
            seen.still += 1;
            if seen.still == STILL {
                dead.push(*process);
            }
            seen.still < FORGOTTEN
        });
        self.0.shrink_if_sparse();
        dead.sort_unstable();
        (dead, is_back)
    }

    /// A reading has failed.
    pub(super) fn begin_anew(&mut self) {
        for seen in self.0.values_mut().filter(|seen| !seen.is_dead()) {
            seen.still = 0;
        }
    }

    /// Whether no other process that lives is lower.
    pub(super) fn is_lowest(&self, process: ProcessId) -> bool {
        let living = self.0.iter().filter(|(_, seen)| !seen.is_dead());
        living
            .map(|(other, _)| *other)
            .all(|other| process <= other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProcessId = ProcessId(1);
    const B: ProcessId = ProcessId(2);
    const C: ProcessId = ProcessId(3);

    /// What died, and nothing else.
    fn read(living: &mut Living, of: &[(ProcessId, u64)]) -> Vec<ProcessId> {
        living.read(&counts(of)).0
    }

    fn counts(counts: &[(ProcessId, u64)]) -> HashMap<ProcessId, u64> {
        counts.iter().copied().collect()
    }

    #[test]
    fn who_does_not_count_for_three_readings_is_dead_until_it_counts_again() {
        let mut living = Living::default();
        assert_eq!(read(&mut living, &[(A, 5), (B, 1)]), []);
        assert_eq!(read(&mut living, &[(A, 5), (B, 2)]), []);
        assert_eq!(read(&mut living, &[(A, 5), (B, 3)]), []);
        assert!(living.met(A) && !living.is_lowest(B));
        assert_eq!(read(&mut living, &[(A, 5), (B, 4)]), [A]);
        assert!(!living.met(A) && living.met(B));
        assert!(living.is_lowest(B) && !living.is_lowest(C));
        assert_eq!(read(&mut living, &[(B, 5)]), [], "it is dead once");
        assert_eq!(living.read(&counts(&[(A, 6), (B, 6)])), (Vec::new(), true));
        assert!(living.met(A));
    }

    #[test]
    fn who_has_entries_and_no_field_is_dead_as_soon() {
        let mut living = Living::default();
        assert!(living.met(B));
        for _ in 0..2 {
            assert_eq!(read(&mut living, &[]), []);
        }
        assert_eq!(read(&mut living, &[]), [B]);
        living.heard(B);
        assert!(living.met(B));
    }

    #[test]
    fn a_reading_that_failed_and_a_message_begin_anew() {
        let mut living = Living::default();
        living.met(A);
        for _ in 0..5 {
            for _ in 0..2 {
                assert_eq!(read(&mut living, &[]), []);
            }
            living.begin_anew();
        }
        for _ in 0..5 {
            living.heard(A);
            for _ in 0..2 {
                assert_eq!(read(&mut living, &[]), []);
            }
        }
    }

    #[test]
    fn a_count_may_go_back() {
        let mut living = Living::default();
        for count in [5, 4, 5, 1, 7] {
            assert_eq!(read(&mut living, &[(A, count)]), []);
        }
        assert!(living.met(A));
    }

    #[test]
    fn the_dead_are_forgotten_in_the_end() {
        let mut living = Living::default();
        living.met(A);
        for _ in 0..FORGOTTEN {
            read(&mut living, &[]);
        }
        assert!(living.0.is_empty());
    }
}
