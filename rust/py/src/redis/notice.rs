//! The notices of the engine to the owner of a layer, each as a dict with the key "kind".

use headrace_core::redis::Notice;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn to_python(py: Python<'_>, notice: Notice) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    match notice {
        Notice::Disconnected { reason } => {
            dict.set_item("kind", "disconnected")?;
            dict.set_item("reason", reason)?;
        }
        Notice::Reconnected => dict.set_item("kind", "reconnected")?,
        Notice::ClockSet {
            server,
            milliseconds,
        } => {
            dict.set_item("kind", "clock set")?;
            dict.set_item("server", server)?;
            dict.set_item("milliseconds", milliseconds)?;
        }
        Notice::Unsent { messages, reason } => {
            dict.set_item("kind", "unsent")?;
            dict.set_item("messages", messages)?;
            dict.set_item("reason", reason)?;
        }
        Notice::Late => dict.set_item("kind", "late")?,
        Notice::Oversized {
            place,
            bytes,
            limit,
        } => {
            dict.set_item("kind", "oversized")?;
            dict.set_item("place", place)?;
            dict.set_item("bytes", bytes)?;
            dict.set_item("limit", limit)?;
        }
        Notice::QueueExpired { channel } => {
            dict.set_item("kind", "queue expired")?;
            dict.set_item("channel", channel)?;
        }
        Notice::Refused {
            place,
            sender,
            reason,
            counter,
        } => {
            dict.set_item("kind", "refused")?;
            dict.set_item("place", place)?;
            dict.set_item("sender", sender)?;
            dict.set_item("reason", reason)?;
            dict.set_item("counter", counter)?;
        }
        Notice::Gap {
            groups,
            direct,
            missed,
        } => {
            dict.set_item("kind", "gap")?;
            dict.set_item("direct", direct)?;
            dict.set_item("groups", groups)?;
            dict.set_item("missed", missed)?;
        }
    }
    Ok(dict)
}
