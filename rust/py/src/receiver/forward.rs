//! Messages that go to a socket as they are, without any Python.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::frames::{window_of, write_in_pass};
use crate::message::{Chosen, Message};

/// An attendant that writes the messages of some types or topics to a socket itself; all others are the attendant's that it has.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Forward {
    attendant: Py<PyAny>,
    frames: Py<PyAny>,
    key: Py<PyString>,
    fields: Py<PyDict>,
    field: Option<Py<PyString>>,
    /// Objects, each with the name of an attribute: while one is true, nothing is forwarded.
    unless: Box<[(Py<PyAny>, Py<PyString>)]>,
    window: Option<u8>,
    written: AtomicU64,
}

impl Forward {
    /// The attendant for what is not forwarded.
    pub(super) fn attendant(&self) -> &Py<PyAny> {
        &self.attendant
    }

    /// Writes the frame of a message; false if it is none to be forwarded, or cannot be written now.
    pub(super) fn forward(&self, py: Python<'_>, message: &Message) -> PyResult<bool> {
        let chosen = Chosen {
            key: self.key.bind(py),
            fields: self.fields.bind(py),
            field: self.field.as_ref().map(|field| field.bind(py)),
        };
        let Some(frame) = message.frame(&chosen, self.window)? else {
            return Ok(false);
        };
        if self.has_to_wait(py)? || !write_in_pass(self.frames.bind(py), &frame)? {
            return Ok(false);
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Whether the connection has ended, or something else goes before what the layer has. The attributes are read here:
    /// a call of Python's would cost as much as all the rest but the write.
    fn has_to_wait(&self, py: Python<'_>) -> PyResult<bool> {
        for (object, name) in &self.unless {
            if object.bind(py).getattr(name)?.is_truthy()? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[pymethods]
impl Forward {
    /// Make the attendant.
    ///
    /// Args:
    ///     attendant: Attends to all other messages.
    ///     frames: Writes frames to the socket: the extension ``headrace.frames`` of the scope.
    ///     fields: The values of ``key`` with which messages are forwarded, each with the field that holds the payload; None
    ///         stands for ``text`` or else ``bytes``.
    ///     unless: Objects, each with the name of an attribute of it: while one is true, the attendant attends to all.
    ///     key: The key of a message that says whether it is forwarded.
    ///     field: The field that holds the payload, whatever ``fields`` says; None if that says it.
    ///
    /// Raises:
    ///     ValueError: What writes frames says that it has a window that there is not.
    #[new]
    #[pyo3(signature = (
        attendant,
        frames,
        fields: "dict[str, Any]",
        *,
        unless: "Sequence[tuple[Any, str]]" = Vec::new(),
        key: "str" = "type",
        field: "str | None" = None,
    ))]
    fn new(
        attendant: Py<PyAny>,
        frames: Bound<'_, PyAny>,
        fields: Py<PyDict>,
        unless: Vec<(Py<PyAny>, Py<PyString>)>,
        key: &str,
        field: Option<Py<PyString>>,
    ) -> PyResult<Self> {
        Ok(Self {
            attendant,
            window: window_of(&frames)?,
            key: PyString::intern(frames.py(), key).unbind(),
            frames: frames.unbind(),
            fields,
            field,
            unless: unless.into(),
            written: AtomicU64::new(0),
        })
    }

    /// How many frames it has written.
    #[getter]
    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Attend to a message.
    #[pyo3(signature = (message, /))]
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.attendant.bind(message.py()).call1((message,))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.attendant)?;
        visit.call(&self.frames)?;
        visit.call(&self.fields)?;
        for (object, _) in &self.unless {
            visit.call(object)?;
        }
        Ok(())
    }
}
