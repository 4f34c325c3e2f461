//! From a message to msgpack, as `msgpack.packb` writes it.
//!
//! What may be in it is what a strict layer takes, in one walk: the text of every error is that of the snapshot. The
//! containers that are walked are copies where other code could change them meanwhile.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use rmp::Marker;

use super::invalid::{Invalid, Reason, Step};
use super::limits::{MAX_CONTAINERS, MAX_DEPTH};
use super::plain::{bytes_of, check_reserved, dict_of, plain_dict};
use crate::errors::type_name;

/// Lengths have 32 bits, so nothing longer than this has one that does not fit.
const MAX_LIMIT: usize = u32::MAX as usize;

/// A message as msgpack.
///
/// Raises:
///     MessageTooLarge: It takes more bytes than the limit.
///     InvalidMessage: It is not a dict, or uses a reserved key.
///     TypeError: It holds what is not serialisable.
///     ValueError: It holds itself, is nested too deep, or has text or integers that msgpack cannot carry.
#[pyfunction]
#[pyo3(signature = (message: "dict[str, object]", limit: "int"))]
pub(crate) fn pack<'py>(
    message: &Bound<'py, PyAny>,
    limit: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut bytes = Vec::with_capacity(256);
    encode_into(&mut bytes, message, limit)?;
    Ok(PyBytes::new(message.py(), &bytes))
}

/// Appends the message, in at most so many bytes. If it is refused, the bytes are what they were.
pub(crate) fn encode_into(
    bytes: &mut Vec<u8>,
    message: &Bound<'_, PyAny>,
    limit: usize,
) -> PyResult<()> {
    dict_of(message)?;
    let start = bytes.len();
    let limit = limit.min(MAX_LIMIT);
    let mut encoder = Encoder {
        start,
        end: start.saturating_add(limit),
        limit,
        bytes,
        containers: 0,
    };
    encoder.value(message, 1).map_err(|invalid| {
        bytes.truncate(start);
        invalid.into_error(message)
    })
}

/// Appends a dict that is to stand so deep in a message, in at most so many bytes. If it is refused, the bytes are what they were.
pub(crate) fn encode_nested(
    bytes: &mut Vec<u8>,
    dict: &Bound<'_, PyDict>,
    depth: usize,
    limit: usize,
) -> PyResult<()> {
    let start = bytes.len();
    let mut encoder = Encoder {
        start,
        end: start.saturating_add(limit),
        limit,
        bytes,
        containers: 0,
    };
    encoder.value(dict, depth).map_err(|invalid| {
        bytes.truncate(start);
        invalid.into_error(dict)
    })
}

struct Encoder<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    end: usize,
    limit: usize,
    /// How many containers were written.
    containers: usize,
}

/// The markers of a type whose length is written in one byte (not for containers), two or four.
struct Lengths(Option<Marker>, Marker, Marker);

const TEXT: Lengths = Lengths(Some(Marker::Str8), Marker::Str16, Marker::Str32);
const BINARY: Lengths = Lengths(Some(Marker::Bin8), Marker::Bin16, Marker::Bin32);
const ARRAY: Lengths = Lengths(None, Marker::Array16, Marker::Array32);
const MAP: Lengths = Lengths(None, Marker::Map16, Marker::Map32);

impl Encoder<'_> {
    /// Refuses what is too long with so many more bytes.
    fn fits(&self, more: usize) -> Result<(), Invalid> {
        let end = self.bytes.len().saturating_add(more);
        if end <= self.end {
            return Ok(());
        }
        Err(Invalid::new(Reason::TooLarge {
            size: end - self.start,
            limit: self.limit,
        }))
    }

    /// Begins a container of so many values, keys included.
    fn enter(&mut self, depth: usize, values: usize) -> Result<(), Invalid> {
        self.containers += 1;
        if depth > MAX_DEPTH {
            return Err(Invalid::new(Reason::Depth));
        }
        if self.containers > MAX_CONTAINERS {
            return Err(Invalid::new(Reason::Containers));
        }
        // Every value takes at least one byte.
        self.fits(values)
    }

    fn value(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Invalid> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.text(text)?;
        } else if value.is_exact_instance_of::<PyInt>() {
            self.int(value)?;
        } else if value.is_none() {
            self.put(Marker::Null, &[]);
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            let truth = truth.is_true();
            self.put(if truth { Marker::True } else { Marker::False }, &[]);
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.put(Marker::F64, &number.value().to_be_bytes());
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            return self.dict(&dict.copy()?, depth);
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            return self.list(&list.get_slice(0, list.len()), depth);
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            self.binary(bytes)?;
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            return self.items(tuple.iter(), depth);
        } else {
            return self.subclass(value, depth);
        }
        self.fits(0)
    }

    /// A value whose type is a subclass of one that a message may hold, as that.
    fn subclass(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Invalid> {
        if let Ok(text) = value.cast::<PyString>() {
            self.text(text)?;
        } else if value.is_instance_of::<PyInt>() {
            self.int(value)?;
        } else if let Ok(number) = value.cast::<PyFloat>() {
            self.put(Marker::F64, &number.value().to_be_bytes());
        } else if let Some(bytes) = bytes_of(value)? {
            self.binary(&bytes)?;
        } else if let Ok(list) = value.cast::<PyList>() {
            return self.list(&list.get_slice(0, list.len()), depth);
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            return self.list(&tuple.to_list(), depth);
        } else if let Ok(dict) = value.cast::<PyDict>() {
            return self.dict(&plain_dict(dict)?, depth);
        } else {
            return Err(Invalid::new(Reason::Type(type_name(value))));
        }
        self.fits(0)
    }

    /// A dict that nobody else can change.
    fn dict(&mut self, own: &Bound<'_, PyDict>, depth: usize) -> Result<(), Invalid> {
        self.enter(depth, own.len().saturating_mul(2))?;
        match u8::try_from(own.len()) {
            Ok(short @ ..=15) => self.put(Marker::FixMap(short), &[]),
            _ => self.length(own.len(), &MAP),
        }
        for (key, value) in own {
            let at_key = |invalid: Invalid| invalid.at(Step::of(&key));
            self.key(&key, depth).map_err(at_key)?;
            self.value(&value, depth + 1).map_err(at_key)?;
        }
        self.fits(0)
    }

    fn key(&mut self, key: &Bound<'_, PyAny>, depth: usize) -> Result<(), Invalid> {
        if let Ok(text) = key.cast::<PyString>() {
            check_reserved(self.text(text)?, depth)
        } else if let Ok(bytes) = key.cast::<PyBytes>() {
            self.binary(bytes)
        } else {
            Err(Invalid::new(Reason::Key))
        }
    }

    /// A list that nobody else can change.
    fn list(&mut self, own: &Bound<'_, PyList>, depth: usize) -> Result<(), Invalid> {
        self.items(own.iter(), depth)
    }

    fn items<'py>(
        &mut self,
        items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
        depth: usize,
    ) -> Result<(), Invalid> {
        let length = items.len();
        self.enter(depth, length)?;
        match u8::try_from(length) {
            Ok(short @ ..=15) => self.put(Marker::FixArray(short), &[]),
            _ => self.length(length, &ARRAY),
        }
        for (index, item) in items.enumerate() {
            self.value(&item, depth + 1)
                .map_err(|invalid| invalid.at(Step::Index(index)))?;
        }
        self.fits(0)
    }

    fn text<'a>(&mut self, text: &'a Bound<'_, PyString>) -> Result<&'a str, Invalid> {
        let text = text
            .to_str()
            .map_err(|_| Invalid::new(Reason::Surrogates))?;
        match u8::try_from(text.len()) {
            Ok(short @ ..=31) => self.put(Marker::FixStr(short), &[]),
            _ => self.length(text.len(), &TEXT),
        }
        self.fits(text.len())?;
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(text)
    }

    fn binary(&mut self, binary: &Bound<'_, PyBytes>) -> Result<(), Invalid> {
        let binary = binary.as_bytes();
        self.length(binary.len(), &BINARY);
        self.fits(binary.len())?;
        self.bytes.extend_from_slice(binary);
        Ok(())
    }

    /// An integer in as few bytes as it takes: without a sign if it is not negative.
    fn int(&mut self, value: &Bound<'_, PyAny>) -> Result<(), Invalid> {
        let Ok(number) = value.extract::<i64>() else {
            let large: u64 = value.extract().map_err(|_| Invalid::new(Reason::Range))?;
            self.put(Marker::U64, &large.to_be_bytes());
            return Ok(());
        };
        let wide = number.to_be_bytes();
        let [.., b3, b2, b1, b0] = wide;
        match number {
            0..=0x7f => self.put(Marker::FixPos(b0), &[]),
            0x80..=0xff => self.put(Marker::U8, &[b0]),
            0x100..=0xffff => self.put(Marker::U16, &[b1, b0]),
            0x1_0000..=0xffff_ffff => self.put(Marker::U32, &[b3, b2, b1, b0]),
            0x1_0000_0000.. => self.put(Marker::U64, &wide),
            -0x20..=-1 => self.put(Marker::FixNeg(i8::from_be_bytes([b0])), &[]),
            -0x80..=-0x21 => self.put(Marker::I8, &[b0]),
            -0x8000..=-0x81 => self.put(Marker::I16, &[b1, b0]),
            -0x8000_0000..=-0x8001 => self.put(Marker::I32, &[b3, b2, b1, b0]),
            _ => self.put(Marker::I64, &wide),
        }
        Ok(())
    }

    /// The length of something that fits, and has no short form.
    fn length(&mut self, length: usize, lengths: &Lengths) {
        let Lengths(one, two, four) = *lengths;
        let [.., b3, b2, b1, b0] = length.to_be_bytes();
        match one {
            Some(one) if length <= 0xff => self.put(one, &[b0]),
            _ if length <= 0xffff => self.put(two, &[b1, b0]),
            _ => self.put(four, &[b3, b2, b1, b0]),
        }
    }

    fn put(&mut self, marker: Marker, operand: &[u8]) {
        self.bytes.push(marker.to_u8());
        self.bytes.extend_from_slice(operand);
    }
}
