//! From msgpack to a message.
//!
//! Whatever the bytes are, the result is a dict or an error with what is wrong and where; memory is taken for what is
//! there, not for what is claimed.

use headrace_core::redis::payload::Defect;
use headrace_core::sync::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyUnicodeDecodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use rmp::Marker;

use super::limits::{MAX_CONTAINERS, MAX_DEPTH};
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
        bytes,
        position: 0,
        at: 0,
        containers: 0,
        items: Vec::new(),
        keys: KeyCache::borrow(),
    };
    match decoder.message() {
        Ok(value) => Ok(Snapshot {
            value: value.into_any().unbind(),
            flat: decoder.containers == 1,
            kind: None,
            size: bytes.len(),
        }),
        Err(Failure::Defect(what)) => {
            let text = format!("{what} (byte {})", decoder.at);
            Err(PyValueError::new_err(text))
        }
        Err(Failure::Python(error)) => Err(*error),
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

struct Decoder<'py, 'a> {
    py: Python<'py>,
    bytes: &'a [u8],
    position: usize,
    /// Where the value begins that is being read.
    at: usize,
    containers: usize,
    /// The items of the lists that are being read, those of the innermost last.
    items: Vec<Bound<'py, PyAny>>,
    keys: Borrowed,
}

impl<'py, 'a> Decoder<'py, 'a> {
    fn message(&mut self) -> Result<Bound<'py, PyDict>, Failure> {
        let pairs = match self.marker()? {
            Marker::FixMap(pairs) => usize::from(pairs),
            Marker::Map16 => self.length::<2>()?,
            Marker::Map32 => self.length::<4>()?,
            _ => return Err(Defect::NoMap.into()),
        };
        let message = self.map(pairs, 1)?;
        self.at = self.position;
        if self.position < self.bytes.len() {
            return Err(Defect::Trailing.into());
        }
        Ok(message)
    }

    fn value(&mut self, depth: usize) -> Result<Bound<'py, PyAny>, Failure> {
        match self.marker()? {
            Marker::FixStr(length) => self.text(length.into()),
            Marker::Str8 => self.length::<1>().and_then(|length| self.text(length)),
            Marker::Str16 => self.length::<2>().and_then(|length| self.text(length)),
            Marker::Str32 => self.length::<4>().and_then(|length| self.text(length)),
            Marker::Bin8 => self.length::<1>().and_then(|length| self.binary(length)),
            Marker::Bin16 => self.length::<2>().and_then(|length| self.binary(length)),
            Marker::Bin32 => self.length::<4>().and_then(|length| self.binary(length)),
            Marker::FixArray(length) => self.array(length.into(), depth),
            Marker::Array16 => {
                let length = self.length::<2>()?;
                self.array(length, depth)
            }
            Marker::Array32 => {
                let length = self.length::<4>()?;
                self.array(length, depth)
            }
            Marker::FixMap(pairs) => self.map(pairs.into(), depth).map(Bound::into_any),
            Marker::Map16 => {
                let pairs = self.length::<2>()?;
                self.map(pairs, depth).map(Bound::into_any)
            }
            Marker::Map32 => {
                let pairs = self.length::<4>()?;
                self.map(pairs, depth).map(Bound::into_any)
            }
            scalar => self.scalar(scalar),
        }
    }

    fn scalar(&mut self, marker: Marker) -> Result<Bound<'py, PyAny>, Failure> {
        let py = self.py;
        let value = match marker {
            Marker::Null => Ok(py.None().into_bound(py)),
            Marker::False => false.into_bound_py_any(py),
            Marker::True => true.into_bound_py_any(py),
            Marker::FixPos(number) => number.into_bound_py_any(py),
            Marker::FixNeg(number) => number.into_bound_py_any(py),
            Marker::U8 => u8::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::U16 => u16::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::U32 => u32::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::U64 => u64::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::I8 => i8::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::I16 => i16::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::I32 => i32::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::I64 => i64::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::F32 => f32::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::F64 => f64::from_be_bytes(self.chunk()?).into_bound_py_any(py),
            Marker::Reserved => return Err(Defect::Reserved.into()),
            _ => return Err(Defect::Extension.into()),
        };
        Ok(value?)
    }

    /// Begins a container of so many values, keys included.
    fn enter(&mut self, values: usize, depth: usize) -> Result<(), Failure> {
        self.containers += 1;
        if self.containers > MAX_CONTAINERS {
            return Err(Defect::TooMany.into());
        }
        // Every value takes at least one byte.
        if values > self.bytes.len() - self.position {
            return Err(Defect::Truncated.into());
        }
        if depth > MAX_DEPTH {
            return Err(Defect::TooDeep.into());
        }
        Ok(())
    }

    fn map(&mut self, pairs: usize, depth: usize) -> Result<Bound<'py, PyDict>, Failure> {
        self.enter(pairs.saturating_mul(2), depth)?;
        let dict = PyDict::new(self.py);
        for _ in 0..pairs {
            let key = self.key()?;
            dict.set_item(key, self.value(depth + 1)?)?;
        }
        Ok(dict)
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<Bound<'py, PyAny>, Failure> {
        self.enter(length, depth)?;
        let start = self.items.len();
        for _ in 0..length {
            let item = self.value(depth + 1)?;
            self.items.push(item);
        }
        Ok(PyList::new(self.py, self.items.drain(start..))?.into_any())
    }

    fn key(&mut self) -> Result<Bound<'py, PyAny>, Failure> {
        let marker = self.marker()?;
        let length = match marker {
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 => self.length::<1>()?,
            Marker::Str16 => self.length::<2>()?,
            Marker::Str32 => self.length::<4>()?,
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => return self.bytes_key(marker),
            _ => return Err(Defect::Key.into()),
        };
        Ok(self.text_key(length)?.into_any())
    }

    fn bytes_key(&mut self, marker: Marker) -> Result<Bound<'py, PyAny>, Failure> {
        let length = match marker {
            Marker::Bin8 => self.length::<1>()?,
            Marker::Bin16 => self.length::<2>()?,
            _ => self.length::<4>()?,
        };
        self.binary(length)
    }

    /// A key that is text; those that come again and again are remembered.
    fn text_key(&mut self, length: usize) -> Result<Bound<'py, PyString>, Failure> {
        let py = self.py;
        let bytes = self.take(length)?;
        let place = self.keys.0.as_mut().and_then(|keys| keys.place(bytes));
        let Some(place) = place else {
            return text(py, bytes);
        };
        match place {
            Some(key) if key.to_str(py).is_ok_and(|key| key.as_bytes() == bytes) => {
                Ok(key.bind(py).clone())
            }
            _ => {
                let key = text(py, bytes)?;
                *place = Some(key.clone().unbind());
                Ok(key)
            }
        }
    }

    fn text(&mut self, length: usize) -> Result<Bound<'py, PyAny>, Failure> {
        let bytes = self.take(length)?;
        Ok(text(self.py, bytes)?.into_any())
    }

    fn binary(&mut self, length: usize) -> Result<Bound<'py, PyAny>, Failure> {
        Ok(PyBytes::new(self.py, self.take(length)?).into_any())
    }

    fn marker(&mut self) -> Result<Marker, Failure> {
        self.at = self.position;
        let [marker] = self.chunk()?;
        Ok(Marker::from_u8(marker))
    }

    fn length<const N: usize>(&mut self) -> Result<usize, Failure> {
        let digits: [u8; N] = self.chunk()?;
        Ok(digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit)))
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let rest = self.bytes.get(self.position..);
        let chunk = rest
            .and_then(<[u8]>::first_chunk)
            .ok_or(Defect::Truncated)?;
        self.position += N;
        Ok(*chunk)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Failure> {
        let rest = self.bytes.get(self.position..);
        let taken = rest
            .and_then(|rest| rest.get(..length))
            .ok_or(Defect::Truncated)?;
        self.position += length;
        Ok(taken)
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
