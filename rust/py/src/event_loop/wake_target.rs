//! What a loop wakes: an object of any class that implements `Wake`.
//!
//! The queue of a loop does not depend on these classes: a receiver, the reply of a server, an alarm. It keeps the object and
//! the functions of its class.

use pyo3::prelude::*;

use super::turn::Turn;

/// An object to be woken by its loop.
#[derive(Debug)]
pub(super) struct WakeTarget {
    object: Py<PyAny>,
    methods: &'static Methods,
}

/// What the queue of a loop does with an object of some class.
#[derive(Debug)]
pub(super) struct Methods {
    /// To be called by the loop.
    pub(super) wake: fn(&Bound<'_, PyAny>, &Turn) -> PyResult<()>,
    /// To be called when the loop is gone.
    pub(super) give_back: fn(&Bound<'_, PyAny>),
}

impl WakeTarget {
    pub(super) fn new(object: Py<PyAny>, methods: &'static Methods) -> Self {
        Self { object, methods }
    }

    pub(super) fn wake(&self, py: Python<'_>, turn: &Turn) -> PyResult<()> {
        (self.methods.wake)(self.object.bind(py), turn)
    }

    pub(super) fn give_back(&self, py: Python<'_>) {
        (self.methods.give_back)(self.object.bind(py));
    }
}
