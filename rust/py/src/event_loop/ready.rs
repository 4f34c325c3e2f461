//! What waits for a loop's next call of `drain`, and how any thread reaches that loop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headrace_core::sync::Mutex;

use super::self_pipe::SelfPipe;
use super::wake_target::WakeTarget;

/// What senders in any thread add to, and how they notify the loop.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) run_queue: Mutex<RunQueue>,
    /// How other threads reach the loop. `None` where the system or the loop cannot, and once the loop is gone.
    pub(super) pipe: Mutex<Option<Arc<SelfPipe>>>,
    /// Whether the loop's end will be noticed; else its address may come to stand for another loop.
    pub(super) has_reader: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct RunQueue {
    /// Those whose wait was interrupted. They do not wait behind a whole group.
    pub(super) interrupted: VecDeque<WakeTarget>,
    /// Those that have what they waited for.
    pub(super) ready: VecDeque<WakeTarget>,
    /// Functions to be called by the loop.
    pub(super) alarms: Vec<WakeTarget>,
    /// A call of `drain` is scheduled.
    pub(super) scheduled: bool,
    pub(super) closed: bool,
}

/// What was to be woken, and the functions that were to be called.
type Left = (VecDeque<WakeTarget>, Vec<WakeTarget>);

impl RunQueue {
    /// Accepts no more, and returns what is there.
    #[must_use = "what it drops is dropped by the caller, without the lock"]
    pub(super) fn close(&mut self) -> Left {
        self.closed = true;
        let mut targets = std::mem::take(&mut self.interrupted);
        targets.append(&mut self.ready);
        (targets, std::mem::take(&mut self.alarms))
    }

    /// Whether another call of `drain` has something to do.
    pub(super) fn has_more(&self) -> bool {
        !(self.interrupted.is_empty() && self.ready.is_empty() && self.alarms.is_empty())
    }
}

impl Ready {
    pub(super) fn new(pipe: Option<SelfPipe>) -> Self {
        Self {
            run_queue: Mutex::default(),
            pipe: Mutex::new(pipe.map(Arc::new)),
            has_reader: AtomicBool::new(false),
        }
    }

    pub(super) fn notify(&self) -> bool {
        // Not under the lock: the loop may wake during the write, and its first step takes the lock.
        self.pipe().is_some_and(|pipe| pipe.notify())
    }

    pub(super) fn clear_pipe(&self) {
        if let Some(pipe) = self.pipe() {
            pipe.clear();
        }
    }

    fn pipe(&self) -> Option<Arc<SelfPipe>> {
        self.pipe.with(|pipe| pipe.clone())
    }

    /// Adds without Python, and notifies the loop. False if this loop cannot be notified so: then nothing was added.
    pub(super) fn add_detached(
        &self,
        ready: &mut Vec<WakeTarget>,
        alarms: impl FnOnce() -> Vec<WakeTarget> + Send,
    ) -> bool {
        if !self.has_reader.load(Ordering::Relaxed) {
            return false;
        }
        let scheduled = self.run_queue.with(|queue| {
            if queue.closed {
                return None;
            }
            queue.ready.extend(ready.drain(..));
            queue.alarms.extend(alarms());
            Some(std::mem::replace(&mut queue.scheduled, true))
        });
        if scheduled == Some(false) {
            // A pipe that is full has been written to.
            self.notify();
        }
        scheduled.is_some()
    }
}
