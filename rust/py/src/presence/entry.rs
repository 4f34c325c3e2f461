//! The key and the meta of whoever is present, as the types of arguments.

use std::convert::Infallible;

use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
#[cfg(feature = "stubs")]
use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
#[cfg(feature = "stubs")]
use pyo3::{type_hint_identifier, type_hint_subscript};

use crate::errors::{MessageTooLarge, show};
use crate::message::encode::encode_nested;

/// How long a meta may be, in msgpack.
const META_BYTES: usize = 4096;
/// How long a key may be, in UTF-8.
const KEY_BYTES: usize = 256;
/// A meta stands in a list, in a map, in a message.
const DEPTH: usize = 4;

/// Under what somebody is present.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a, 'py>(Borrowed<'a, 'py, PyAny>);

/// What is told of somebody who is present.
#[derive(Clone, Copy)]
pub(crate) struct Meta<'a, 'py>(Borrowed<'a, 'py, PyAny>);

impl<'a, 'py> FromPyObject<'a, 'py> for Key<'a, 'py> {
    type Error = Infallible;

    #[cfg(feature = "stubs")]
    const INPUT_TYPE: PyStaticExpr = type_hint_identifier!("builtins", "str");

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self(given))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Meta<'a, 'py> {
    type Error = Infallible;

    #[cfg(feature = "stubs")]
    const INPUT_TYPE: PyStaticExpr = type_hint_subscript!(
        type_hint_identifier!("collections.abc", "Mapping"),
        type_hint_identifier!("builtins", "str"),
        type_hint_identifier!("builtins", "object")
    );

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self(given))
    }
}

impl Key<'_, '_> {
    /// The key.
    pub(crate) fn text(&self) -> PyResult<&str> {
        let wrong = || {
            let got = show(&self.0);
            format!("the key of a presence must be text (str), such as str(user.pk), got {got}")
        };
        let given: &Bound<'_, PyAny> = &self.0;
        let text = given.cast::<PyString>();
        let text = text.map_err(|_| PyTypeError::new_err(wrong()))?;
        let Ok(key) = text.to_str() else {
            return Err(PyValueError::new_err(
                wrong() + ", with half a surrogate pair",
            ));
        };
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(PyValueError::new_err(format!(
                "the key of a presence must have 1 to {KEY_BYTES} bytes of UTF-8, got {}",
                key.len()
            )));
        }
        Ok(key)
    }
}

impl Meta<'_, '_> {
    /// Its msgpack.
    pub(crate) fn pack(self) -> PyResult<Vec<u8>> {
        let py = self.0.py();
        let given: &Bound<'_, PyAny> = &self.0;
        let dict = given.cast::<PyDict>().map_err(|_| {
            let got = show(&self.0);
            PyTypeError::new_err(format!(
                "the meta of a presence must be a dict, such as {{'name': 'Ann'}}, got {got}"
            ))
        })?;
        let mut bytes = Vec::with_capacity(64);
        match encode_nested(&mut bytes, dict, DEPTH, META_BYTES) {
            Ok(()) => Ok(bytes),
            Err(error) if error.is_instance_of::<MessageTooLarge>(py) => {
                Err(MessageTooLarge::new_err(format!(
                    "the meta of a presence may take {META_BYTES} bytes of msgpack, and this one is longer: all members \
                     get it, so put what is large elsewhere and name it here"
                )))
            }
            Err(error) => Err(of_meta(py, error)),
        }
    }
}

/// The error of a message, told of a meta.
fn of_meta(py: Python<'_>, error: PyErr) -> PyErr {
    let text = error.value(py).to_string();
    match text.strip_prefix("message") {
        Some(rest) => {
            let told = PyErr::from_type(error.get_type(py), format!("meta{rest}"));
            told.set_cause(py, error.cause(py));
            told
        }
        None => error,
    }
}
