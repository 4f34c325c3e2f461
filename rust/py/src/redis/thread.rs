//! The thread of input and output, as Python holds it.

use std::sync::Arc;

use headrace_core::redis::Runtime as Thread;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// The thread that does the input and output of all layers of a process. It ends with this object.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Runtime(Arc<Thread>);

#[pymethods]
impl Runtime {
    #[new]
    fn new() -> PyResult<Self> {
        let thread = Thread::start().map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self(Arc::new(thread)))
    }
}

impl Runtime {
    pub(super) fn thread(&self) -> Arc<Thread> {
        Arc::clone(&self.0)
    }
}
