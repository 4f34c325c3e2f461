//! What the engine has to tell the owner of a layer, as a dict with the key "kind".

use headrace_core::redis::Notice;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn to_python(py: Python<'_>, notice: Notice) -> PyResult<Bound<'_, PyDict>> {
    let told = PyDict::new(py);
    match notice {
        Notice::Disconnected { reason } => {
            told.set_item("kind", "disconnected")?;
            told.set_item("reason", reason)?;
        }
        Notice::Reconnected => told.set_item("kind", "reconnected")?,
        Notice::ClockSet {
            server,
            milliseconds,
        } => {
            told.set_item("kind", "clock set")?;
            told.set_item("server", server)?;
            told.set_item("milliseconds", milliseconds)?;
        }
        Notice::Unsent { messages, reason } => {
            told.set_item("kind", "unsent")?;
            told.set_item("messages", messages)?;
            told.set_item("reason", reason)?;
        }
        Notice::Late => told.set_item("kind", "late")?,
        Notice::Oversized {
            place,
            bytes,
            limit,
        } => {
            told.set_item("kind", "oversized")?;
            told.set_item("place", place)?;
            told.set_item("bytes", bytes)?;
            told.set_item("limit", limit)?;
        }
        Notice::QueueExpired { channel } => {
            told.set_item("kind", "queue expired")?;
            told.set_item("channel", channel)?;
        }
        Notice::Refused {
            place,
            sender,
            reason,
            counter,
        } => {
            told.set_item("kind", "refused")?;
            told.set_item("place", place)?;
            told.set_item("sender", sender)?;
            told.set_item("reason", reason)?;
            told.set_item("counter", counter)?;
        }
        Notice::Gap {
            groups,
            direct,
            missed,
        } => {
            told.set_item("kind", "gap")?;
            told.set_item("direct", direct)?;
            told.set_item("groups", groups)?;
            told.set_item("missed", missed)?;
        }
    }
    Ok(told)
}
