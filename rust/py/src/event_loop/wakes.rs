//! One delivery: what it found is added to the queues of their loops, and each loop is woken once.

use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::PyClass;

use super::calls::schedule_drain;
use super::queue::{Added, Kind, LoopQueue};
use super::sleeper::{Methods, Sleeper};
use super::turn::Turn;

/// What waits for its loop to wake it.
pub(crate) trait Wake: PyClass<Frozen = True> + Sync {
    /// The queue of its loop; None if no loop is to wake it.
    fn queue(&self) -> Option<&Py<LoopQueue>>;

    /// Resumes what waits; called by the loop.
    ///
    /// # Errors
    /// An exception that is to end the loop.
    fn wake(slf: &Bound<'_, Self>, turn: &Turn) -> PyResult<()>;

    /// The loop is gone: what was to be delivered goes elsewhere.
    fn give_back(&self, py: Python<'_>);
}

/// The methods of a class, for the queue, which does not know it.
struct Of<T>(T);

impl<T: Wake> Of<T> {
    const METHODS: &'static Methods = &Methods {
        wake: |object, turn| match object.cast::<T>() {
            Ok(sleeper) => T::wake(sleeper, turn),
            Err(other) => Err(other.into()),
        },
        give_back: |object| {
            if let Ok(sleeper) = object.cast::<T>() {
                sleeper.get().give_back(object.py());
            }
        },
    };
}

pub(super) fn sleeper<T: Wake>(object: Py<T>) -> Sleeper {
    Sleeper::new(object.into_any(), Of::<T>::METHODS)
}

/// What one delivery wakes, on its way to the queues of their loops.
#[derive(Default)]
pub(crate) struct Wakes {
    /// What was added since the loop last changed: all of one loop, whose queue is here.
    sleepers: Vec<Sleeper>,
    queue: Option<Py<LoopQueue>>,
    /// Queues that were added to, and need a call of `drain`.
    unscheduled: Vec<Py<LoopQueue>>,
    stranded: Vec<Sleeper>,
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
        self.sleepers.push(sleeper(object));
    }

    fn hand_over(&mut self, py: Python<'_>) {
        let sleepers = std::mem::take(&mut self.sleepers);
        if let Some(queue) = self.queue.take() {
            self.add_to(py, queue, sleepers, Kind::Ready);
        }
    }

    /// Adds an object that is called by its own client.
    pub(crate) fn call<T: Wake>(&mut self, py: Python<'_>, object: Py<T>) {
        if let Some(queue) = object.get().queue() {
            let queue = queue.clone_ref(py);
            self.add_to(py, queue, vec![sleeper(object)], Kind::Called);
        }
    }

    pub(super) fn add_to(
        &mut self,
        py: Python<'_>,
        queue: Py<LoopQueue>,
        sleepers: Vec<Sleeper>,
        kind: Kind,
    ) {
        match queue.get().add(py, sleepers, kind) {
            Added::Nothing => {}
            Added::Schedule => self.unscheduled.push(queue),
            Added::Closed(sleepers) => self.stranded.extend(sleepers),
        }
    }

    /// Wakes every loop that something was added for; all of them, even if one raises.
    pub(crate) fn flush(mut self, py: Python<'_>) -> PyResult<()> {
        self.hand_over(py);
        let mut flushed = Ok(());
        for queue in self.unscheduled {
            flushed = flushed.and(schedule_drain(&queue, py));
        }
        for sleeper in self.stranded {
            sleeper.give_back(py);
        }
        flushed
    }
}
