//! A message of a group with a history: a snapshot that knows where it stands.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use headrace_core::history::{Position, Stamp};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::limits::POSITION;
use super::snapshot::{Snapshot, copy_of};
use crate::once::intern;
use crate::position::text_of;

/// It takes no more room than a snapshot: many of them are kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) value: Py<PyAny>,
    /// As that of a snapshot; more than 4 GiB counts as that.
    size: u32,
    tag: AtomicU32,
    /// Written last, and read first. Zero before there is a stamp.
    epoch: AtomicU64,
    /// The number, and in its lowest bit whether the snapshot is flat.
    number: AtomicU64,
}

impl Kept {
    /// The snapshot, and its `type` apart.
    pub(super) fn new(snapshot: Snapshot) -> (Self, Option<Box<Box<str>>>) {
        let Snapshot {
            value,
            flat,
            kind,
            size,
            prepared: _,
        } = snapshot;
        let kept = Self {
            value,
            size,
            tag: AtomicU32::new(0),
            epoch: AtomicU64::new(0),
            number: AtomicU64::new(u64::from(flat)),
        };
        (kept, kind)
    }

    /// Notes where it stands. It is called once, before the message is given to anybody.
    pub(super) fn stamp(&self, stamp: Stamp) {
        let flat = self.number.load(Ordering::Relaxed) & 1;
        let number = stamp.position.number << 1 | flat;
        self.number.store(number, Ordering::Relaxed);
        self.tag.store(stamp.tag, Ordering::Relaxed);
        self.epoch.store(stamp.position.epoch, Ordering::Release);
    }

    pub(super) fn stamped(&self) -> Option<Stamp> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (epoch != 0).then(|| Stamp {
            position: Position {
                epoch,
                number: self.number.load(Ordering::Relaxed) >> 1,
                print: 0,
            },
            tag: self.tag.load(Ordering::Relaxed),
        })
    }

    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// A receiver's own copy, with its position.
    pub(super) fn copy(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        with_position(
            copy_of(
                self.value.bind(py),
                self.number.load(Ordering::Relaxed) & 1 == 1,
            )?,
            self.stamped(),
        )
    }

    /// The value itself, for its last owner.
    pub(super) fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let stamp = self.stamped();
        with_position(self.value.into_bound(py), stamp)
    }
}

/// Puts the position in a message.
fn with_position(message: Bound<'_, PyAny>, stamp: Option<Stamp>) -> PyResult<Py<PyAny>> {
    put_position(&message, stamp)?;
    Ok(message.unbind())
}

/// Puts the position in a message that is to be changed.
pub(super) fn put_position(message: &Bound<'_, PyAny>, stamp: Option<Stamp>) -> PyResult<()> {
    let Some(stamp) = stamp else {
        return Ok(());
    };
    let py = message.py();
    let text = text_of(py, stamp);
    match message.cast_exact::<PyDict>() {
        Ok(dict) => dict.set_item(intern!(py, POSITION), text),
        // A subclass may keep its keys in a way of its own.
        Err(_) => message.set_item(intern!(py, POSITION), text),
    }
}
