//! One interpreter of a process: the one that loads the module first.
//!
//! Types and exceptions are kept for the process, so in a second interpreter `except ChannelFull` would not catch what is
//! raised there.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// The address of the owner's module `sys`, of which each interpreter has one of its own; 0 until there is an owner.
static OWNER: AtomicUsize = AtomicUsize::new(0);

/// Makes this interpreter the owner, or refuses it.
///
/// # Errors
/// Another one has loaded the module, also if it has ended.
pub(crate) fn claim(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?.as_ptr() as usize;
    match OWNER.compare_exchange(0, sys, Ordering::SeqCst, Ordering::SeqCst) {
        Err(owner) if owner != sys => Err(PyImportError::new_err(
            "headrace works in one interpreter of a process, and another has loaded it already; a subinterpreter cannot \
             have it too: run one interpreter in each process (mod_wsgi: WSGIApplicationGroup %{GLOBAL})",
        )),
        _ => Ok(()),
    }
}
