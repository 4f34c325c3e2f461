//! A message of another process: bytes that become a value when the first receiver wants it, and only once.
//!
//! A frame may be dropped by a thread that does not hold Python's lock, perhaps under the engine's, and the value that it
//! keeps for its other receivers with it. Such a value is kept until the next decode releases it.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use crossbeam_utils::atomic::AtomicCell;
use headrace_core::history::Stamp;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::decode::decode;
use super::kept::put_position;
use super::prepared::Chosen;
use super::snapshot::Snapshot;

pub(super) struct Frame {
    payload: Bytes,
    kind: Option<Range<usize>>,
    /// The value, with its position.
    decoded: OnceLock<Snapshot>,
    /// Where it stands in the history of its group, if that has one.
    stamp: OnceLock<Stamp>,
}

impl Frame {
    pub(super) fn new(payload: Bytes, kind: Option<Range<usize>>) -> Self {
        Self {
            payload,
            kind,
            decoded: OnceLock::new(),
            stamp: OnceLock::new(),
        }
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Notes where it stands, before it is given to anybody.
    pub(super) fn stamp(&self, stamp: Stamp) {
        self.stamp.get_or_init(|| stamp);
    }

    pub(super) fn stamped(&self) -> Option<Stamp> {
        self.stamp.get().copied()
    }

    /// The value, with its position.
    fn decode(&self, py: Python<'_>) -> PyResult<Snapshot> {
        let decoded = decode(py, self.payload())?;
        put_position(decoded.value.bind(py), self.stamped())?;
        Ok(decoded)
    }

    fn kind(&self) -> Option<&[u8]> {
        self.payload().get(self.kind.clone()?)
    }

    /// The value for the last receiver.
    pub(super) fn into_python(mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        release_orphans();
        match self.decoded.take() {
            Some(decoded) => Ok(decoded.value),
            None => Ok(self.decode(py)?.value),
        }
    }

    /// A value for one of several receivers. No lock is held while Python works: two threads may decode at once, and then
    /// the second uses its own value, which nobody else gets.
    pub(super) fn copy(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        release_orphans();
        if let Some(decoded) = self.decoded.get() {
            return decoded.copy(py);
        }
        match self.decoded.set(self.decode(py)?) {
            Ok(()) => self.copy(py),
            Err(own) => Ok(own.value),
        }
    }

    /// The frame with which receivers forward it; see `Snapshot::frame`.
    pub(super) fn frame<'py>(
        &self,
        chosen: &Chosen<'_, 'py>,
        window: Option<u8>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        release_orphans();
        if let Some(decoded) = self.decoded.get() {
            return decoded.frame(chosen, window);
        }
        // With its position: whoever does not forward it is given the same.
        let decoded = self.decode(chosen.py())?;
        self.decoded.get_or_init(|| decoded).frame(chosen, window)
    }

    pub(super) fn is_of_type_of(&self, other: &Self) -> bool {
        matches!((self.kind(), other.kind()), (Some(one), Some(two)) if one == two)
    }

    pub(super) fn is_of_type(&self, kind: &str) -> bool {
        self.kind() == Some(kind.as_bytes())
    }

    /// What was decoded, if anything was.
    pub(super) fn value(&self) -> Option<&Py<PyAny>> {
        self.decoded.get().map(|decoded| &decoded.value)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("length", &self.payload.len())
            .field("kind", &self.kind().map(String::from_utf8_lossy))
            .field("decoded", &self.value().is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(decoded) = self.decoded.take() {
            put_aside(decoded.into_objects());
        }
    }
}

/// Values to be released under Python's lock. To put one there takes no lock and never waits: a child that was forked off
/// meanwhile finds fewer values, and no lock that nobody releases.
#[expect(
    clippy::box_collection,
    reason = "a cell is without a lock only where its value is no larger than a pointer"
)]
static ORPHANS: AtomicCell<Option<Box<Vec<Py<PyAny>>>>> = AtomicCell::new(None);

fn put_aside(values: Vec<Py<PyAny>>) {
    let mut values = Box::new(values);
    loop {
        if let Some(others) = ORPHANS.take() {
            values.extend(*others);
        }
        match ORPHANS.swap(Some(values)) {
            None => return,
            // Another thread was quicker.
            Some(others) => values = others,
        }
    }
}

fn release_orphans() {
    drop(ORPHANS.take());
}
