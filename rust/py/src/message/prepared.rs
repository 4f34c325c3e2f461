//! The frame of a message, which is the same for all that forward it: made for the first of them.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::frames::frame_of;
use crate::once::intern;

/// The frame, and what it was made of.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The message's type.
    kind: Py<PyString>,
    /// The name of the field with the payload, or `None` of Python's.
    field: Py<PyAny>,
    pub(super) frame: Py<PyBytes>,
}

impl Prepared {
    /// Makes the frame of a message, if it is of one of these types and holds text or bytes in the field of its type.
    pub(super) fn new(
        message: &Bound<'_, PyAny>,
        fields: &Bound<'_, PyDict>,
    ) -> PyResult<Option<Self>> {
        let py = message.py();
        let Ok(message) = message.cast_exact::<PyDict>() else {
            return Ok(None);
        };
        let Some(kind) = message.get_item(intern!(py, "type"))? else {
            return Ok(None);
        };
        let Ok(kind) = kind.cast_into_exact::<PyString>() else {
            return Ok(None);
        };
        let Some(field) = fields.get_item(&kind)? else {
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
        let frame = frame_of(&payload)?;
        Ok(frame.map(|frame| Self {
            kind: kind.unbind(),
            field: field.unbind(),
            frame: frame.unbind(),
        }))
    }

    /// All that it holds of Python's.
    pub(super) fn into_objects(self) -> [Py<PyAny>; 3] {
        [self.kind.into_any(), self.field, self.frame.into_any()]
    }

    /// Whether a consumer with these types and fields forwards the same payload; `None` if it does not forward the message.
    pub(super) fn is_for(&self, fields: &Bound<'_, PyDict>) -> PyResult<Option<bool>> {
        let field = fields.get_item(&self.kind)?;
        field
            .map(|field| Ok(field.is(&self.field) || field.eq(&self.field)?))
            .transpose()
    }
}
