//! What waits for a loop's next call of `drain`, and how any thread reaches that loop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use headrace_core::sync::Mutex;

use super::sleeper::Sleeper;
use super::wire::Wire;

/// What senders in any thread put there, and what they pull.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) line: Mutex<Line>,
    /// How other threads reach the loop. `None` where the system or the loop cannot, and once the loop is gone.
    pub(super) wire: Mutex<Option<Arc<Wire>>>,
    /// Whether the loop's end will be noticed; else its address may come to stand for another loop.
    pub(super) has_bell: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    /// Those that are called by their own client. They do not wait behind a whole group.
    pub(super) called: VecDeque<Sleeper>,
    /// Those that have a message.
    pub(super) ready: VecDeque<Sleeper>,
    /// Functions to be called by the loop.
    pub(super) alarms: Vec<Sleeper>,
    /// A call of `drain` is on its way.
    pub(super) scheduled: bool,
    pub(super) closed: bool,
}

/// The waiters that were to be woken, and the functions that were to be called.
type Left = (VecDeque<Sleeper>, Vec<Sleeper>);

impl Line {
    /// Takes no more, and gives up what is there.
    #[must_use = "what it drops is dropped by the caller, without the lock"]
    pub(super) fn close(&mut self) -> Left {
        self.closed = true;
        let mut sleepers = std::mem::take(&mut self.called);
        sleepers.append(&mut self.ready);
        (sleepers, std::mem::take(&mut self.alarms))
    }

    /// Whether another call of `drain` has something to do.
    pub(super) fn has_more(&self) -> bool {
        !(self.called.is_empty() && self.ready.is_empty() && self.alarms.is_empty())
    }
}

impl Ready {
    pub(super) fn new(wire: Option<Wire>) -> Self {
        Self {
            line: Mutex::default(),
            wire: Mutex::new(wire.map(Arc::new)),
            has_bell: AtomicBool::new(false),
        }
    }

    pub(super) fn pull_wire(&self) -> bool {
        // Not under the lock: the loop wakes within the pull, and its first step takes the lock.
        self.wire().is_some_and(|wire| wire.pull())
    }

    pub(super) fn quiet_wire(&self) {
        if let Some(wire) = self.wire() {
            wire.quiet();
        }
    }

    fn wire(&self) -> Option<Arc<Wire>> {
        self.wire.with(|wire| wire.clone())
    }

    /// Adds without Python, and pulls the wire. False if that is not the way to this loop: then nothing was added.
    pub(super) fn add_detached(
        &self,
        ready: &mut Vec<Sleeper>,
        alarms: impl FnOnce() -> Vec<Sleeper> + Send,
    ) -> bool {
        if !self.has_bell.load(Ordering::Relaxed) {
            return false;
        }
        let scheduled = self.line.with(|line| {
            if line.closed {
                return None;
            }
            line.ready.extend(ready.drain(..));
            line.alarms.extend(alarms());
            Some(std::mem::replace(&mut line.scheduled, true))
        });
        if scheduled == Some(false) {
            // A wire that takes no more has been pulled.
            self.pull_wire();
        }
        scheduled.is_some()
    }
}
