//! What stands in the place of a server's `send`.

use std::thread::{self, ThreadId};

use pyo3::exceptions::PyStopIteration;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::writer::FrameWriter;
use super::{frame_of, window_of, write};
use crate::once::{Once, intern};

/// Sends messages to a client in the place of the server's ``send``: frames are written at once where that can be done, and
/// everything else is sent by the server.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct FrameSend {
    frames: Py<PyAny>,
    send: Py<PyAny>,
    window: Option<u8>,
    /// Of the connection's loop.
    thread: ThreadId,
}

impl FrameSend {
    /// Whether the message was sent as a frame.
    fn sends(&self, message: &Bound<'_, PyAny>) -> PyResult<bool> {
        let frames = self.frames.bind(message.py());
        let takes_writes = match frames.cast_exact::<FrameWriter>() {
            Ok(writer) => writer.get().takes_writes(message.py())?,
            Err(_) => thread::current().id() == self.thread,
        };
        if !takes_writes {
            return Ok(false);
        }
        match frame_of_message(message, self.window)? {
            Some(frame) => write(frames, &frame),
            None => Ok(false),
        }
    }
}

#[pymethods]
impl FrameSend {
    /// Make what sends to one client, in the thread of its loop: in any other the server's own ``send`` is called.
    ///
    /// Args:
    ///     frames: Writes frames to it: the extension ``headrace.frames`` of its scope.
    ///     send: The server's own ``send``.
    ///
    /// Raises:
    ///     ValueError: What writes frames says that it has a window that there is not.
    #[new]
    fn new(py: Python<'_>, frames: Py<PyAny>, send: Py<PyAny>) -> PyResult<Self> {
        let window = window_of(frames.bind(py))?;
        Ok(Self {
            frames,
            send,
            window,
            thread: thread::current().id(),
        })
    }

    /// Send a message. Like ``send`` of a server it is to be awaited.
    #[pyo3(signature = (message, /))]
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if self.sends(message)? {
            return Done::awaitable(message.py());
        }
        self.send.bind(message.py()).call1((message,))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.frames)?;
        visit.call(&self.send)
    }
}

/// The frame of a message of ASGI, if it is one that holds a frame.
fn frame_of_message<'py>(
    message: &Bound<'py, PyAny>,
    window: Option<u8>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = message.py();
    let Ok(message) = message.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    let Some(kind) = message.get_item(intern!(py, "type"))? else {
        return Ok(None);
    };
    let Ok(kind) = kind.cast_exact::<PyString>() else {
        return Ok(None);
    };
    let is_frame = kind.is(intern!(py, "websocket.send")) || kind.to_str()? == "websocket.send";
    if !is_frame {
        return Ok(None);
    }
    let mut payload = message.get_item(intern!(py, "bytes"))?;
    if payload.as_ref().is_none_or(Bound::is_none) {
        payload = message.get_item(intern!(py, "text"))?;
    }
    payload.map_or(Ok(None), |payload| frame_of(&payload, window))
}

/// What is awaited after a frame was written: there is nothing to wait for. It has all that a coroutine has, as tasks are made
/// of those.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Done;

impl Done {
    fn awaitable(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static DONE: Once<Py<Done>> = Once::new();
        let done = DONE.get_or_try_init(|| {
            let coroutines = py.import("collections.abc")?.getattr("Coroutine")?;
            coroutines.call_method1("register", (py.get_type::<Self>(),))?;
            Py::new(py, Self)
        })?;
        Ok(done.bind(py).clone().into_any())
    }
}

#[pymethods]
impl Done {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[expect(clippy::unused_self, reason = "a method of an iterator")]
    fn __next__(&self) -> Option<()> {
        None
    }

    #[expect(clippy::unused_self, reason = "a method of a coroutine")]
    #[pyo3(signature = (value, /))]
    fn send(&self, value: Bound<'_, PyAny>) -> PyResult<()> {
        drop(value);
        Err(PyStopIteration::new_err(()))
    }

    /// Raise the exception: it is not waited here for anything that could.
    #[expect(clippy::unused_self, reason = "a method of a coroutine")]
    #[pyo3(signature = (typ, val=None, tb=None, /))]
    fn throw(
        &self,
        typ: Bound<'_, PyAny>,
        val: Option<Bound<'_, PyAny>>,
        tb: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // An exception brings its traceback along.
        drop(tb);
        Err(PyErr::from_value(val.unwrap_or(typ)))
    }

    #[expect(clippy::unused_self, reason = "a method of a coroutine")]
    fn close(&self) {}
}
