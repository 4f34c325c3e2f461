//! One connection of a server whose WebSockets are asyncio transports: writes ready-made frames to it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods, PyString};

use super::deflate::checked;
use super::pass;
use super::socket::{IS_POSSIBLE, send_one};
use crate::once::intern;

/// How many bytes for one socket may wait for the next pass, behind the first frame. A client that does not read is to be
/// noticed, so that its messages wait in its mailbox.
const MOST_QUEUED: usize = 64 * 1024;

/// Writes frames to one WebSocket.
///
/// Not from any thread but the one that made it, and not while its client does not read: then `write` returns False, and
/// the caller sends in the server's way, which waits.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct FrameWriter {
    /// The server's own `send`.
    #[pyo3(get)]
    send: Py<PyAny>,
    transport: Py<PyAny>,
    /// What knows whether a close was sent or received, by an attribute; and the value of that as long as neither was.
    connection: Py<PyAny>,
    attribute: Py<PyString>,
    open: Py<PyAny>,
    /// Of how many bits the window is for which frames may be compressed; None if they may not be.
    #[pyo3(get)]
    pub(super) window_bits: Option<u8>,
    /// The transport's socket, where that can be written to.
    descriptor: Option<i32>,
    thread: ThreadId,
    /// Whether the transport has more than enough to write.
    is_held: AtomicBool,
    has_ended: AtomicBool,
    /// The pass that it has last added frames to, and how many bytes these are.
    last_pass: AtomicU64,
    queued: AtomicUsize,
}

impl FrameWriter {
    /// Writes a frame, or gives it to the transport; false if neither can be done now.
    pub(super) fn write_now(&self, frame: &Bound<'_, PyBytes>) -> PyResult<bool> {
        let py = frame.py();
        pass::flush(py)?;
        if !self.takes_writes(py)? {
            return Ok(false);
        }
        let taken = match self.free_descriptor(py)? {
            Some(descriptor) => send_one(descriptor, frame.as_bytes()),
            None => 0,
        };
        if taken < frame.as_bytes().len() {
            pass::hand_over(self.transport.bind(py), frame, taken)?;
        }
        Ok(true)
    }

    /// As `write_now`, but a socket is written to with those of other connections.
    pub(super) fn write_in_pass(&self, frame: &Bound<'_, PyBytes>) -> PyResult<bool> {
        let py = frame.py();
        if self.queued() > MOST_QUEUED {
            pass::flush(py)?;
        }
        if !self.takes_writes(py)? {
            return Ok(false);
        }
        let (transport, queued) = (self.transport.bind(py), self.queued());
        // Behind a frame that waits nothing has been given to the transport.
        let descriptor = match self.descriptor {
            Some(descriptor) if queued > 0 => Some(descriptor),
            _ => self.free_descriptor(py)?,
        };
        let Some(descriptor) = descriptor else {
            pass::hand_over(transport, frame, 0)?;
            return Ok(true);
        };
        self.last_pass.store(pass::number(), Ordering::Relaxed);
        let queued = queued + frame.as_bytes().len();
        self.queued.store(queued, Ordering::Relaxed);
        pass::push(descriptor, transport, frame)?;
        Ok(true)
    }

    /// How many bytes wait for the next pass.
    fn queued(&self) -> usize {
        if self.last_pass.load(Ordering::Relaxed) == pass::number() {
            self.queued.load(Ordering::Relaxed)
        } else {
            0
        }
    }

    /// Whether the connection is open and its client reads.
    pub(super) fn takes_writes(&self, py: Python<'_>) -> PyResult<bool> {
        if self.is_held.load(Ordering::Relaxed)
            || self.has_ended.load(Ordering::Relaxed)
            || thread::current().id() != self.thread
        {
            return Ok(false);
        }
        let state = self.connection.bind(py).getattr(&self.attribute)?;
        if !state.is(&self.open) {
            return Ok(false);
        }
        let transport = self.transport.bind(py);
        let closing = transport.call_method0(intern!(py, "is_closing"))?;
        Ok(!closing.is_truthy()?)
    }

    /// The socket, if it may be written to: what the transport holds back has to go first.
    fn free_descriptor(&self, py: Python<'_>) -> PyResult<Option<i32>> {
        let Some(descriptor) = self.descriptor else {
            return Ok(None);
        };
        let transport = self.transport.bind(py);
        let held = transport.call_method0(intern!(py, "get_write_buffer_size"))?;
        Ok((!held.is_truthy()?).then_some(descriptor))
    }
}

#[pymethods]
impl FrameWriter {
    /// Make the writer of a connection, in the thread of its loop.
    ///
    /// Args:
    ///     send: The server's own ``send``.
    ///     transport: The transport.
    ///     connection: What knows the state of the WebSocket.
    ///     attribute: The name of its attribute that says it.
    ///     open: The value of that while a frame may be sent.
    ///     descriptor: The transport's socket, if frames may be written to it past the transport, or None.
    ///     window_bits: Of how many bits the window is for which frames may be compressed, or None if they may not be.
    ///
    /// Raises:
    ///     ValueError: There is no such window.
    #[new]
    #[pyo3(signature = (send, transport, connection, attribute, open, descriptor, window_bits=None))]
    fn new(
        send: Py<PyAny>,
        transport: Py<PyAny>,
        connection: Py<PyAny>,
        attribute: Py<PyString>,
        open: Py<PyAny>,
        descriptor: Option<i32>,
        window_bits: Option<u8>,
    ) -> PyResult<Self> {
        Ok(Self {
            send,
            transport,
            connection,
            attribute,
            open,
            window_bits: checked(window_bits)?,
            descriptor: descriptor.filter(|_| IS_POSSIBLE),
            thread: thread::current().id(),
            is_held: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            last_pass: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
        })
    }

    /// Write a whole frame, without waiting; return False, having written nothing, if that cannot be done now.
    ///
    /// To be called in the thread of the connection's loop; in any other it returns False.
    fn write(&self, frame: &Bound<'_, PyBytes>) -> PyResult<bool> {
        self.write_now(frame)
    }

    /// Take no frames until `go_on`: the transport has more than enough to write.
    fn hold(&self) {
        self.is_held.store(true, Ordering::Relaxed);
    }

    /// Take frames again.
    fn go_on(&self) {
        self.is_held.store(false, Ordering::Relaxed);
    }

    /// Take no frames any more: the transport is about to be closed, and its descriptor may be somebody else's then.
    fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    // Who copies a scope copies no connection.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (memo, /))]
    fn __deepcopy__<'py>(slf: Bound<'py, Self>, memo: Bound<'py, PyAny>) -> Bound<'py, Self> {
        drop(memo);
        slf
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.send)?;
        visit.call(&self.transport)?;
        visit.call(&self.connection)?;
        visit.call(&self.open)
    }
}
