//! One delivery: its targets are added to the queues of their loops, and each loop is woken once.

use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;

use super::calls::schedule_drain;
use super::queue::{Added, LoopQueue, WakeReason};
use super::turn::Turn;
use super::wake_target::{Methods, WakeTarget};

/// What waits for its loop to wake it.
pub(crate) trait Wake: PyClass<Frozen = True> + Sync {
    /// The queue of its loop; None if no loop is to wake it.
    fn queue(&self) -> Option<&Py<LoopQueue>>;

    /// Resumes what waits; called by the loop.
    ///
    /// # Errors
    /// An exception that is to end the loop.
    fn wake(slf: &Bound<'_, Self>, turn: &Turn) -> PyResult<()>;

    /// Gives back what was to be delivered; called when the loop is gone.
    fn give_back(&self, py: Python<'_>);
}

/// The methods of a class, for the queue, which does not know it.
struct Of<T>(T);

impl<T: Wake> Of<T> {
    const METHODS: &'static Methods = &Methods {
        wake: |object, turn| match object.cast::<T>() {
            Ok(target) => T::wake(target, turn),
            Err(other) => Err(other.into()),
        },
        give_back: |object| {
            if let Ok(target) = object.cast::<T>() {
                target.get().give_back(object.py());
            }
        },
    };
}

pub(super) fn wake_target<T: Wake>(object: Py<T>) -> WakeTarget {
    WakeTarget::new(object.into_any(), Of::<T>::METHODS)
}

/// What one delivery wakes, on its way to the queues of their loops.
#[derive(Default)]
pub(crate) struct Wakes {
    /// What was added since the loop last changed: all of one loop, whose queue is here.
    targets: Vec<WakeTarget>,
    queue: Option<Py<LoopQueue>>,
    /// Queues that were added to, and need a call of `drain`.
    unscheduled: Vec<Py<LoopQueue>>,
    stranded: Vec<WakeTarget>,
}

impl Wakes {
    /// Adds an object that has what it waited for.
    pub(crate) fn add<T: Wake>(&mut self, py: Python<'_>, object: Py<T>) {
        let Some(queue) = object.get().queue() else {
            return;
        };
        if !self.queue.as_ref().is_some_and(|last| last.is(queue)) {
            let queue = queue.clone_ref(py);
            self.hand_over(py);
            self.queue = Some(queue);
        }
        self.targets.push(wake_target(object));
    }

    fn hand_over(&mut self, py: Python<'_>) {
        let targets = std::mem::take(&mut self.targets);
        if let Some(queue) = self.queue.take() {
            self.add_to(py, queue, targets, WakeReason::Ready);
        }
    }

    /// Adds an object whose wait was interrupted.
    pub(crate) fn add_interrupted<T: Wake>(&mut self, py: Python<'_>, object: Py<T>) {
        if let Some(queue) = object.get().queue() {
            let queue = queue.clone_ref(py);
            self.add_to(
                py,
                queue,
                vec![wake_target(object)],
                WakeReason::Interrupted,
            );
        }
    }

    pub(super) fn add_to(
        &mut self,
        py: Python<'_>,
        queue: Py<LoopQueue>,
        targets: Vec<WakeTarget>,
        reason: WakeReason,
    ) {
        match queue.get().add(py, targets, reason) {
            Added::Nothing => {}
            Added::Schedule => self.unscheduled.push(queue),
            Added::Closed(targets) => self.stranded.extend(targets),
        }
    }

    /// Wakes every loop that something was added for; all of them, even if one raises.
    pub(crate) fn flush(mut self, py: Python<'_>) -> PyResult<()> {
        self.hand_over(py);
        let mut flushed = Ok(());
        for queue in self.unscheduled {
            flushed = flushed.and(schedule_drain(&queue, py));
        }
        for target in self.stranded {
            target.give_back(py);
        }
        flushed
    }
}
