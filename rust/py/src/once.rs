//! What is made once for the process, when it is first needed.
//!
//! No thread ever waits for another here, and no Python runs while a value is put in its place. `pyo3::sync::PyOnceLock`, and with it
//! `pyo3::intern`, lets other threads run while one makes the value. If one of them forks then, the child waits without end for
//! a thread that it does not have.

use std::convert::Infallible;
use std::sync::OnceLock;

use pyo3::prelude::*;

/// A value that is made when it is first asked for.
#[derive(Debug)]
pub(crate) struct Once<T>(OnceLock<T>);

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The value, which is made if there is none yet. Two threads may both make it; the first one's is kept.
    pub(crate) fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.0.get() {
            return Ok(value);
        }
        let value = make()?;
        Ok(self.0.get_or_init(|| value))
    }

    /// As `get_or_try_init`, for what cannot fail.
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let Ok(value) = self.get_or_try_init(|| Ok::<_, Infallible>(make()));
        value
    }
}

impl Once<Py<PyAny>> {
    /// An attribute of a module, which is imported if it has not been yet.
    pub(crate) fn import<'py>(
        &self,
        py: Python<'py>,
        module: &str,
        name: &str,
    ) -> PyResult<&Bound<'py, PyAny>> {
        let import = || Ok::<_, PyErr>(py.import(module)?.getattr(name)?.unbind());
        Ok(self.get_or_try_init(import)?.bind(py))
    }
}

/// A `str` of Python that is made once, for a name that is looked up often.
macro_rules! intern {
    ($py:expr, $text:expr) => {{
        static NAME: $crate::once::Once<pyo3::Py<pyo3::types::PyString>> =
            $crate::once::Once::new();
        let py = $py;
        NAME.get_or_init(|| pyo3::types::PyString::intern(py, $text).unbind())
            .bind(py)
    }};
}
pub(crate) use intern;
