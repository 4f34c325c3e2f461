//! What is called at the first use of a layer, once.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

/// A function of Python that is called at the first use, if there is one. Uses in other threads do not wait for it.
#[derive(Debug)]
pub(crate) struct FirstUse {
    function: Option<Py<PyAny>>,
    is_over: AtomicBool,
}

impl FirstUse {
    pub(crate) fn new(function: Option<Py<PyAny>>) -> Self {
        Self {
            is_over: AtomicBool::new(function.is_none()),
            function,
        }
    }

    /// Notes a use. It may be that of a signal handler, which has interrupted the first one. If the function raises, it is called
    /// again at the next use.
    pub(crate) fn note(&self, py: Python<'_>) -> PyResult<()> {
        if !self.is_over.load(Ordering::Relaxed)
            && !self.is_over.swap(true, Ordering::Relaxed)
            && let Some(function) = &self.function
        {
            function
                .call0(py)
                .inspect_err(|_| self.is_over.store(false, Ordering::Relaxed))?;
        }
        Ok(())
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)
    }
}
