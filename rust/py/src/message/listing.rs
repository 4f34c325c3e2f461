//! Who is present in a group, as Python has it.

use headrace_core::presence::Listing;
use pyo3::prelude::*;

use super::decode::unpack;

/// The metas of each key, the version of that, how many keys and channels they are, and whether there are too many to be named.
pub(crate) type Present<'py> = (Bound<'py, PyAny>, u64, usize, usize, bool);

/// Reads a list.
pub(crate) fn present<'py>(py: Python<'py>, listing: &Listing) -> PyResult<Present<'py>> {
    let entries = unpack(py, &listing.list)?;
    let counts = listing.counts;
    Ok((
        entries,
        listing.version,
        counts.keys,
        counts.channels,
        listing.is_hidden,
    ))
}
