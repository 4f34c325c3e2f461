//! How the layer sends.

use headrace_core::history::Stamp;
use headrace_core::name::NameKind;
use headrace_core::{Error, FanOut, SendError};
use pyo3::prelude::*;
use std::sync::atomic::Ordering;

use super::MemoryLayer;
use crate::arguments::{Exclude, Group, Outgoing, Pairs};
use crate::errors::to_python;
use crate::message::Message;
use crate::receiver::{Receiver, call_alarms, deliver};
use crate::stats::{SendReport, reached};

impl MemoryLayer {
    pub(super) fn message(&self, message: &Bound<'_, PyAny>) -> PyResult<Message> {
        let compared = self.compares_types.load(Ordering::Relaxed);
        Message::new(message, self.strict, compared)
    }

    /// Whether a group has a history.
    fn keeps(&self, group: &str) -> bool {
        self.histories.limits_of(group).is_some()
    }

    /// A message for a group that has a history.
    fn kept_message(&self, message: &Bound<'_, PyAny>) -> PyResult<Message> {
        let compared = self.compares_types.load(Ordering::Relaxed);
        Message::new_kept(message, self.strict, compared)
    }

    pub(super) fn group_send_past(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: &[&str],
    ) -> PyResult<SendReport> {
        self.first_group_send.note(py)?;
        if !self.histories.is_empty() && self.keeps(group.name()?) {
            return self.group_send_kept(py, group, message, exclude);
        }
        self.fan_out(py, group, self.message(message.value())?, exclude)
    }

    /// Sends a message whose `type` is read, because it may be one that no full mailbox refuses.
    pub(super) fn group_close_past(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: &[String],
    ) -> PyResult<SendReport> {
        self.first_group_send.note(py)?;
        let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
        let message = Message::new(message.value(), self.strict, true)?;
        self.fan_out(py, group, message, &exclude)
    }

    fn fan_out(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Message,
        exclude: &[&str],
    ) -> PyResult<SendReport> {
        let fan_out = self
            .engine
            .group_send(group.name()?, message, exclude)
            .map_err(to_python)?;
        deliver(py, &self.engine, fan_out.hand_offs)?;
        call_alarms(py, &self.engine)?;
        Ok(SendReport::of_memory(
            fan_out.report,
            reached(&fan_out.report),
        ))
    }

    fn group_send_kept(
        &self,
        py: Python<'_>,
        group: Group<'_, '_>,
        message: Outgoing<'_, '_>,
        exclude: &[&str],
    ) -> PyResult<SendReport> {
        let message = self.kept_message(message.value())?;
        let sent = self.engine.group_send_kept(group.name()?, message, exclude);
        let (FanOut { report, hand_offs }, stamp) = sent.map_err(to_python)?;
        deliver(py, &self.engine, hand_offs)?;
        call_alarms(py, &self.engine)?;
        Ok(SendReport::of_memory(report, reached(&report)).with_position(stamp))
    }

    pub(super) fn send_pairs(&self, py: Python<'_>, pairs: Pairs<'_, '_>) -> PyResult<SendReport> {
        let mut report = headrace_core::SendReport::default();
        let mut hand_offs = Vec::new();
        self.engine.check_open().map_err(to_python)?;
        for (channel, message) in
            pairs.read(NameKind::Channel, |_, message| self.message(message))?
        {
            match self.engine.send(&channel, message) {
                Ok(hand_off) => {
                    report.delivered += 1;
                    hand_offs.extend(hand_off);
                }
                Err(SendError::Full(_)) => report.dropped_full += 1,
                Err(SendError::Refused(..)) => report.dropped_other += 1,
            }
        }
        deliver(py, &self.engine, hand_offs)?;
        call_alarms(py, &self.engine)?;
        let reached = report.delivered + report.dropped_full;
        Ok(SendReport::of_memory(report, reached))
    }

    pub(super) fn group_send_pairs(
        &self,
        py: Python<'_>,
        pairs: Pairs<'_, '_>,
        exclude: Exclude<'_, '_>,
    ) -> PyResult<SendReport> {
        let exclude = exclude.channels()?;
        let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
        let mut report = headrace_core::SendReport::default();
        let mut processes = 0;
        let mut hand_offs = Vec::new();
        self.engine.check_open().map_err(to_python)?;
        let read = |group: &str, message: &Bound<'_, PyAny>| {
            if self.keeps(group) {
                self.kept_message(message)
            } else {
                self.message(message)
            }
        };
        for (group, message) in pairs.read(NameKind::Group, read)? {
            if let Ok((fan_out, _)) = self.group_send_one(&group, message, &exclude) {
                report += fan_out.report;
                processes += reached(&fan_out.report);
                hand_offs.extend(fan_out.hand_offs);
            }
        }
        deliver(py, &self.engine, hand_offs)?;
        call_alarms(py, &self.engine)?;
        Ok(SendReport::of_memory(report, processes))
    }

    fn group_send_one(
        &self,
        group: &str,
        message: Message,
        exclude: &[&str],
    ) -> Result<(FanOut<Message, Receiver>, Option<Stamp>), Error> {
        if self.keeps(group) {
            return self.engine.group_send_kept(group, message, exclude);
        }
        let fan_out = self.engine.group_send(group, message, exclude)?;
        Ok((fan_out, None))
    }
}
