//! A message of another process: bytes that become a value when the first receiver wants it, and only once.
//!
//! A frame may be dropped by a thread that does not hold Python's lock, perhaps under the engine's, and the value that it
//! keeps for its other receivers with it. Such a value is kept until the next decode releases it.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use crossbeam_utils::atomic::AtomicCell;
use pyo3::prelude::*;

use super::decode::decode;
use super::snapshot::Snapshot;

pub(super) struct Frame {
    payload: Bytes,
    kind: Option<Range<usize>>,
    decoded: OnceLock<Snapshot>,
}

impl Frame {
    pub(super) fn new(payload: Bytes, kind: Option<Range<usize>>) -> Self {
        Self {
            payload,
            kind,
            decoded: OnceLock::new(),
        }
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn kind(&self) -> Option<&[u8]> {
        self.payload().get(self.kind.clone()?)
    }

    /// The value for the last receiver.
    pub(super) fn into_python(mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        release_orphans();
        match self.decoded.take() {
            Some(decoded) => Ok(decoded.value),
            None => Ok(decode(py, self.payload())?.value),
        }
    }

    /// A value for one of several receivers. No lock is held while Python works: two threads may decode at once, and then
    /// the second uses its own value, which nobody else gets.
    pub(super) fn copy(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        release_orphans();
        if let Some(decoded) = self.decoded.get() {
            return decoded.copy(py);
        }
        match self.decoded.set(decode(py, self.payload())?) {
            Ok(()) => self.copy(py),
            Err(own) => Ok(own.value),
        }
    }

    pub(super) fn is_of_type_of(&self, other: &Self) -> bool {
        matches!((self.kind(), other.kind()), (Some(one), Some(two)) if one == two)
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
            put_aside(decoded.value);
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

fn put_aside(value: Py<PyAny>) {
    let mut values = Box::new(vec![value]);
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
