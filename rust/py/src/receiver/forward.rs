//! Messages that go to a socket as they are, without any Python.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::frames::{window_of, write_in_pass};
use crate::message::Message;
use crate::once::intern;

/// An attendant that writes the messages of some types to a socket itself; all others are the attendant's that it has.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Forward {
    attendant: Py<PyAny>,
    frames: Py<PyAny>,
    fields: Py<PyDict>,
    session: Py<PyAny>,
    incoming: Py<PyAny>,
    window: Option<u8>,
}

impl Forward {
    /// The attendant for what is not forwarded.
    pub(super) fn attendant(&self) -> &Py<PyAny> {
        &self.attendant
    }

    /// Writes the frame of a message; false if it is none to be forwarded, or cannot be written now.
    pub(super) fn forward(&self, py: Python<'_>, message: &Message) -> PyResult<bool> {
        let Some(frame) = message.frame(py, self.fields.bind(py), self.window)? else {
            return Ok(false);
        };
        Ok(!self.has_to_wait(py)? && write_in_pass(self.frames.bind(py), &frame)?)
    }

    /// Whether the connection has ended, or something else goes before what the layer has. The attributes are read here:
    /// a call of Python's would cost as much as all the rest but the write.
    fn has_to_wait(&self, py: Python<'_>) -> PyResult<bool> {
        let (session, incoming) = (self.session.bind(py), self.incoming.bind(py));
        Ok(session.getattr(intern!(py, "closed"))?.is_truthy()?
            || incoming.getattr(intern!(py, "client"))?.is_truthy()?
            || incoming.getattr(intern!(py, "carried"))?.is_truthy()?)
    }
}

#[pymethods]
impl Forward {
    /// Make the attendant.
    ///
    /// Args:
    ///     attendant: Attends to all other messages.
    ///     frames: Writes frames to the socket: the extension ``headrace.frames`` of the scope.
    ///     fields: The types of messages that are forwarded, with the field that holds the payload; None stands for ``text``
    ///         or else ``bytes``.
    ///     session: Has ``closed``, which says whether the connection has ended.
    ///     incoming: Has ``client`` and ``carried``, lists of what goes before what the layer has.
    ///
    /// Raises:
    ///     ValueError: What writes frames says that it has a window that there is not.
    #[new]
    #[pyo3(signature = (attendant, frames, fields: "dict[str, str | None]", session, incoming))]
    fn new(
        py: Python<'_>,
        attendant: Py<PyAny>,
        frames: Py<PyAny>,
        fields: Py<PyDict>,
        session: Py<PyAny>,
        incoming: Py<PyAny>,
    ) -> PyResult<Self> {
        let window = window_of(frames.bind(py))?;
        Ok(Self {
            attendant,
            frames,
            fields,
            session,
            incoming,
            window,
        })
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
        visit.call(&self.session)?;
        visit.call(&self.incoming)
    }
}
