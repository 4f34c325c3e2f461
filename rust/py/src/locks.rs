//! What the bindings do with Python's objects under a lock: they move them, count references, and show them to the
//! garbage collector. None of this runs Python. Everything else that is done under a lock goes through [`Mutex::with`], whose
//! function cannot have a Python token; `clippy.toml` refuses the other ways.

use headrace_core::sync::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

/// Another reference to an object that is found under the lock.
#[expect(
    clippy::disallowed_methods,
    reason = "to count a reference runs no Python"
)]
pub(crate) fn refer<T, C>(
    py: Python<'_>,
    lock: &Mutex<C>,
    find: impl FnOnce(&C) -> Option<&Py<T>> + Send,
) -> Option<Py<T>> {
    find(&lock.lock()).map(|object| object.clone_ref(py))
}

/// Shows the garbage collector an object that a lock guards. No thread holds the lock while the collector runs, unless it
/// held it when this process was forked off.
pub(crate) fn visit<T>(
    visit: &PyVisit<'_>,
    lock: &Mutex<Option<Py<T>>>,
) -> Result<(), PyTraverseError> {
    match lock.try_lock() {
        Some(object) => visit.call(&*object),
        None => Ok(()),
    }
}
