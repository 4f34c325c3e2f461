//! WebSocket frames that headrace makes itself, for a server that takes them ready made.
//!
//! A server makes a frame anew for each client, and most of what a broadcast costs is that. Where it offers to write a frame as
//! it is (the extension `headrace.frames` of the scope), a message has one frame, made when the first client is to get it.
//!
//! [`FrameWriter`] is such a server's side for one connection of an asyncio transport; [`FrameSend`] stands in the place of the
//! server's `send`; what is written to many sockets in one turn of a loop is written in one [`pass`].

mod pass;
mod send;
mod socket;
mod writer;

use headrace_core::websocket::{FrameHead, Opcode};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

pub(crate) use pass::flush;
pub(crate) use send::FrameSend;
pub(crate) use writer::FrameWriter;

use crate::once::intern;

/// The frame of a payload that is plain text or bytes, and `None` for any other.
///
/// # Errors
/// `UnicodeEncodeError`: UTF-8 cannot carry the text.
pub(crate) fn frame_of<'py>(payload: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = payload.py();
    if let Ok(text) = payload.cast_exact::<PyString>() {
        return frame(py, Opcode::Text, text.to_str()?.as_bytes()).map(Some);
    }
    let Ok(bytes) = payload.cast_exact::<PyBytes>() else {
        return Ok(None);
    };
    frame(py, Opcode::Binary, bytes.as_bytes()).map(Some)
}

fn frame<'py>(py: Python<'py>, opcode: Opcode, payload: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let head = FrameHead::new(opcode, false, payload.len());
    let head = head.as_bytes();
    PyBytes::new_with(py, head.len() + payload.len(), |frame| {
        let (place, rest) = frame.split_at_mut(head.len());
        place.copy_from_slice(head);
        rest.copy_from_slice(payload);
        Ok(())
    })
}

/// Gives a frame to a server that offers to write it; true if it was taken.
pub(crate) fn write(frames: &Bound<'_, PyAny>, frame: &Bound<'_, PyBytes>) -> PyResult<bool> {
    match frames.cast_exact::<FrameWriter>() {
        Ok(writer) => writer.get().write_now(frame),
        Err(_) => frames
            .call_method1(intern!(frames.py(), "write"), (frame,))?
            .is_truthy(),
    }
}

/// As [`write`], in a call of `drain`: a socket may be written to later, but before anything else runs in this thread.
pub(crate) fn write_in_pass(
    frames: &Bound<'_, PyAny>,
    frame: &Bound<'_, PyBytes>,
) -> PyResult<bool> {
    if let Ok(writer) = frames.cast_exact::<FrameWriter>() {
        return writer.get().write_in_pass(frame);
    }
    flush(frames.py())?;
    write(frames, frame)
}
