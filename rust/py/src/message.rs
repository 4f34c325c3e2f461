//! A message on its way from its sender to its receivers.
//!
//! What was sent in this process is a [`Snapshot`]. What came from another process is a [`Frame`]: msgpack until a
//! receiver wants it.

pub(crate) mod decode;
pub(crate) mod encode;
mod frame;
mod invalid;
mod kept;
mod limits;
pub(crate) mod listing;
mod plain;
mod prepared;
mod snapshot;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use headrace_core::ByteSize;
use headrace_core::history::{Stamp, Stamped};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use self::frame::Frame;
use self::kept::Kept;
pub(crate) use self::prepared::Chosen;
use self::snapshot::Snapshot;

/// A message between its sender and its receivers.
#[derive(Clone, Debug)]
pub(crate) struct Message(Arc<Content>);

#[derive(Debug)]
enum Content {
    /// What was sent in this process.
    Snapshot(Snapshot),
    /// The same, if it may be kept in the history of a group.
    Kept(Kept),
    /// The same, with its `type`. In a box, for the sake of those that are not compared by it.
    Typed(Box<(Kept, Box<str>)>),
    /// What came from another. In a box, for the sake of the messages that never leave the process.
    Frame(Box<Frame>),
}

// A message that never leaves the process is as large as it would be without histories.
const _: () = assert!(size_of::<Content>() == size_of::<Snapshot>());
const _: () = assert!(size_of::<Snapshot>() == 40);

impl Message {
    /// Takes the snapshot. Its `type` is read if messages are to be compared by it.
    pub(crate) fn new(message: &Bound<'_, PyAny>, strict: bool, compared: bool) -> PyResult<Self> {
        let snapshot = Snapshot::take(message, strict, compared)?;
        Ok(Self(Arc::new(Content::Snapshot(snapshot))))
    }

    /// The same, for a group that may have a history.
    pub(crate) fn new_kept(
        message: &Bound<'_, PyAny>,
        strict: bool,
        compared: bool,
    ) -> PyResult<Self> {
        let (kept, kind) = Kept::new(Snapshot::take(message, strict, compared)?);
        Ok(Self(Arc::new(match kind {
            Some(kind) => Content::Typed(Box::new((kept, *kind))),
            None => Content::Kept(kept),
        })))
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
            Content::Snapshot(_) | Content::Kept(_) | Content::Typed(_) => None,
        }
    }

    /// The receiver's own copy.
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match Arc::try_unwrap(self.0) {
            Ok(Content::Snapshot(last)) => Ok(last.value),
            Ok(Content::Frame(last)) => last.into_python(py),
            Ok(Content::Kept(last)) => last.into_python(py),
            Ok(Content::Typed(last)) => last.0.into_python(py),
            Err(shared) => match &*shared {
                Content::Snapshot(snapshot) => snapshot.copy(py),
                Content::Frame(frame) => frame.copy(py),
                Content::Kept(kept) => kept.copy(py),
                Content::Typed(typed) => typed.0.copy(py),
            },
        }
    }

    /// The frame with which receivers that choose so forward it, the same for all of them; `None` if they do not,
    /// or it has no payload, or may be kept in a history. It may be compressed, for a window of so many bits.
    pub(crate) fn frame<'py>(
        &self,
        chosen: &Chosen<'_, 'py>,
        window: Option<u8>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        match &*self.0 {
            Content::Snapshot(snapshot) => snapshot.frame(chosen, window),
            Content::Frame(frame) => frame.frame(chosen, window),
            // What may be kept has no room for its frames: each receiver makes its own.
            Content::Kept(_) | Content::Typed(_) => Ok(None),
        }
    }

    /// Whether the other message has the same `type`: what was read before, because the caller has the engine's lock.
    pub(crate) fn is_of_type_of(&self, other: &Self) -> bool {
        match (&*self.0, &*other.0) {
            (Content::Frame(one), Content::Frame(two)) => one.is_of_type_of(two),
            _ => self.kind().is_some_and(|kind| other.kind() == Some(kind)),
        }
    }

    fn kind(&self) -> Option<&str> {
        match &*self.0 {
            Content::Snapshot(snapshot) => snapshot.kind.as_deref().map(|kind| &**kind),
            Content::Typed(typed) => Some(&typed.1),
            Content::Kept(_) | Content::Frame(_) => None,
        }
    }

    fn kept(&self) -> Option<&Kept> {
        match &*self.0 {
            Content::Kept(kept) => Some(kept),
            Content::Typed(typed) => Some(&typed.0),
            Content::Snapshot(_) | Content::Frame(_) => None,
        }
    }

    /// Shows the value to the garbage collector, if this is its only owner: an object must not be shown more
    /// often than it is referred to, and a value with several owners is referred to once.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let value = match &*self.0 {
            Content::Snapshot(snapshot) => Some(&snapshot.value),
            Content::Kept(kept) => Some(&kept.value),
            Content::Typed(typed) => Some(&typed.0.value),
            Content::Frame(frame) => frame.value(),
        };
        match value {
            Some(value) if Arc::strong_count(&self.0) == 1 => visit.call(value),
            _ => Ok(()),
        }
    }
}

/// The `type` of a message that tells its receiver to end; `group_close` sends it.
const CLOSE: &str = "headrace.close";

impl ByteSize for Message {
    /// A snapshot counts its texts and bytes, and a fixed price for each value; a frame its msgpack.
    fn byte_size(&self) -> usize {
        match &*self.0 {
            Content::Snapshot(snapshot) => snapshot.size as usize,
            Content::Kept(kept) => kept.size(),
            Content::Typed(typed) => typed.0.size(),
            Content::Frame(frame) => frame.payload().len(),
        }
    }

    /// Of a snapshot only if its `type` was read. What tells a receiver to end is not kept.
    fn is_final(&self) -> bool {
        match &*self.0 {
            Content::Snapshot(snapshot) => snapshot
                .kind
                .as_deref()
                .is_some_and(|kind| **kind == *CLOSE),
            Content::Kept(_) | Content::Typed(_) => false,
            Content::Frame(frame) => frame.is_of_type(CLOSE),
        }
    }
}

impl Stamped for Message {
    fn stamp(&self, stamp: Stamp) {
        match &*self.0 {
            Content::Frame(frame) => frame.stamp(stamp),
            Content::Snapshot(_) | Content::Kept(_) | Content::Typed(_) => {
                if let Some(kept) = self.kept() {
                    kept.stamp(stamp);
                }
            }
        }
    }

    fn stamped(&self) -> Option<Stamp> {
        match &*self.0 {
            Content::Frame(frame) => frame.stamped(),
            Content::Snapshot(_) | Content::Kept(_) | Content::Typed(_) => self.kept()?.stamped(),
        }
    }
}
