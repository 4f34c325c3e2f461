//! permessage-deflate (RFC 7692) for frames that are shared: each message is compressed by itself, so that the result does not
//! depend on what a client got before. The server has to have negotiated `server_no_context_takeover` for that.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods};

use crate::once::{Once, intern};

/// Shorter payloads are sent as they are, which the RFC allows. JSON of a chat of 256 bytes becomes 169, of 100 bytes 85
/// (`zlib.compressobj(wbits=-12, memLevel=5)`, 2026-12-01).
const LEAST: usize = 256;

/// How zlib is to work: its default level and its only method; the memory is what uvicorn gives it.
const LEVEL: i32 = -1;
const METHOD: i32 = 8;
const MEMORY: i32 = 5;
/// Ends the output at a whole byte, with an empty block.
const SYNC_FLUSH: i32 = 2;
/// That empty block, which is not sent.
const EMPTY_BLOCK: [u8; 4] = [0, 0, 0xff, 0xff];

/// The sizes of a window that zlib can make, in bits.
const WINDOWS: std::ops::RangeInclusive<u8> = 9..=15;

/// The size of the window for compressed frames that an extension tells, by its attribute `window_bits`.
///
/// # Errors
/// `ValueError`: it is none that zlib can make.
pub(super) fn checked(window: Option<u8>) -> PyResult<Option<u8>> {
    match window {
        Some(window) if !WINDOWS.contains(&window) => {
            let text = format!("window_bits must be None, or from 9 to 15, got {window}");
            Err(PyValueError::new_err(text))
        }
        window => Ok(window),
    }
}

/// Whether a payload of so many bytes is compressed.
pub(super) fn is_worth_it(length: usize) -> bool {
    length >= LEAST
}

/// The compressed payload, if it is shorter than the payload.
pub(super) fn compressed(py: Python<'_>, payload: &[u8], window: u8) -> PyResult<Option<Vec<u8>>> {
    static COMPRESSOR: Once<Py<PyAny>> = Once::new();
    let make = COMPRESSOR.import(py, "zlib", "compressobj")?;
    let compressor = make.call1((LEVEL, METHOD, -i32::from(window), MEMORY))?;
    let mut result = Vec::new();
    let begun = compressor.call_method1(intern!(py, "compress"), (PyBytes::new(py, payload),))?;
    result.extend_from_slice(begun.cast::<PyBytes>()?.as_bytes());
    let rest = compressor.call_method1(intern!(py, "flush"), (SYNC_FLUSH,))?;
    result.extend_from_slice(rest.cast::<PyBytes>()?.as_bytes());
    if result.ends_with(&EMPTY_BLOCK) {
        result.truncate(result.len() - EMPTY_BLOCK.len());
        return Ok((result.len() < payload.len()).then_some(result));
    }
    Ok(None)
}
