//! The names, messages and lists that Python gives, as the types of arguments.
//!
//! An argument is checked where the method asks for its value, and not while it is converted: PyO3 would put the
//! argument's name before the text of the error.

use std::convert::Infallible;
use std::sync::Arc;

use headrace_core::history::{self, Position};
use headrace_core::name::NameKind;
use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
#[cfg(feature = "stubs")]
use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyString, PyTuple};
#[cfg(feature = "stubs")]
use pyo3::{type_hint_identifier, type_hint_subscript, type_hint_union};

use crate::errors::{not_text, show, to_python};

/// Defines the type of an argument, with the type that the stub is to show.
macro_rules! argument {
    ($(#[$doc:meta])* $name:ident: $hint:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name<'a, 'py>(Borrowed<'a, 'py, PyAny>);

        impl<'a, 'py> FromPyObject<'a, 'py> for $name<'a, 'py> {
            type Error = Infallible;

            #[cfg(feature = "stubs")]
            const INPUT_TYPE: PyStaticExpr = $hint;

            fn extract(given: Borrowed<'a, 'py, PyAny>) -> Result<Self, Self::Error> {
                Ok(Self(given))
            }
        }
    };
}

argument! {
    /// The name of a channel.
    Channel: type_hint_identifier!("builtins", "str")
}

argument! {
    /// The name of a group.
    Group: type_hint_identifier!("builtins", "str")
}

argument! {
    /// A message that is to be sent.
    Outgoing: type_hint_subscript!(
        type_hint_identifier!("collections.abc", "Mapping"),
        type_hint_identifier!("builtins", "str"),
        type_hint_identifier!("builtins", "object")
    )
}

argument! {
    /// The channels that a send to a group passes by: one name, or any iterable of names.
    Exclude: type_hint_identifier!("typing", "Any")
}

argument! {
    /// Pairs of a name and a message.
    Pairs: type_hint_identifier!("typing", "Any")
}

argument! {
    /// Where to begin in the stream of a group: a position, or how many of the newest messages.
    Since: type_hint_union!(
        type_hint_identifier!("builtins", "str"),
        type_hint_identifier!("builtins", "int")
    )
}

impl Since<'_, '_> {
    /// Reads it for this group. Any text that is no position of the group is "not complete", and no error.
    pub(crate) fn read(self, group: &str) -> PyResult<history::Since> {
        if let Ok(text) = self.0.cast::<PyString>() {
            // Half of a surrogate pair is in no position.
            let position = text.to_str().ok();
            let position = position.and_then(|text| Position::decode(group, text));
            return Ok(history::Since::Position(position));
        }
        if self.0.is_instance_of::<PyInt>() && !self.0.is_instance_of::<PyBool>() {
            if self.0.lt(0)? {
                let got = show(&self.0);
                let text = format!("since must not be a negative number of messages, got {got}");
                return Err(PyValueError::new_err(text));
            }
            let newest = self.0.extract().unwrap_or(usize::MAX);
            return Ok(history::Since::Newest(newest));
        }
        let got = show(&self.0);
        Err(PyTypeError::new_err(format!(
            "since must be a position (str), or a number of messages (int), got {got}"
        )))
    }
}

impl<'py> Channel<'_, 'py> {
    /// The name, whether or not it is a valid one: an engine checks each that it does not know.
    pub(crate) fn name(&self) -> PyResult<&str> {
        name(&self.0, NameKind::Channel)
    }

    /// As `name`, with the object that holds it.
    pub(crate) fn text(&self) -> PyResult<(&Bound<'py, PyString>, &str)> {
        let text = text(&self.0, NameKind::Channel)?;
        let name = text.to_str();
        Ok((
            text,
            name.map_err(|_| not_text(NameKind::Channel, &self.0))?,
        ))
    }

    /// The name, if it is a valid one.
    pub(crate) fn valid_name(&self) -> PyResult<&str> {
        valid(&self.0, NameKind::Channel)
    }
}

impl Group<'_, '_> {
    /// The name, whether or not it is a valid one: an engine checks each that it does not know.
    pub(crate) fn name(&self) -> PyResult<&str> {
        name(&self.0, NameKind::Group)
    }
}

impl<'py> Outgoing<'_, 'py> {
    /// Whatever was given: it is checked when it is copied or encoded.
    pub(crate) fn value(&self) -> &Bound<'py, PyAny> {
        &self.0
    }
}

impl Exclude<'_, '_> {
    /// Whether it is anything else than the empty tuple, which stands for nothing.
    pub(crate) fn is_given(self) -> bool {
        !self.0.cast::<PyTuple>().is_ok_and(|names| names.is_empty())
    }

    /// The channels, whose names are valid.
    pub(crate) fn channels(self) -> PyResult<Vec<String>> {
        let channel = |name: &Bound<'_, PyAny>| valid(name, NameKind::Channel).map(str::to_owned);
        if !self.is_given() {
            return Ok(Vec::new());
        }
        if self.0.is_instance_of::<PyString>() {
            return Ok(vec![channel(&self.0)?]);
        }
        let names = self.0.try_iter().map_err(|_| {
            let got = show(&self.0);
            PyTypeError::new_err(format!("exclude is a channel or several, got {got}"))
        })?;
        names.map(|name| channel(&name?)).collect()
    }
}

impl Pairs<'_, '_> {
    /// All pairs, before the first is used; `read` converts a message to a name.
    pub(crate) fn read<M>(
        self,
        kind: NameKind,
        read: impl Fn(&str, &Bound<'_, PyAny>) -> PyResult<M>,
    ) -> PyResult<Vec<(String, M)>> {
        let no_pairs = |got: &Bound<'_, PyAny>| {
            let got = show(got);
            PyTypeError::new_err(format!(
                "pairs are tuples of a name and a message, got {got}"
            ))
        };
        let mut all = Vec::new();
        for pair in self.0.try_iter().map_err(|_| no_pairs(&self.0))? {
            let pair = pair?;
            let (name, message): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                pair.extract().map_err(|_| no_pairs(&pair))?;
            let name = valid(&name, kind)?;
            all.push((name.to_owned(), read(name, &message)?));
        }
        Ok(all)
    }
}

fn text<'a, 'py>(
    given: &'a Bound<'py, PyAny>,
    kind: NameKind,
) -> PyResult<&'a Bound<'py, PyString>> {
    given.cast().map_err(|_| not_text(kind, given))
}

fn name<'a>(given: &'a Bound<'_, PyAny>, kind: NameKind) -> PyResult<&'a str> {
    let text = text(given, kind)?;
    text.to_str().map_err(|_| not_text(kind, given))
}

fn valid<'a>(given: &'a Bound<'_, PyAny>, kind: NameKind) -> PyResult<&'a str> {
    let name = name(given, kind)?;
    let checked = kind.check(name);
    checked.map_err(|invalid| to_python(invalid.into()))?;
    Ok(name)
}

/// Names of channels or groups as Python gets them.
pub(crate) fn to_strings(names: Vec<Arc<str>>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
