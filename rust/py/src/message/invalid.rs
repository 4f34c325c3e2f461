//! Why a message was refused, and where: the same text whether it is copied or encoded.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::limits::{MAX_CONTAINERS, MAX_DEPTH, RESERVED};
use crate::errors::{InvalidMessage, MessageTooLarge, with_cause};

/// A message that is refused. The path is collected from the inside out, while the error is returned.
pub(super) struct Invalid {
    path: Vec<Step>,
    reason: Reason,
}

pub(super) enum Step {
    Key(String),
    Index(usize),
}

pub(super) enum Reason {
    Containers,
    Depth,
    Key,
    Range,
    Reserved(&'static str),
    Surrogates,
    TooLarge { size: usize, limit: usize },
    Type(String),
    Uncopyable(String, PyErr),
    Python(PyErr),
}

impl Step {
    pub(super) fn of(key: &Bound<'_, PyAny>) -> Self {
        let repr = key.repr().map(|repr| repr.to_string_lossy().into_owned());
        Self::Key(repr.unwrap_or_else(|_| "?".to_owned()))
    }
}

impl From<PyErr> for Invalid {
    fn from(error: PyErr) -> Self {
        Self::new(Reason::Python(error))
    }
}

impl Invalid {
    pub(super) fn new(reason: Reason) -> Self {
        Self {
            path: Vec::new(),
            reason,
        }
    }

    pub(super) fn at(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    fn path(&self, steps: usize) -> String {
        let outermost_first = self.path.iter().rev().take(steps);
        outermost_first.fold("message".to_owned(), |path, step| match step {
            Step::Key(key) => format!("{path}[{key}]"),
            Step::Index(index) => format!("{path}[{index}]"),
        })
    }

    pub(super) fn into_error(self, message: &Bound<'_, PyAny>) -> PyErr {
        let path = self.path(MAX_DEPTH);
        match self.reason {
            Reason::Containers => PyValueError::new_err(format!(
                "{path}: more than {MAX_CONTAINERS} containers; one that stands in many places is copied for each"
            )),
            Reason::Depth => PyValueError::new_err(self.depth_text(message)),
            Reason::Key => {
                PyTypeError::new_err(format!("{path}: a key is neither a str nor bytes"))
            }
            Reason::Range => PyValueError::new_err(format!(
                "{path}: the integer is not between -2**63 and 2**64 - 1"
            )),
            Reason::Reserved(key) if key == RESERVED => InvalidMessage::new_err(format!(
                "message['{key}']: this key is reserved for layers that carry messages between processes; use another"
            )),
            Reason::Reserved(key) => InvalidMessage::new_err(format!(
                "message['{key}']: this key is reserved for the position that a message of a group with a history is received \
                 with; take it out of a message that is sent on"
            )),
            Reason::Surrogates => PyValueError::new_err(format!(
                "{path}: the text has lone surrogates, which UTF-8 cannot carry"
            )),
            Reason::TooLarge { size, limit } => MessageTooLarge::new_err(format!(
                "the message takes at least {size} bytes, and the limit is {limit}: store what is large and send its key or \
                 URL, or raise the limit of the layer"
            )),
            Reason::Type(kind) => PyTypeError::new_err(format!(
                "{path}: {kind} is not serialisable; a strict layer takes dict, list, str, bytes, bytearray, memoryview, int, \
                 float, bool and None"
            )),
            Reason::Uncopyable(kind, cause) => {
                let text = format!("{path}: {kind} cannot be copied: {cause}");
                with_cause(&message.py().get_type::<PyTypeError>(), &text, cause)
            }
            Reason::Python(error) => error,
        }
    }

    /// Nesting too deep is most often a container that holds itself; then the text shows the path to it.
    fn depth_text(&self, message: &Bound<'_, PyAny>) -> String {
        match self.first_repetition(message) {
            Some(steps) => format!(
                "{}: the container holds itself; a message is a tree",
                self.path(steps)
            ),
            None => format!(
                "{}...: containers are nested deeper than {MAX_DEPTH}; send a flatter message",
                self.path(4)
            ),
        }
    }

    /// After how many steps of the path a container stands that was met before.
    fn first_repetition(&self, message: &Bound<'_, PyAny>) -> Option<usize> {
        let mut met = vec![message.clone()];
        for (taken, step) in self.path.iter().rev().enumerate() {
            let here = met.last()?;
            let next = match step {
                Step::Index(index) => here.get_item(index).ok()?,
                Step::Key(repr) => {
                    let dict = here.cast::<PyDict>().ok()?;
                    let items = dict.copy().ok()?;
                    let mut items = items.iter();
                    let same = |key: &Bound<'_, PyAny>| {
                        key.repr().is_ok_and(|key| key.to_string_lossy() == *repr)
                    };
                    items.find_map(|(key, value)| same(&key).then_some(value))?
                }
            };
            if met.iter().any(|container| container.is(&next)) {
                return Some(taken + 1);
            }
            met.push(next);
        }
        None
    }
}
