//! From msgpack to a message.
//!
//! Whatever the bytes are, the result is a dict or an error with what is wrong and where; memory is taken for what is
//! there, not for what is claimed.

use std::sync::OnceLock;

use headrace_core::redis::msgpack::{Defect, Visitor, read};
use headrace_core::redis::payload::BadPayload;
use headrace_core::sync::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyUnicodeDecodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::snapshot::Snapshot;

/// A message from msgpack.
///
/// Raises:
///     ValueError: It is none; the error tells what is wrong, and at which byte.
#[pyfunction]
#[pyo3(signature = (data: "bytes") -> "dict[str, object]")]
pub(crate) fn unpack<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(decode(py, data)?.value.into_bound(py))
}

/// Decodes one message that takes all of the bytes.
pub(super) fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Snapshot> {
    let mut decoder = Decoder {
        py,
        flat: true,
        items: Vec::new(),
        keys: KeyCache::borrow(),
    };
    match read(bytes, &mut decoder) {
        Ok(value) => Ok(Snapshot {
            value: value.into_any().unbind(),
            flat: decoder.flat,
            kind: None,
            size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            prepared: OnceLock::new(),
        }),
        Err((Failure::Defect(defect), at)) => {
            let bad = BadPayload { defect, at };
            Err(PyValueError::new_err(bad.to_string()))
        }
        Err((Failure::Python(error), _)) => Err(*error),
    }
}

enum Failure {
    Defect(Defect),
    /// In a box: results are returned for every value.
    Python(Box<PyErr>),
}

impl From<Defect> for Failure {
    fn from(defect: Defect) -> Self {
        Self::Defect(defect)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(Box::new(error))
    }
}

/// Makes the objects of a message.
struct Decoder<'py> {
    py: Python<'py>,
    /// No container has ended within the message.
    flat: bool,
    /// The items of the lists that are being read, those of the innermost last.
    items: Vec<Bound<'py, PyAny>>,
    keys: Borrowed,
}

impl<'py> Visitor for Decoder<'py> {
    type Value = Bound<'py, PyAny>;
    type Key = Bound<'py, PyAny>;
    type Map = Bound<'py, PyDict>;
    /// Where its items begin.
    type Array = usize;
    type Error = Failure;

    fn nil(&mut self) -> Result<Self::Value, Failure> {
        Ok(self.py.None().into_bound(self.py))
    }

    fn boolean(&mut self, truth: bool) -> Result<Self::Value, Failure> {
        Ok(truth.into_bound_py_any(self.py)?)
    }

    fn integer(&mut self, number: i64) -> Result<Self::Value, Failure> {
        Ok(number.into_bound_py_any(self.py)?)
    }

    fn unsigned(&mut self, number: u64) -> Result<Self::Value, Failure> {
        Ok(number.into_bound_py_any(self.py)?)
    }

    fn float(&mut self, number: f64) -> Result<Self::Value, Failure> {
        Ok(number.into_bound_py_any(self.py)?)
    }

    fn text(&mut self, bytes: &[u8], _: usize) -> Result<Self::Value, Failure> {
        Ok(text(self.py, bytes)?.into_any())
    }

    fn binary(&mut self, binary: &[u8]) -> Result<Self::Value, Failure> {
        Ok(PyBytes::new(self.py, binary).into_any())
    }

    /// Those that come again and again are remembered.
    fn text_key(&mut self, bytes: &[u8]) -> Result<Self::Key, Failure> {
        let py = self.py;
        let place = self.keys.0.as_mut().and_then(|keys| keys.place(bytes));
        let Some(place) = place else {
            return Ok(text(py, bytes)?.into_any());
        };
        match place {
            Some(key) if key.to_str(py).is_ok_and(|key| key.as_bytes() == bytes) => {
                Ok(key.bind(py).clone().into_any())
            }
            _ => {
                let key = text(py, bytes)?;
                *place = Some(key.clone().unbind());
                Ok(key.into_any())
            }
        }
    }

    fn binary_key(&mut self, binary: &[u8]) -> Result<Self::Key, Failure> {
        self.binary(binary)
    }

    fn map(&mut self) -> Self::Map {
        PyDict::new(self.py)
    }

    fn entry(
        &mut self,
        map: &mut Self::Map,
        key: Self::Key,
        value: Self::Value,
    ) -> Result<(), Failure> {
        Ok(map.set_item(key, value)?)
    }

    fn end_map(&mut self, map: Self::Map) -> Self::Value {
        self.flat = false;
        map.into_any()
    }

    fn array(&mut self) -> usize {
        self.items.len()
    }

    fn item(&mut self, value: Self::Value) {
        self.items.push(value);
    }

    fn end_array(&mut self, start: usize) -> Result<Self::Value, Failure> {
        self.flat = false;
        Ok(PyList::new(self.py, self.items.drain(start..))?.into_any())
    }
}

fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyString>, Failure> {
    PyString::from_bytes(py, bytes).map_err(|error| {
        if error.is_instance_of::<PyUnicodeDecodeError>(py) {
            Defect::NotUtf8.into()
        } else {
            Failure::from(error)
        }
    })
}

/// Keys that were decoded lately, by a hash of their text. Most keys are those of the message before, and a dict is faster
/// with a key whose hash is known than with a new one.
///
/// A decoder takes them out while it works. One that finds none (another thread has them, or a decode further down its own
/// stack, in code that the garbage collector runs) begins without.
struct KeyCache([Option<Py<PyString>>; 256]);

static KEYS: Mutex<Option<Box<KeyCache>>> = Mutex::new(None);

/// Keys that go back when they are dropped.
struct Borrowed(Option<Box<KeyCache>>);

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(keys) = self.0.take() {
            drop(KEYS.replace(keys));
        }
    }
}

impl KeyCache {
    /// Longer ones are rarely names.
    const MAX_LENGTH: usize = 32;

    fn borrow() -> Borrowed {
        let keys = KEYS.take();
        Borrowed(Some(
            keys.unwrap_or_else(|| Box::new(Self([const { None }; 256]))),
        ))
    }

    fn place(&mut self, text: &[u8]) -> Option<&mut Option<Py<PyString>>> {
        if text.len() > Self::MAX_LENGTH {
            return None;
        }
        let hash = text.iter().fold(0_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        let [place, ..] = hash.wrapping_mul(0x9e37_79b9).to_be_bytes();
        self.0.get_mut(usize::from(place))
    }
}
