//! What became of sends that nobody waited for, as Python reads it.

use std::sync::Arc;
use std::time::Instant;

use headrace_core::redis as core;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

use crate::config::seconds;
use crate::errors::fault_to_python;
use crate::sleep::sleep;

/// What became of sends that nobody waited for; any thread may send, and any may look.
///
/// The child of a fork must not look at its parent's, which another thread may have held at that moment: it makes its own.
#[pyclass(frozen, skip_from_py_object, module = "headrace._core")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<core::Ledger>);

impl Ledger {
    /// Enters a send here and in the ledger of its layer.
    pub(super) fn enter(&self, layers: &Self) -> core::LedgerEntry {
        core::LedgerEntry::new([&self.0, &layers.0])
    }
}

#[pymethods]
impl Ledger {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// How many sends have no answer yet.
    #[getter]
    fn pending(&self) -> u64 {
        self.0.pending()
    }

    /// How many sends failed since it was made.
    #[getter]
    fn failed(&self) -> u64 {
        self.0.failed()
    }

    /// Sleep until everything sent before has its answer, or until the time is over; tell whether it has.
    ///
    /// What is sent meanwhile is not waited for.
    ///
    /// Args:
    ///     timeout: Seconds to wait at most.
    ///
    /// Raises:
    ///     ValueError: The time is negative or no number.
    fn settle(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let end = Instant::now().checked_add(seconds(timeout)?);
        let mark = self.0.mark();
        sleep(py, end, |time| self.0.wait(mark, time))
    }

    /// Why the latest send that failed did so, as the exception that waiting for it would have raised.
    #[pyo3(signature = () -> "BaseException | None")]
    fn fault(&self, py: Python<'_>) -> Option<Py<PyBaseException>> {
        let fault = self.0.fault()?;
        Some(fault_to_python(py, &fault).into_value(py))
    }

    fn __repr__(&self) -> String {
        format!(
            "<Ledger: {} pending, {} failed>",
            self.0.pending(),
            self.0.failed()
        )
    }
}
