//! One delivery by a thread that is not attached to Python.

use std::sync::Arc;

use pyo3::prelude::*;

use super::alarm::Alarm;
use super::queue::{LoopQueue, WakeReason};
use super::ready::Ready;
use super::wake_target::WakeTarget;
use super::wakes::{Wake, Wakes, wake_target};

/// What one delivery wakes, on its way to the queues of their loops.
///
/// Nothing here changes a reference count. The thread attaches only where a loop has to be called to be woken, or is gone.
#[derive(Debug, Default)]
pub(crate) struct DetachedWakes(Vec<Batch>);

/// What goes to one loop.
#[derive(Debug)]
struct Batch {
    ready: Arc<Ready>,
    targets: Vec<WakeTarget>,
    alarms: Vec<Py<Alarm>>,
}

impl DetachedWakes {
    fn batch(&mut self, queue: &LoopQueue) -> Option<&mut Batch> {
        // Most deliveries in a row are for the same loop, and there are few loops.
        let known = self
            .0
            .iter()
            .rposition(|batch| Arc::ptr_eq(&batch.ready, &queue.ready));
        let place = known.unwrap_or_else(|| {
            self.0.push(Batch {
                ready: Arc::clone(&queue.ready),
                targets: Vec::new(),
                alarms: Vec::new(),
            });
            self.0.len() - 1
        });
        self.0.get_mut(place)
    }

    /// Adds an object that has what it waited for.
    pub(crate) fn add<T: Wake>(&mut self, object: Py<T>) {
        let queue = object.get().queue();
        if let Some(batch) = queue.and_then(|queue| self.batch(queue.get())) {
            batch.targets.push(wake_target(object));
        }
    }

    /// Adds a function to be called.
    pub(crate) fn add_alarm(&mut self, alarm: Py<Alarm>) {
        let queue = alarm.get().queue();
        if let Some(batch) = queue.and_then(|queue| self.batch(queue.get())) {
            batch.alarms.push(alarm);
        }
    }

    /// Wakes every loop that something was added for.
    pub(crate) fn flush(self) {
        for mut batch in self.0 {
            if !batch.add_detached() {
                // Not attached means that the interpreter is gone, and every loop with it.
                Python::try_attach(|py| batch.flush_attached(py));
            }
        }
    }
}

impl Batch {
    /// Adds the batch without Python. False if this loop cannot be notified so: then nothing was added.
    fn add_detached(&mut self) -> bool {
        let alarms = &mut self.alarms;
        let alarms = || alarms.drain(..).map(wake_target).collect();
        self.ready.add_detached(&mut self.targets, alarms)
    }

    fn flush_attached(self, py: Python<'_>) {
        match LoopQueue::with_ready(py, &self.ready) {
            Some(queue) if !self.targets.is_empty() => {
                let mut wakes = Wakes::default();
                wakes.add_to(py, queue, self.targets, WakeReason::Ready);
                report(py, wakes.flush(py));
            }
            Some(_) => {}
            // The loop is gone.
            None => self.targets.iter().for_each(|target| target.give_back(py)),
        }
        for alarm in self.alarms {
            report(py, alarm.get().call_soon(py));
        }
    }
}

/// Nothing handles an error of this thread.
fn report(py: Python<'_>, result: PyResult<()>) {
    if let Err(error) = result {
        error.write_unraisable(py, None);
    }
}
