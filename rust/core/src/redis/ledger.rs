//! The outcomes of sends that nobody waited for.
//!
//! A send is entered before it is handed to the driver, and removed when its answer comes. An entry that is dropped
//! without an answer is removed as well, and does not count as a failure: the caller got an error, or the engine ended
//! with its process. So no entry remains pending.
//!
//! A counter alone would not do: `wait` ends with the sends that were entered before it. On a busy ledger it would never end
//! if it waited for later ones too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use super::host::Answer;
use crate::sync::{Condvar, Mutex};

/// Sends that nobody waited for, from any thread; for one engine or several.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Mutex<Accounts>,
    /// Notified when the last entry of a generation is removed.
    removed: Condvar,
}

#[derive(Debug, Default)]
struct Accounts {
    /// How many entries are open, by their generation; none that has no open ones.
    open: BTreeMap<u64, u64>,
    /// The generation of new entries.
    newest: u64,
    failed: u64,
    latest: Option<Fault>,
    /// Threads in `wait`, so that `notify_all` is called only if there are any.
    waiting: usize,
}

impl Accounts {
    fn is_settled(&self, mark: Mark) -> bool {
        let oldest = self.open.keys().next();
        oldest.is_none_or(|oldest| *oldest > mark.0)
    }
}

/// What was entered in a ledger until some moment.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Ledger {
    /// How many sends have no answer yet.
    pub fn pending(&self) -> u64 {
        self.accounts.lock().open.values().sum()
    }

    /// How many sends failed.
    pub fn failed(&self) -> u64 {
        self.accounts.lock().failed
    }

    /// Why the latest that failed did so.
    pub fn fault(&self) -> Option<Fault> {
        self.accounts.lock().latest.clone()
    }

    /// Marks what was entered so far.
    pub fn mark(&self) -> Mark {
        let mut accounts = self.accounts.lock();
        let mark = Mark(accounts.newest);
        accounts.newest += 1;
        mark
    }

    /// Sleeps until all entries from before the mark are removed, or until the time is over; returns whether they are. Any
    /// number of threads may wait at once.
    pub fn wait(&self, mark: Mark, timeout: Duration) -> bool {
        let mut accounts = self.accounts.lock();
        accounts.waiting += 1;
        let mut accounts = self
            .removed
            .wait_until(accounts, timeout, |accounts| accounts.is_settled(mark));
        accounts.waiting -= 1;
        accounts.is_settled(mark)
    }

    fn enter(self: &Arc<Self>) -> Posting {
        let mut accounts = self.accounts.lock();
        let generation = accounts.newest;
        *accounts.open.entry(generation).or_default() += 1;
        Posting {
            ledger: Arc::clone(self),
            generation,
            fault: None,
        }
    }

    fn remove(&self, generation: u64, fault: Option<Fault>) {
        let mut accounts = self.accounts.lock();
        if fault.is_some() {
            accounts.failed += 1;
            accounts.latest = fault;
        }
        let Some(open) = accounts.open.get_mut(&generation) else {
            return;
        };
        *open -= 1;
        if *open > 0 {
            return;
        }
        accounts.open.remove(&generation);
        let waiting = accounts.waiting > 0;
        drop(accounts);
        if waiting {
            self.removed.notify_all();
        }
    }
}

/// A send in two ledgers: the sender's, and the layer's, whose failures are logged. The sender's may be dropped first.
#[derive(Debug)]
pub struct LedgerEntry([Posting; 2]);

impl LedgerEntry {
    /// Enters a send in both.
    pub fn new(ledgers: [&Arc<Ledger>; 2]) -> Self {
        Self(ledgers.map(Ledger::enter))
    }

    /// Removes it from both, with its answer.
    pub fn answer(mut self, answer: &Answer) {
        for posting in &mut self.0 {
            posting.fault.clone_from(&answer.fault);
        }
    }
}

/// A send in one ledger, which is removed when this is dropped.
#[derive(Debug)]
struct Posting {
    ledger: Arc<Ledger>,
    generation: u64,
    fault: Option<Fault>,
}

impl Drop for Posting {
    fn drop(&mut self) {
        self.ledger.remove(self.generation, self.fault.take());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::fault::FaultKind;
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn failed(text: &str) -> Answer {
        Answer {
            fault: Some(Fault::new(FaultKind::Timeout, text)),
            ..Answer::default()
        }
    }

    #[test]
    fn an_answer_removes_a_send_from_both_ledgers() {
        let (own, layers) = (Arc::default(), Arc::default());
        let entries = [0; 3].map(|_| LedgerEntry::new([&own, &layers]));
        assert_eq!((own.pending(), layers.pending()), (3, 3));
        for entry in entries {
            entry.answer(&Answer::default());
        }
        assert_eq!((own.pending(), layers.pending()), (0, 0));
        assert_eq!((own.failed(), layers.failed()), (0, 0));
        assert_eq!(own.fault(), None);
    }

    #[test]
    fn failures_are_counted_and_the_latest_is_kept() {
        let (own, layers) = (Arc::default(), Arc::default());
        for text in ["first", "second"] {
            LedgerEntry::new([&own, &layers]).answer(&failed(text));
        }
        LedgerEntry::new([&own, &layers]).answer(&Answer::default());
        for ledger in [own, layers] {
            assert_eq!((ledger.pending(), ledger.failed()), (0, 2));
            assert_eq!(ledger.fault(), failed("second").fault);
        }
    }

    #[test]
    fn what_is_dropped_without_an_answer_is_neither_pending_nor_failed() {
        let ledger = Arc::default();
        drop(LedgerEntry::new([&ledger, &Arc::default()]));
        assert_eq!((ledger.pending(), ledger.failed()), (0, 0));
    }

    #[test]
    fn a_wait_ends_with_what_was_entered_before_it() {
        let ledger = Arc::default();
        let enter = || LedgerEntry::new([&ledger, &Arc::default()]);
        assert!(ledger.wait(ledger.mark(), Duration::ZERO));
        let (before, also_before) = (enter(), enter());
        let mark = ledger.mark();
        let after = enter();
        before.answer(&Answer::default());
        assert!(!ledger.wait(mark, Duration::ZERO));
        also_before.answer(&Answer::default());
        assert!(ledger.wait(mark, Duration::ZERO));
        assert!(!ledger.wait(ledger.mark(), Duration::ZERO));
        assert_eq!(ledger.pending(), 1);
        after.answer(&Answer::default());
        assert!(ledger.wait(ledger.mark(), Duration::ZERO));
    }

    #[test]
    fn all_who_wait_are_woken_by_the_last_answer() {
        let ledger = Arc::default();
        let entry = LedgerEntry::new([&ledger, &Arc::default()]);
        let waits: Vec<_> = (0..4)
            .map(|_| {
                let ledger = Arc::clone(&ledger);
                thread::spawn(move || ledger.wait(ledger.mark(), SOON))
            })
            .collect();
        while ledger.accounts.lock().waiting < waits.len() {
            thread::yield_now();
        }
        entry.answer(&failed("lost"));
        assert!(waits.into_iter().all(|wait| wait.join().expect("it ends")));
        assert_eq!(ledger.accounts.lock().waiting, 0);
    }
}
