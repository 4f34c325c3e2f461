//! Messages on their way into the local mailboxes, and what is told of those that are missing.

use super::context::Context;
use super::refusals::{NO_NAME, Origin};
use crate::error::SendError;
use crate::handoff::HandOff;
use crate::history::{Position, Stamp, Stamped};
use crate::redis::host::{Host, RawMessage};
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::Payload;
use crate::redis::wire::keys::{Topic, process_of};
use crate::redis::wire::payload::{self, Shape};
use crate::redis::wire::system_message;

/// What the local engine returns for a message.
type Sent<H> = Result<
    Option<HandOff<<H as Host>::Message, <H as Host>::Waiter>>,
    SendError<<H as Host>::Message>,
>;

/// What an envelope adds to a message at most: its header, and the names of excluded channels.
pub(super) const ENVELOPE: usize = 64 * 1024;

/// The origin of messages from this process to its own channels.
const ITSELF: Origin<'_> = Origin {
    place: "this process",
    sender: None,
};

impl<H: Host> Context<H> {
    /// Refuses a message for what is in it.
    pub(super) fn refuse_content(&mut self, from: Origin<'_>, kind: &'static str, detail: &str) {
        self.refusals
            .refuse_content(&self.shared, from, kind, detail);
    }

    /// Whether a payload is a message.
    pub(super) fn is_message(&mut self, payload: &Payload, from: Origin<'_>) -> bool {
        self.inspected(payload, from).is_some()
    }

    /// A message of a history, which stands there.
    pub(super) fn message_at(
        &mut self,
        payload: Payload,
        from: Origin<'_>,
        stamp: Stamp,
    ) -> Option<H::Message> {
        let message = self.message(payload, from)?;
        message.stamp(stamp);
        Some(message)
    }

    fn message(&mut self, payload: Payload, from: Origin<'_>) -> Option<H::Message> {
        let Shape { kind } = self.inspected(&payload, from)?;
        Some(self.host.message(RawMessage {
            payload: payload.into_bytes(),
            kind,
        }))
    }

    /// Checks a payload, so that a receiver can decode it without an error.
    fn inspected(&mut self, payload: &Payload, from: Origin<'_>) -> Option<Shape> {
        let bytes = payload.as_bytes().len();
        if bytes > self.settings.max_message_bytes {
            self.refuse_oversized(from.place, bytes);
            return None;
        }
        match payload::inspect(payload.as_bytes()) {
            Ok(shape) => Some(shape),
            Err(bad) => {
                self.refuse_content(from, "it holds no message", &bad.to_string());
                None
            }
        }
    }

    /// Delivers a message of a group that keeps its history, and keeps it here if it is known where it stands.
    pub(super) fn deliver_kept(
        &mut self,
        group: &str,
        payload: Payload,
        exclude: &[&str],
        from: Origin<'_>,
        at: Option<Position>,
    ) {
        let Some(position) = at else {
            return self.deliver_to_group(group, payload, exclude, from);
        };
        let stamp = Stamp::new(group, position);
        let Some(message) = self.message_at(payload, from, stamp) else {
            self.local.history_restart(group, position);
            return;
        };
        if let Ok(fan_out) = self.local.group_accept(group, message, exclude, position) {
            self.hand_offs.extend(fan_out.hand_offs);
        }
    }

    pub(super) fn deliver_to_group(
        &mut self,
        group: &str,
        payload: Payload,
        exclude: &[&str],
        from: Origin<'_>,
    ) {
        if let Some(message) = self.message(payload, from)
            && let Ok(fan_out) = self.local.group_send(group, message, exclude)
        {
            self.hand_offs.extend(fan_out.hand_offs);
        }
    }

    /// Delivers to a local mailbox. If it is full the engine counts that.
    pub(super) fn deliver_to_channel(&mut self, channel: &str, payload: Payload, from: Origin<'_>) {
        if let Some(message) = self.message(payload, from) {
            let sent = self.local.send(channel, message);
            self.delivered(sent, from);
        }
    }

    /// Delivers a message of a queue to its local mailbox. It has left the queue, so it is not refused for its bytes.
    pub(super) fn deliver_taken(&mut self, channel: &str, payload: Payload, from: Origin<'_>) {
        if let Some(message) = self.message(payload, from) {
            let sent = self.local.accept(channel, message);
            self.delivered(sent, from);
        }
    }

    fn delivered(&mut self, sent: Sent<H>, from: Origin<'_>) {
        match sent {
            Ok(hand_off) => self.hand_offs.extend(hand_off),
            Err(SendError::Full(_)) => {}
            Err(SendError::Refused(..)) => self.refuse_content(from, NO_NAME, ""),
        }
    }

    /// Sends a notification about the connection to every local channel; of queues only to those with waiting receivers,
    /// because what nobody here takes goes back to the queue.
    pub(super) fn notify_channels(&mut self, kind: &str) {
        for channel in self.local.known_channels() {
            let here = !self.settings.wire.has_queues()
                || process_of(&channel).is_some()
                || self.local.waiters(&channel) > 0;
            if here {
                let payload = system_message::plain(kind).into();
                self.deliver_to_channel(&channel, payload, ITSELF);
            }
        }
    }

    /// Reports that these topics may have missed messages. The owner is told of those that carry messages of users. What was missed
    /// of memberships is read again; a flush by another process that was missed is lost.
    pub(super) fn report_gap(&mut self, topics: &[String], missed: u64) {
        let groups = topics.iter().filter_map(|topic| self.keys.group_of(topic));
        let groups: Vec<String> = groups.map(str::to_owned).collect();
        count(&self.shared.meter.gaps, 1);
        count(&self.shared.meter.missed, missed);
        if let Some(kind) = self.settings.on_gap.clone() {
            for group in &groups {
                let payload = system_message::gap(&kind, group, missed);
                self.deliver_to_group(group, payload.into(), &[], ITSELF);
            }
        }
        let is_direct = |topic: &String| {
            let topic = self.keys.topic(topic);
            matches!(topic, Some(Topic::Process(_) | Topic::Channel(_)))
        };
        let direct = topics.iter().any(is_direct);
        if direct || !groups.is_empty() {
            self.shared.notice(Notice::Gap {
                direct,
                groups,
                missed,
            });
        }
    }

    /// Whether bytes are more than the longest message takes on its way. They are not even decrypted then.
    pub(super) fn is_oversized(&self, place: &str, bytes: usize) -> bool {
        let limit = self.settings.max_message_bytes;
        // Fernet's tokens are text: four characters for each three bytes.
        let encrypted = if self.settings.crypt.is_some() {
            limit / 3
        } else {
            0
        };
        let oversized = bytes > limit.saturating_add(encrypted).saturating_add(ENVELOPE);
        if oversized {
            self.refuse_oversized(place, bytes);
        }
        oversized
    }

    fn refuse_oversized(&self, place: &str, bytes: usize) {
        count(&self.shared.meter.oversized, 1);
        self.shared.notices.push_once(Notice::Oversized {
            place: place.to_owned(),
            bytes,
            limit: self.settings.max_message_bytes,
        });
    }
}
