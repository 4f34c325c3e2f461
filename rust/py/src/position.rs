//! Positions that somebody else holds: what is in the text of one.

use headrace_core::history::{Stamp, tag_of};
use pyo3::prelude::*;
use pyo3::types::PyString;

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
