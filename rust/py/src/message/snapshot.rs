//! The copy rules: a receiver never shares a container with the sender or with another receiver.
//!
//! One snapshot is taken when a message is sent, and each receiver is given a copy of it made in its own thread;
//! the last one is given the snapshot itself. Values that cannot change are shared, containers are copied here,
//! and everything else is left to `copy.deepcopy`. A message is treated as a tree: a list that stands in it twice
//! comes out as two lists.
//!
//! How many bytes a message counts in a mailbox is noted while its snapshot is taken, which looks at every value anyway.

use std::cell::Cell;
use std::sync::OnceLock;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple,
};

use super::invalid::{Invalid, Reason, Step};
use super::limits::{MAX_CONTAINERS, MAX_DEPTH, POSITION, RESERVED};
use super::plain::{
    bytes_of, check_reserved, dict_of, plain_dict, plain_int, plain_key, plain_text,
};
use super::prepared::{Chosen, Prepared};
use crate::errors::{InvalidMessage, show, type_name};
use crate::once::{Once, intern};

/// What each value counts besides the length of a text or of bytes: about what a small object takes with its place in a
/// container.
const VALUE_BYTES: usize = 32;

#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) value: Py<PyAny>,
    /// Holds nothing but values that are shared: one dict copy gives a receiver its own.
    pub(super) flat: bool,
    /// Its `type`, if that was asked for and is text. Behind one pointer, because most messages have none.
    pub(super) kind: Option<Box<Box<str>>>,
    /// How many bytes it counts in a mailbox; more than 4 GiB counts as that.
    pub(super) size: u32,
    /// Its frame, made for the first receiver that forwards it.
    pub(super) prepared: OnceLock<Box<Prepared>>,
}

impl Snapshot {
    /// Takes the snapshot. Its `type` is read if messages are to be compared by it.
    pub(super) fn take(message: &Bound<'_, PyAny>, strict: bool, compared: bool) -> PyResult<Self> {
        let dict = dict_of(message)?;
        let copier = Copier::new(strict);
        let is_plain = dict.is_exact_instance_of::<PyDict>();
        // Elsewhere the keys are walked, and the reserved one is found on the way, which is cheaper.
        if !(strict || is_plain) {
            for (name, key) in [
                (RESERVED, intern!(message.py(), RESERVED)),
                (POSITION, intern!(message.py(), POSITION)),
            ] {
                if dict.contains(key)? {
                    return Err(Invalid::new(Reason::Reserved(name)).into_error(message));
                }
            }
        }
        let (copy, flat) = if is_plain {
            let (copy, flat) = copier
                .dict(dict, 1)
                .map_err(|invalid| invalid.into_error(message))?;
            (copy.into_any(), flat)
        } else {
            let copy = copier
                .value(message, 1)
                .map_err(|invalid| invalid.into_error(message))?;
            (as_dict(copy)?, false)
        };
        let kind = if compared { kind_of(&copy)? } else { None };
        Ok(Self {
            value: copy.unbind(),
            flat,
            kind,
            size: u32::try_from(copier.bytes.get()).unwrap_or(u32::MAX),
            prepared: OnceLock::new(),
        })
    }

    /// The frame with which receivers that choose so forward it; `None` if they do not, or it has no payload.
    pub(super) fn frame<'py>(
        &self,
        chosen: &Chosen<'_, 'py>,
        window: Option<u8>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let py = chosen.py();
        if let Some(prepared) = self.prepared.get() {
            match prepared.is_for(chosen)? {
                Some(true) => return prepared.frame(py, window).map(Some),
                Some(false) => {}
                None => return Ok(None),
            }
        }
        let Some(prepared) = Prepared::new(self.value.bind(py), chosen)? else {
            return Ok(None);
        };
        let frame = prepared.frame(py, window)?;
        // Of two that are made at a time, or for two fields, the first is kept.
        drop(self.prepared.set(Box::new(prepared)));
        Ok(Some(frame))
    }

    /// All that it holds of Python's.
    pub(super) fn into_objects(self) -> Vec<Py<PyAny>> {
        let mut objects = vec![self.value];
        if let Some(prepared) = self.prepared.into_inner() {
            objects.extend(prepared.into_objects());
        }
        objects
    }

    /// A receiver's own copy.
    pub(super) fn copy(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        copy_of(self.value.bind(py), self.flat).map(Bound::unbind)
    }
}

/// A copy of the value of a snapshot.
#[inline]
pub(super) fn copy_of<'py>(value: &Bound<'py, PyAny>, flat: bool) -> PyResult<Bound<'py, PyAny>> {
    match value.cast_exact::<PyDict>() {
        Ok(dict) if flat => Ok(dict.copy()?.into_any()),
        _ => {
            let copy = Copier::of_snapshot().value(value, 1);
            as_dict(copy.map_err(|invalid| invalid.into_error(value))?)
        }
    }
}

/// The `type` of a message, if that is text. Looking for it may run Python, to compare a key.
fn kind_of(message: &Bound<'_, PyAny>) -> PyResult<Option<Box<Box<str>>>> {
    let Ok(dict) = message.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    let kind = dict.get_item(intern!(message.py(), "type"))?;
    let kind = kind.and_then(|kind| kind.cast_into_exact::<PyString>().ok());
    Ok(kind.and_then(|kind| kind.to_str().ok().map(|kind| Box::new(kind.into()))))
}

/// The copy of a message whose type has a way of its own to be copied.
fn as_dict(copy: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if copy.is_instance_of::<PyDict>() {
        return Ok(copy);
    }
    let text = format!(
        "Message is not a dict once it is copied, but {}",
        show(&copy)
    );
    Err(InvalidMessage::new_err(text))
}

struct Copier {
    /// Accept only what the specification of channel layers lets a message hold, and make it so plain that every engine
    /// can carry it: tuples become lists, subclasses their base.
    strict: bool,
    /// Refuse text that UTF-8 cannot carry. A receiver could not send it to its client: one sender could end the connections
    /// of all others.
    checks_text: bool,
    /// How many containers were copied.
    containers: Cell<usize>,
    /// How many bytes the copy counts.
    bytes: Cell<usize>,
}

impl Copier {
    fn new(strict: bool) -> Self {
        Self {
            strict,
            checks_text: true,
            containers: Cell::new(0),
            bytes: Cell::new(VALUE_BYTES),
        }
    }

    /// For a snapshot, which was checked when it was taken.
    fn of_snapshot() -> Self {
        Self {
            checks_text: false,
            ..Self::new(false)
        }
    }

    /// Counts a container about to be copied, with so many values in it, keys included.
    fn enter(&self, depth: usize, values: usize) -> Result<(), Invalid> {
        self.containers.set(self.containers.get() + 1);
        self.count(values * VALUE_BYTES);
        if depth > MAX_DEPTH {
            return Err(Invalid::new(Reason::Depth));
        }
        if self.containers.get() > MAX_CONTAINERS {
            return Err(Invalid::new(Reason::Containers));
        }
        Ok(())
    }

    fn count(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn value<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        depth: usize,
    ) -> Result<Bound<'py, PyAny>, Invalid> {
        if self.shares(value)? {
            return Ok(value.clone());
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return self.dict(dict, depth).map(|(copy, _)| copy.into_any());
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            let copy = list.get_slice(0, list.len());
            return self.list(copy, depth).map(Bound::into_any);
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            return self.tuple(tuple, depth);
        }
        if self.strict {
            return self.plain(value, depth);
        }
        if value.is_exact_instance_of::<PyMemoryView>() {
            // It cannot be copied, and what it shows may change.
            let Some(bytes) = bytes_of(value)? else {
                return Ok(value.clone());
            };
            self.count(bytes.as_bytes().len());
            return Ok(bytes.into_any());
        }
        if let Ok(text) = value.cast::<PyString>() {
            self.check_text(text)?;
            return deepcopy(value);
        }
        let copy = deepcopy(value)?;
        if self.checks_text {
            self.count(size_of_object(&copy));
        }
        Ok(copy)
    }

    /// Whether the copies share the value: it cannot change and cannot hold anything that can. If so, its bytes are counted.
    fn shares(&self, value: &Bound<'_, PyAny>) -> Result<bool, Invalid> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.check_text(text)?;
            return Ok(true);
        }
        if value.is_exact_instance_of::<PyInt>() {
            if self.strict {
                plain_int(value)?;
            } else if self.checks_text && value.extract::<i64>().is_err() {
                self.count(size_of_object(value));
            }
            return Ok(true);
        }
        if value.is_none()
            || value.is_exact_instance_of::<PyBool>()
            || value.is_exact_instance_of::<PyFloat>()
        {
            return Ok(true);
        }
        let Ok(bytes) = value.cast_exact::<PyBytes>() else {
            return Ok(false);
        };
        self.count(bytes.as_bytes().len());
        Ok(true)
    }

    fn check_text(&self, text: &Bound<'_, PyString>) -> Result<(), Invalid> {
        if self.checks_text {
            self.text(text)?;
        }
        Ok(())
    }

    /// A text as UTF-8, counted.
    fn text<'a>(&self, text: &'a Bound<'_, PyString>) -> Result<&'a str, Invalid> {
        let text = text
            .to_str()
            .map_err(|_| Invalid::new(Reason::Surrogates))?;
        self.count(text.len());
        Ok(text)
    }

    fn check_key(&self, key: &Bound<'_, PyAny>, depth: usize) -> Result<(), Invalid> {
        match key.cast::<PyString>() {
            Ok(text) if self.checks_text => check_reserved(self.text(text)?, depth),
            _ => Ok(()),
        }
    }

    /// Copies a dict, and returns whether it holds nothing but shared values. The copy is walked, not the original: nobody
    /// else can change it meanwhile. Values are replaced after the walk, so that the comparison of a key cannot disturb it.
    fn dict<'py>(
        &self,
        dict: &Bound<'py, PyDict>,
        depth: usize,
    ) -> Result<(Bound<'py, PyDict>, bool), Invalid> {
        self.enter(depth, dict.len() * 2)?;
        if self.strict {
            return self.strict_dict(dict, depth).map(|copy| (copy, false));
        }
        let copy = dict.copy()?;
        let mut flat = true;
        let mut replaced = Vec::new();
        for (key, value) in &copy {
            let at_key = |invalid: Invalid| invalid.at(Step::of(&key));
            self.check_key(&key, depth).map_err(at_key)?;
            if self.shares(&value).map_err(at_key)? {
                continue;
            }
            flat = false;
            let own = self.value(&value, depth + 1).map_err(at_key)?;
            if !own.is(&value) {
                replaced.push((key, own));
            }
        }
        for (key, own) in replaced {
            copy.set_item(key, own)?;
        }
        Ok((copy, flat))
    }

    /// A dict of plain keys and plain values.
    fn strict_dict<'py>(
        &self,
        dict: &Bound<'py, PyDict>,
        depth: usize,
    ) -> Result<Bound<'py, PyDict>, Invalid> {
        let plain = PyDict::new(dict.py());
        // Walked in a copy: to copy a value may run code that changes the original.
        for (key, value) in &dict.copy()? {
            let at_key = |invalid: Invalid| invalid.at(Step::of(&key));
            let own = plain_key(&key).map_err(at_key)?;
            self.shares(&own).map_err(at_key)?;
            if let Ok(text) = own.cast::<PyString>() {
                check_reserved(text.to_str()?, depth)?;
            }
            plain.set_item(own, self.value(&value, depth + 1).map_err(at_key)?)?;
        }
        Ok(plain)
    }

    /// Gives a list, which is this function's own already, its own values.
    fn list<'py>(
        &self,
        copy: Bound<'py, PyList>,
        depth: usize,
    ) -> Result<Bound<'py, PyList>, Invalid> {
        self.enter(depth, copy.len())?;
        for index in 0..copy.len() {
            let value = copy.get_item(index)?;
            let own = self
                .value(&value, depth + 1)
                .map_err(|invalid| invalid.at(Step::Index(index)))?;
            if !own.is(&value) {
                copy.set_item(index, own)?;
            }
        }
        Ok(copy)
    }

    fn tuple<'py>(
        &self,
        tuple: &Bound<'py, PyTuple>,
        depth: usize,
    ) -> Result<Bound<'py, PyAny>, Invalid> {
        if self.strict {
            return self.list(tuple.to_list(), depth).map(Bound::into_any);
        }
        let bytes = self.bytes.get();
        for (index, value) in tuple.iter().enumerate() {
            let shared = self.shares(&value);
            if !shared.map_err(|invalid| invalid.at(Step::Index(index)))? {
                // They are all looked at again.
                self.bytes.set(bytes);
                return Ok(self.list(tuple.to_list(), depth)?.to_tuple().into_any());
            }
        }
        self.enter(depth, tuple.len())?;
        Ok(tuple.clone().into_any())
    }

    /// The plain form of a value whose type is a subclass of one that a message may hold.
    fn plain<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        depth: usize,
    ) -> Result<Bound<'py, PyAny>, Invalid> {
        let py = value.py();
        let plain = if let Ok(text) = value.cast::<PyString>() {
            plain_text(text)?
        } else if value.is_instance_of::<PyInt>() {
            plain_int(value)?
        } else if let Ok(number) = value.cast::<PyFloat>() {
            PyFloat::new(py, number.value()).into_any()
        } else if let Some(bytes) = bytes_of(value)? {
            PyBytes::new(py, bytes.as_bytes()).into_any()
        } else if let Ok(list) = value.cast::<PyList>() {
            return self
                .list(list.get_slice(0, list.len()), depth)
                .map(Bound::into_any);
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            return self.list(tuple.to_list(), depth).map(Bound::into_any);
        } else if let Ok(dict) = value.cast::<PyDict>() {
            let plain = plain_dict(dict)?;
            return self.dict(&plain, depth).map(|(copy, _)| copy.into_any());
        } else {
            return Err(Invalid::new(Reason::Type(type_name(value))));
        };
        self.shares(&plain)?;
        Ok(plain)
    }
}

/// What the `__sizeof__` of an object returns: its size without what it refers to. 0 if it returns no size.
fn size_of_object(value: &Bound<'_, PyAny>) -> usize {
    let size = value.call_method0(intern!(value.py(), "__sizeof__"));
    size.and_then(|size| size.extract()).unwrap_or(0)
}

fn deepcopy<'py>(value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Invalid> {
    static DEEPCOPY: Once<Py<PyAny>> = Once::new();
    let deepcopy = DEEPCOPY.import(value.py(), "copy", "deepcopy")?;
    deepcopy.call1((value,)).map_err(|error| {
        if error.is_instance_of::<PyException>(value.py()) {
            Invalid::new(Reason::Uncopyable(type_name(value), error))
        } else {
            Invalid::from(error)
        }
    })
}
