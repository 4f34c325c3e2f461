//! The waiters of one event loop that are to be woken, and how they get there from a thread that is not attached to Python.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use headrace_core::sync::Mutex;
use pyo3::prelude::*;

use super::Wakes;
use crate::awaitable::Waiter;
use crate::receiver::Alarm;
use crate::wire::Wire;

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
    /// Those whose own client calls them. They do not wait behind a whole group.
    pub(super) called: VecDeque<Py<Waiter>>,
    /// Those that have a message.
    pub(super) waiters: VecDeque<Py<Waiter>>,
    /// Functions to be called by the loop.
    pub(super) alarms: Vec<Py<Alarm>>,
    /// A call of `drain` is on its way.
    pub(super) scheduled: bool,
    pub(super) closed: bool,
}

/// The waiters that were to be woken, and the functions that were to be called.
type Left = (VecDeque<Py<Waiter>>, Vec<Py<Alarm>>);

impl Line {
    /// Takes no more, and gives up what is there.
    #[must_use = "what it drops is dropped by the caller, without the lock"]
    pub(super) fn close(&mut self) -> Left {
        self.closed = true;
        let mut waiters = std::mem::take(&mut self.called);
        waiters.append(&mut self.waiters);
        (waiters, std::mem::take(&mut self.alarms))
    }

    /// Whether another call of `drain` has something to do.
    pub(super) fn has_more(&self) -> bool {
        !(self.called.is_empty() && self.waiters.is_empty() && self.alarms.is_empty())
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
    fn add_detached(&self, batch: &mut Batch) -> bool {
        if !self.has_bell.load(Ordering::Relaxed) {
            return false;
        }
        let scheduled = self.line.with(|line| {
            if line.closed {
                return None;
            }
            line.waiters.extend(batch.waiters.drain(..));
            line.alarms.append(&mut batch.alarms);
            Some(std::mem::replace(&mut line.scheduled, true))
        });
        if scheduled == Some(false) {
            // A wire that takes no more has been pulled.
            self.pull_wire();
        }
        scheduled.is_some()
    }
}

/// What goes to one loop.
#[derive(Debug)]
struct Batch {
    ready: Arc<Ready>,
    waiters: Vec<Py<Waiter>>,
    alarms: Vec<Py<Alarm>>,
}

/// The waiters of one delivery by a thread that is not attached to Python, on their way to their loops.
///
/// Nothing here touches an object's count of references. Where a loop can only be woken by calling it, and where it is
/// gone, the thread attaches after all.
#[derive(Debug, Default)]
pub(crate) struct DetachedWakes(Vec<Batch>);

impl DetachedWakes {
    fn batch(&mut self, ready: &Arc<Ready>) -> Option<&mut Batch> {
        // One delivery after the other is for the same loop, and there are few loops.
        let known = self
            .0
            .iter()
            .rposition(|batch| Arc::ptr_eq(&batch.ready, ready));
        let place = known.unwrap_or_else(|| {
            self.0.push(Batch {
                ready: Arc::clone(ready),
                waiters: Vec::new(),
                alarms: Vec::new(),
            });
            self.0.len() - 1
        });
        self.0.get_mut(place)
    }

    pub(crate) fn add(&mut self, waiter: Py<Waiter>) {
        let ready = Arc::clone(&waiter.get().queue().ready);
        if let Some(batch) = self.batch(&ready) {
            batch.waiters.push(waiter);
        }
    }

    pub(crate) fn add_alarm(&mut self, alarm: Py<Alarm>) {
        let ready = Arc::clone(&alarm.get().queue().ready);
        if let Some(batch) = self.batch(&ready) {
            batch.alarms.push(alarm);
        }
    }

    pub(crate) fn ring(self) {
        for mut batch in self.0 {
            let ready = Arc::clone(&batch.ready);
            if ready.add_detached(&mut batch) {
                continue;
            }
            // Not attached means that the interpreter is gone, and every loop with it.
            Python::try_attach(|py| batch.ring_attached(py));
        }
    }
}

impl Batch {
    fn ring_attached(self, py: Python<'_>) {
        let mut wakes = Wakes::default();
        for waiter in self.waiters {
            wakes.add(py, waiter);
        }
        let rung = wakes.ring(py);
        for alarm in self.alarms {
            if let Err(error) = alarm.get().sound(py) {
                error.write_unraisable(py, None);
            }
        }
        if let Err(error) = rung {
            error.write_unraisable(py, None);
        }
    }
}
