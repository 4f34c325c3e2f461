//! The types that a message may hold, and the plain form of their subclasses.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString};

use super::invalid::{Invalid, Reason};
use super::limits::{POSITION, RESERVED};
use crate::errors::{InvalidMessage, show};
use crate::once::intern;

/// The message as a dict, which it has to be.
pub(super) fn dict_of<'a, 'py>(message: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyDict>> {
    message.cast::<PyDict>().map_err(|_| {
        let text = format!("Message is not a dict: got {}", show(message));
        InvalidMessage::new_err(text)
    })
}

/// Refuses a key of the message itself that layers keep for themselves.
pub(super) fn check_reserved(key: &str, depth: usize) -> Result<(), Invalid> {
    // The lengths are compared first, as few keys have one of them.
    if depth == 1 && matches!(key.len(), RESERVED_LENGTH | POSITION_LENGTH) {
        return check_name(key);
    }
    Ok(())
}

const RESERVED_LENGTH: usize = RESERVED.len();
const POSITION_LENGTH: usize = POSITION.len();

#[cold]
fn check_name(key: &str) -> Result<(), Invalid> {
    match [RESERVED, POSITION].into_iter().find(|name| *name == key) {
        Some(name) => Err(Invalid::new(Reason::Reserved(name))),
        None => Ok(()),
    }
}

/// A key that every engine can carry.
pub(super) fn plain_key<'py>(key: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Invalid> {
    if let Ok(text) = key.cast::<PyString>() {
        plain_text(text)
    } else if let Ok(bytes) = key.cast::<PyBytes>() {
        Ok(PyBytes::new(key.py(), bytes.as_bytes()).into_any())
    } else {
        Err(Invalid::new(Reason::Key))
    }
}

pub(super) fn plain_text<'py>(text: &Bound<'py, PyString>) -> Result<Bound<'py, PyAny>, Invalid> {
    let plain = text
        .to_str()
        .map_err(|_| Invalid::new(Reason::Surrogates))?;
    Ok(PyString::new(text.py(), plain).into_any())
}

/// An integer that msgpack has, of an int or a subclass.
pub(super) fn plain_int<'py>(value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Invalid> {
    let py = value.py();
    if let Ok(number) = value.extract::<i64>() {
        return Ok(number.into_bound_py_any(py)?);
    }
    let large: u64 = value.extract().map_err(|_| Invalid::new(Reason::Range))?;
    Ok(large.into_bound_py_any(py)?)
}

/// The bytes of a value that is bytes, a bytearray or a memoryview; None of any other.
pub(super) fn bytes_of<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = value.py();
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Some(bytes.clone()));
    }
    if let Ok(array) = value.cast::<PyByteArray>() {
        return Ok(Some(PyBytes::new(py, &array.to_vec())));
    }
    if value.is_exact_instance_of::<PyMemoryView>() {
        let bytes = value.call_method0(intern!(py, "tobytes"))?;
        return Ok(bytes.cast_into::<PyBytes>().ok());
    }
    Ok(None)
}

/// The items that a subclass of dict gives out, as a dict.
pub(super) fn plain_dict<'py>(dict: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let plain = PyDict::new(dict.py());
    plain.update(dict.as_mapping())?;
    Ok(plain)
}
