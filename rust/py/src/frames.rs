//! WebSocket frames that headrace makes itself, for a server that takes them ready made.
//!
//! A server makes a frame anew for each client, and most of what a broadcast costs is that. Where it offers to write a frame as
//! it is (the extension `headrace.frames` of the scope), a message has one frame, made when the first client is to get it.
//!
//! [`FrameWriter`] is such a server's side for one connection of an asyncio transport; [`FrameSend`] stands in the place of the
//! server's `send`; what is written to many sockets in one turn of a loop is written in one [`pass`].

mod deflate;
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

/// The frame of a payload that is plain text or bytes, and `None` for any other. It is compressed for a window of so many bits,
/// if there is one and that makes it shorter.
///
/// # Errors
/// `UnicodeEncodeError`: UTF-8 cannot carry the text.
pub(crate) fn frame_of<'py>(
    payload: &Bound<'py, PyAny>,
    window: Option<u8>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = payload.py();
    let Some((opcode, bytes)) = content(payload)? else {
        return Ok(None);
    };
    if let Some(window) = window
        && deflate::is_worth_it(bytes.len())
        && let Some(shorter) = deflate::compressed(py, bytes, window)?
    {
        return frame(py, opcode, true, &shorter).map(Some);
    }
    frame(py, opcode, false, bytes).map(Some)
}

/// Whether a payload that is plain text or bytes is compressed for who wants that; `None` for any other.
///
/// # Errors
/// `UnicodeEncodeError`: UTF-8 cannot carry the text.
pub(crate) fn is_compressed(payload: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    Ok(content(payload)?.map(|(_, bytes)| deflate::is_worth_it(bytes.len())))
}

/// The window for frames that this extension of a scope writes.
///
/// # Errors
/// `ValueError`: it is none that there is.
pub(crate) fn window_of(frames: &Bound<'_, PyAny>) -> PyResult<Option<u8>> {
    if let Ok(writer) = frames.cast_exact::<FrameWriter>() {
        return Ok(writer.get().window_bits);
    }
    match frames.getattr_opt(intern!(frames.py(), "window_bits"))? {
        Some(window) => deflate::checked(window.extract()?),
        None => Ok(None),
    }
}

fn content<'a>(payload: &'a Bound<'_, PyAny>) -> PyResult<Option<(Opcode, &'a [u8])>> {
    if let Ok(text) = payload.cast_exact::<PyString>() {
        return Ok(Some((Opcode::Text, text.to_str()?.as_bytes())));
    }
    let bytes = payload.cast_exact::<PyBytes>().ok();
    Ok(bytes.map(|bytes| (Opcode::Binary, bytes.as_bytes())))
}

fn frame<'py>(
    py: Python<'py>,
    opcode: Opcode,
    compressed: bool,
    payload: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let head = FrameHead::new(opcode, compressed, payload.len());
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
