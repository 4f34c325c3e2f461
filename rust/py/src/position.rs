//! Positions in the histories of groups, and their texts.

use crossbeam_utils::atomic::AtomicCell;
use headrace_core::history::{Stamp, tag_of};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A position with its text.
#[derive(Debug)]
struct Named {
    stamp: Stamp,
    text: Py<PyString>,
}

/// The one whose text was asked for last: all receivers of a message ask for the same. A thread that uses it takes it away
/// meanwhile, so that no lock is needed: another thread, or the child of a fork, finds none and makes the text anew.
static LATEST: AtomicCell<Option<Box<Named>>> = AtomicCell::new(None);

/// The text of a position.
pub(crate) fn text_of(py: Python<'_>, stamp: Stamp) -> Bound<'_, PyString> {
    let latest = LATEST.take();
    let latest = latest.filter(|latest| latest.stamp == stamp);
    let latest = latest.unwrap_or_else(|| {
        let text = PyString::new(py, stamp.token().as_str()).unbind();
        Box::new(Named { stamp, text })
    });
    let text = latest.text.bind(py).clone();
    drop(LATEST.swap(Some(latest)));
    text
}

/// Read a position: a number that stands for its group, that of its stream, and its number in that; None if it is none.
#[pyfunction]
pub(crate) fn position_place(position: &Bound<'_, PyString>) -> Option<(u32, u64, u64)> {
    // Half of a surrogate pair is in no position.
    let Stamp { position, tag } = Stamp::read(position.to_str().ok()?)?;
    Some((tag, position.epoch, position.number))
}

/// Return the number that stands for a group in its positions.
#[pyfunction]
pub(crate) fn position_mark(group: &str) -> u32 {
    tag_of(group)
}
