//! The one place where errors of the core become Python's.

use headrace_core::name::NameKind;
use headrace_core::redis::{Fault, FaultKind};
use headrace_core::{Error, InvalidName, SendError};
use pyo3::exceptions::{
    PyConnectionError, PyConnectionRefusedError, PyConnectionResetError, PyPermissionError,
    PyTimeoutError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::once::Once;

mod python {
    pyo3::import_exception!(headrace.exceptions, ChannelEmpty);
    pyo3::import_exception!(headrace.exceptions, _ChannelFull);
    pyo3::import_exception!(headrace.exceptions, ForeignChannel);
    pyo3::import_exception!(headrace.exceptions, InvalidMessage);
    pyo3::import_exception!(headrace.exceptions, LayerClosed);
    pyo3::import_exception!(headrace.exceptions, LayerUnavailable);
    pyo3::import_exception!(headrace.exceptions, MessageTooLarge);
}
// What is raised: Channels' class where there is one, and a `LayerError` as well.
pub(crate) use python::_ChannelFull as ChannelFull;
pub(crate) use python::{
    ChannelEmpty, ForeignChannel, InvalidMessage, LayerClosed, LayerUnavailable, MessageTooLarge,
};

pub(crate) fn to_python(error: Error) -> PyErr {
    match error {
        Error::InvalidName(invalid) => PyTypeError::new_err(invalid.to_string()),
        Error::Closed => layer_closed(),
    }
}

pub(crate) fn send_to_python<M>(error: SendError<M>, channel: &str) -> PyErr {
    match error {
        SendError::Full(_) => ChannelFull::new_err(channel.to_owned()),
        SendError::Refused(error, _) => to_python(error),
    }
}

/// The error for a request that did not reach the server, or was refused there. Its cause is what led to it, or else what it
/// was.
pub(crate) fn fault_to_python(py: Python<'_>, fault: &Fault) -> PyErr {
    let class = match (fault.kind(), fault.cause()) {
        (FaultKind::Closed, None) => return layer_closed(),
        (FaultKind::Closed, Some(_)) => py.get_type::<LayerClosed>(),
        _ => py.get_type::<LayerUnavailable>(),
    };
    let cause = fault.cause().unwrap_or(fault);
    let cause_class = match cause.kind() {
        FaultKind::Timeout => py.get_type::<PyTimeoutError>(),
        FaultKind::Lost => py.get_type::<PyConnectionResetError>(),
        FaultKind::Refused => py.get_type::<PyConnectionRefusedError>(),
        FaultKind::Lacking => py.get_type::<PyPermissionError>(),
        _ => py.get_type::<PyConnectionError>(),
    };
    let cause = made(&cause_class, &cause.to_string());
    with_cause(&class, &fault.to_string(), cause)
}

/// An error whose exception object is made at once. PyO3 makes that of any other when it is first looked at, and panics if
/// that is at the end of the interpreter.
fn made(class: &Bound<'_, PyType>, text: &str) -> PyErr {
    class
        .call1((text,))
        .map_or_else(|error| error, PyErr::from_value)
}

/// An error with a cause, whose exception object is made already.
pub(crate) fn with_cause(class: &Bound<'_, PyType>, text: &str, cause: PyErr) -> PyErr {
    let error = made(class, text);
    error.set_cause(class.py(), Some(cause));
    error
}

/// The error for a receive from a channel with a `!` that this layer has not made.
pub(crate) fn foreign_channel(channel: &str, owner: &str) -> PyErr {
    ForeignChannel::new_err(format!(
        "nothing comes here for '{channel}': a name with a '!' is of the process that made it, and those of this one \
         have '{owner}!' in them; receive from what new_channel() gives, or from a name without a '!'"
    ))
}

/// The error for a channel that is shown as present and that this layer has not made.
pub(crate) fn not_own(channel: &str, owner: &str) -> PyErr {
    ForeignChannel::new_err(format!(
        "'{channel}' is no channel of this process, whose names have '{owner}!' in them: who is present is said by the \
         process that has the channel, for what its new_channel() gave"
    ))
}

/// The error of what needs a presence for a group that has none.
pub(crate) fn no_presence(group: &str) -> PyErr {
    PyValueError::new_err(format!(
        "the group '{group}' has no presence: no glob of the layer's setting 'presence' fits its name"
    ))
}

pub(crate) fn layer_closed() -> PyErr {
    LayerClosed::new_err("the layer is closed: make a new one")
}

/// The error for a name that is no `str`, or a `str` that is no text.
pub(crate) fn not_text(kind: NameKind, name: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(InvalidName::not_text(kind, show(name)).to_string())
}

/// A value as an error shows it: its type and its repr, in short. There is always something to show.
pub(crate) fn show(value: &Bound<'_, PyAny>) -> String {
    static REPR: Once<Py<PyAny>> = Once::new();
    let repr = REPR
        .import(value.py(), "reprlib", "repr")
        .and_then(|repr| repr.call1((value,)));
    match repr {
        Ok(repr) => format!("{} {}", type_name(value), repr),
        Err(_) => format!("{} that cannot be shown", type_name(value)),
    }
}

pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().name();
    name.map_or_else(|_| "object".to_owned(), |name| name.to_string())
}

/// The error of what needs a history for a group that has none.
pub(crate) fn no_history(group: &str) -> PyErr {
    PyValueError::new_err(format!(
        "the group '{group}' has no history: no glob of the layer's setting 'history' fits its name"
    ))
}
