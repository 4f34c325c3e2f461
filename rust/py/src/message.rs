//! A message on its way from its sender to its receivers.
//!
//! What was sent in this process is a [`Snapshot`]. What came from another process is a [`Frame`]: msgpack until a
//! receiver wants it.

pub(crate) mod decode;
pub(crate) mod encode;
mod frame;
mod invalid;
mod limits;
mod plain;
mod snapshot;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use headrace_core::ByteSize;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use self::frame::Frame;
use self::snapshot::Snapshot;

/// A message between its sender and its receivers.
#[derive(Clone, Debug)]
pub(crate) struct Message(Arc<Content>);

#[derive(Debug)]
enum Content {
    /// What was sent in this process.
    Snapshot(Snapshot),
    /// What came from another. In a box, for the sake of the messages that never leave the process.
    Frame(Box<Frame>),
}

impl Message {
    /// Takes the snapshot. Its `type` is read if messages are to be compared by it.
    pub(crate) fn new(message: &Bound<'_, PyAny>, strict: bool, compared: bool) -> PyResult<Self> {
        let snapshot = Snapshot::take(message, strict, compared)?;
        Ok(Self(Arc::new(Content::Snapshot(snapshot))))
    }

    /// A message of another process: its msgpack, and where in that the text of its `type` is, if it has one. Needs no
    /// Python; nothing is decoded before a receiver wants it.
    pub(crate) fn from_frame(payload: Bytes, kind: Option<Range<usize>>) -> Self {
        let frame = Frame::new(payload, kind);
        Self(Arc::new(Content::Frame(Box::new(frame))))
    }

    /// The msgpack of a message that came from another process.
    pub(crate) fn payload(&self) -> Option<&[u8]> {
        match &*self.0 {
            Content::Frame(frame) => Some(frame.payload()),
            Content::Snapshot(_) => None,
        }
    }

    /// The receiver's own copy.
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match Arc::try_unwrap(self.0) {
            Ok(Content::Snapshot(last)) => Ok(last.value),
            Ok(Content::Frame(last)) => last.into_python(py),
            Err(shared) => match &*shared {
                Content::Snapshot(snapshot) => snapshot.copy(py),
                Content::Frame(frame) => frame.copy(py),
            },
        }
    }

    /// Whether the other message has the same `type`: what was read before, because the caller has the engine's lock.
    pub(crate) fn is_of_type_of(&self, other: &Self) -> bool {
        match (&*self.0, &*other.0) {
            (Content::Snapshot(one), Content::Snapshot(two)) => {
                one.kind.is_some() && one.kind == two.kind
            }
            (Content::Frame(one), Content::Frame(two)) => one.is_of_type_of(two),
            _ => false,
        }
    }

    /// Shows the value to the garbage collector, if this is its only owner: an object must not be shown more
    /// often than it is referred to, and a value with several owners is referred to once.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let value = match &*self.0 {
            Content::Snapshot(snapshot) => Some(&snapshot.value),
            Content::Frame(frame) => frame.value(),
        };
        match value {
            Some(value) if Arc::strong_count(&self.0) == 1 => visit.call(value),
            _ => Ok(()),
        }
    }
}

impl ByteSize for Message {
    /// A snapshot counts its texts and bytes, and a fixed price for each value; a frame its msgpack.
    fn byte_size(&self) -> usize {
        match &*self.0 {
            Content::Snapshot(snapshot) => snapshot.size,
            Content::Frame(frame) => frame.payload().len(),
        }
    }
}
