//! The one place where errors of the core become Python's.

use headrace_core::name::NameKind;
use headrace_core::{Error, InvalidName, SendError};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

mod python {
    pyo3::import_exception!(headrace.exceptions, ChannelEmpty);
    pyo3::import_exception!(headrace.exceptions, ChannelFull);
    pyo3::import_exception!(headrace.exceptions, InvalidMessage);
    pyo3::import_exception!(headrace.exceptions, LayerClosed);
}
pub(crate) use python::{ChannelEmpty, ChannelFull, InvalidMessage, LayerClosed};

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

pub(crate) fn layer_closed() -> PyErr {
    LayerClosed::new_err("the layer is closed: make a new one, or close it later")
}

/// The error for a name that is no `str`, or a `str` that is no text.
pub(crate) fn not_text(kind: NameKind, name: &Bound<'_, PyAny>) -> PyErr {
    let kind_of = match name.get_type().name() {
        Ok(name) => name.to_string(),
        Err(_) => "an object".to_owned(),
    };
    let repr = name.repr().map_or_else(
        |_| "?".to_owned(),
        |repr| repr.to_string_lossy().into_owned(),
    );
    PyTypeError::new_err(InvalidName::not_text(kind, format!("{kind_of} {repr}")).to_string())
}
