//! Room for messages that were sent and not answered, in bytes.
//!
//! A message takes up room from before it is handed to the driver until there is an answer. So a sender that is faster than
//! the servers is slowed down at once. If it awaits the answer, its message waits for room in the driver; if not, its thread
//! blocks here. Claims get room in the order in which they were made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// How much may wait, in bytes. It is exceeded by one message at most.
pub(crate) const MOST: usize = 64 << 20;
/// Threads that wait for room are woken when less than this waits, and not for each message.
const LOW: usize = MOST / 8 * 7;
/// What a message takes up beside its own bytes, roughly: its request, its call, its names.
const OVERHEAD: usize = 512;

/// How much waits, in bytes, and how many wait for room.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: AtomicUsize,
    /// Claims that have not been admitted.
    queued: AtomicUsize,
    /// Threads in `Claim::wait`, so that `notify_all` is called only if there are any.
    sleeping: AtomicUsize,
    /// Taken to fall asleep and to wake, so that no wake is missed.
    wait_lock: Mutex<()>,
    freed: Condvar,
}

impl Backlog {
    fn free(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        let falls = before >= LOW && before - bytes < LOW;
        if falls && self.sleeping.load(Ordering::SeqCst) > 0 {
            drop(self.wait_lock.lock());
            self.freed.notify_all();
        }
    }
}

/// Room for a message, or a place in the queue for room. Dropping it frees either.
#[derive(Debug)]
pub(crate) struct Claim {
    backlog: Arc<Backlog>,
    bytes: usize,
    admitted: AtomicBool,
}

impl Claim {
    /// Claims room for messages of so many bytes together, at once if there is some and nobody waits for it.
    pub(crate) fn new(backlog: &Arc<Backlog>, messages: usize, bytes: usize) -> Self {
        let claim = Self {
            backlog: Arc::clone(backlog),
            bytes: bytes + messages * OVERHEAD,
            admitted: AtomicBool::new(false),
        };
        let before = backlog.queued.fetch_add(1, Ordering::SeqCst);
        if before == 0 {
            claim.admit();
        }
        claim
    }

    /// Takes the room, if it was not taken and there is some; returns whether it is taken.
    pub(crate) fn admit(&self) -> bool {
        if self.is_admitted() {
            return true;
        }
        let bytes = |used: usize| (used < MOST).then_some(used + self.bytes);
        let backlog = &self.backlog;
        let admitted = backlog
            .bytes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, bytes)
            .is_ok();
        if admitted {
            self.admitted.store(true, Ordering::SeqCst);
            backlog.queued.fetch_sub(1, Ordering::SeqCst);
        }
        admitted
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::SeqCst)
    }

    /// Sleeps until there is room, and takes it; or until the time is over.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let backlog = &self.backlog;
        backlog.sleeping.fetch_add(1, Ordering::SeqCst);
        let wait_lock = backlog.wait_lock.lock();
        let wait_lock = backlog
            .freed
            .wait_until(wait_lock, timeout, |()| self.admit());
        drop(wait_lock);
        backlog.sleeping.fetch_sub(1, Ordering::SeqCst);
        self.is_admitted()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_admitted() {
            self.backlog.free(self.bytes);
        } else {
            self.backlog.queued.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn full() -> (Arc<Backlog>, Claim) {
        let backlog = Arc::default();
        let all = Claim::new(&backlog, 0, MOST);
        (backlog, all)
    }

    #[test]
    fn what_is_claimed_is_free_again_at_the_end() {
        let backlog = Arc::default();
        let claims = [1, 2].map(|bytes| Claim::new(&backlog, 1, bytes));
        assert!(claims.iter().all(Claim::is_admitted));
        assert_eq!(backlog.bytes.load(Ordering::SeqCst), 3 + 2 * OVERHEAD);
        drop(claims);
        assert_eq!(backlog.bytes.load(Ordering::SeqCst), 0);
        assert_eq!(backlog.queued.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_message_that_is_larger_than_all_room_is_admitted_alone() {
        let backlog = Arc::default();
        let huge = Claim::new(&backlog, 1, 2 * MOST);
        assert!(huge.is_admitted());
        assert!(!Claim::new(&backlog, 1, 1).is_admitted());
        drop(huge);
        assert!(Claim::new(&backlog, 1, 1).is_admitted());
    }

    #[test]
    fn nobody_is_overtaken() {
        let (backlog, all) = full();
        let first = Claim::new(&backlog, 1, 1);
        drop(all);
        let second = Claim::new(&backlog, 1, 1);
        assert!(!first.is_admitted() && !second.is_admitted());
        assert!(first.admit() && second.admit());
        assert!(Claim::new(&backlog, 1, 1).is_admitted());
    }

    #[test]
    fn a_claim_that_is_dropped_while_it_waits_blocks_no_other() {
        let (backlog, all) = full();
        drop(Claim::new(&backlog, 1, 1));
        drop(all);
        assert!(Claim::new(&backlog, 1, 1).is_admitted());
    }

    #[test]
    fn a_wait_ends_at_its_time_without_room() {
        let (backlog, _all) = full();
        assert!(!Claim::new(&backlog, 1, 1).wait(Duration::ZERO));
    }

    #[test]
    fn all_who_sleep_are_woken_by_room_for_them() {
        let (backlog, all) = full();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let claim = Claim::new(&backlog, 1, 1);
                thread::spawn(move || claim.wait(SOON))
            })
            .collect();
        while backlog.sleeping.load(Ordering::SeqCst) < threads.len() {
            thread::yield_now();
        }
        drop(all);
        let admitted = threads
            .into_iter()
            .map(|thread| thread.join().expect("it ends"));
        assert!(admitted.into_iter().all(|admitted| admitted));
        assert_eq!(backlog.sleeping.load(Ordering::SeqCst), 0);
    }
}
