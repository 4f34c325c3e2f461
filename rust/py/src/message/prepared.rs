//! The frame of a message, which is the same for all that forward it: made for the first of them, and compressed for the first
//! of those that want it so.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::errors::InvalidMessage;
use crate::frames::{frame_of, is_compressed};
use crate::once::intern;

/// Which messages a receiver forwards, and which field of theirs.
pub(crate) struct Chosen<'a, 'py> {
    /// The key of a message by which it is chosen.
    pub(crate) key: &'a Bound<'py, PyString>,
    /// The values of it that are chosen, each with the field that holds the payload, or `None` of Python's.
    pub(crate) fields: &'a Bound<'py, PyDict>,
    /// The field for all of them, whatever that says.
    pub(crate) field: Option<&'a Bound<'py, PyString>>,
}

impl<'py> Chosen<'_, 'py> {
    pub(super) fn py(&self) -> Python<'py> {
        self.key.py()
    }

    /// The field with the payload of a message with this value; `None` if it is not chosen.
    fn field(&self, value: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = self.fields.get_item(value)?;
        Ok(match self.field {
            Some(field) if found.is_some() => Some(field.as_any().clone()),
            _ => found,
        })
    }
}

/// What a frame is made of, and the frames that were made.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The key of the message by which it was chosen, and the value.
    key: Py<PyString>,
    value: Py<PyString>,
    /// The name of the field with the payload, or `None` of Python's.
    field: Py<PyAny>,
    payload: Py<PyAny>,
    /// Whether the payload is long enough to be compressed.
    is_compressed: bool,
    frames: OnceLock<Box<Frames>>,
}

/// A list of frames, one for each window. There are hardly ever more than two: that without one, and that of the server.
#[derive(Debug)]
struct Frames {
    window: Option<u8>,
    frame: Py<PyBytes>,
    next: OnceLock<Box<Self>>,
}

impl Prepared {
    /// Prepares a message, if it is chosen and holds text or bytes in its field.
    pub(super) fn new(
        message: &Bound<'_, PyAny>,
        chosen: &Chosen<'_, '_>,
    ) -> PyResult<Option<Self>> {
        let py = message.py();
        let Ok(message) = message.cast_exact::<PyDict>() else {
            return Ok(None);
        };
        let Some(value) = message.get_item(chosen.key)? else {
            return Ok(None);
        };
        let Ok(value) = value.cast_into_exact::<PyString>() else {
            return Ok(None);
        };
        let Some(field) = chosen.field(&value)? else {
            return Ok(None);
        };
        let payload = if field.is_none() {
            let text = message.get_item(intern!(py, "text"))?;
            match text.filter(|text| !text.is_none()) {
                Some(text) => Some(text),
                None => message.get_item(intern!(py, "bytes"))?,
            }
        } else {
            message.get_item(&field)?
        };
        let Some(payload) = payload else {
            return Ok(None);
        };
        let is_compressed = is_compressed(&payload)?;
        Ok(is_compressed.map(|is_compressed| Self {
            key: chosen.key.clone().unbind(),
            value: value.unbind(),
            field: field.unbind(),
            payload: payload.unbind(),
            is_compressed,
            frames: OnceLock::new(),
        }))
    }

    /// The frame for who can have it compressed for a window of so many bits, or not at all.
    pub(super) fn frame<'py>(
        &self,
        py: Python<'py>,
        window: Option<u8>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let window = window.filter(|_| self.is_compressed);
        let mut place = &self.frames;
        loop {
            let frames = if let Some(frames) = place.get() {
                frames
            } else {
                let made = self.made(py, window)?;
                // Another thread may have been quicker, with a frame for any window.
                place.get_or_init(|| made)
            };
            if frames.window == window {
                return Ok(frames.frame.bind(py).clone());
            }
            place = &frames.next;
        }
    }

    fn made(&self, py: Python<'_>, window: Option<u8>) -> PyResult<Box<Frames>> {
        let frame = frame_of(self.payload.bind(py), window)?;
        let frame =
            frame.ok_or_else(|| InvalidMessage::new_err("a payload is neither text nor bytes"))?;
        Ok(Box::new(Frames {
            window,
            frame: frame.unbind(),
            next: OnceLock::new(),
        }))
    }

    /// All that it holds of Python's.
    pub(super) fn into_objects(self) -> Vec<Py<PyAny>> {
        let mut objects = vec![self.key.into_any(), self.value.into_any()];
        objects.extend([self.field, self.payload]);
        let mut frames = self.frames.into_inner();
        while let Some(one) = frames {
            objects.push(one.frame.into_any());
            frames = one.next.into_inner();
        }
        objects
    }

    /// Whether a receiver that chooses so forwards the same payload; `None` if it does not forward the
    /// message. Who chooses by another key makes a frame of its own.
    pub(super) fn is_for(&self, chosen: &Chosen<'_, '_>) -> PyResult<Option<bool>> {
        if !self.key.is(chosen.key) {
            return Ok(Some(false));
        }
        let field = chosen.field(self.value.bind(chosen.py()))?;
        field
            .map(|field| Ok(field.is(&self.field) || field.eq(&self.field)?))
            .transpose()
    }
}
