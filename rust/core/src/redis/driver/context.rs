//! The context of all parts of the driver: the layer, the time, and the requests, answers and hand-offs that they produce.

use std::sync::Arc;

use tokio::time::Instant;

use super::calls::{CallId, Calls};
use super::refusals::Refusals;
use super::request::Request;
use super::servers::Servers;
use super::shared::Shared;
use crate::handoff::HandOff;
use crate::redis::host::{Host, Local};
use crate::redis::joins::Joins;
use crate::redis::settings::Settings;
use crate::redis::wire::envelope::Seal;
use crate::redis::wire::keys::{Keys, ProcessId};
use crate::redis::wire::sequence::SequenceCounters;

pub(super) struct Context<H: Host> {
    // The fields are dropped in this order: the host drops the engine in the right thread.
    pub(super) local: Arc<Local<H>>,
    pub(super) joins: Arc<Joins>,
    pub(super) host: Arc<H>,
    pub(super) settings: Arc<Settings>,
    pub(super) keys: Keys,
    pub(super) me: ProcessId,
    pub(super) shared: Arc<Shared>,
    /// The time of the event that is handled.
    pub(super) now: Instant,
    pub(super) servers: Servers,
    pub(super) calls: Calls<H::Ticket>,
    /// The numbers of what is sent, by destination.
    pub(super) counters: SequenceCounters,
    /// What was refused, and the entries of queues that were taken.
    pub(super) refusals: Refusals,
    /// Requests that have not been given to a server yet, in their order.
    pub(super) requests: Vec<Request>,
    /// Messages for receivers that wait.
    pub(super) hand_offs: Vec<HandOff<H::Message, H::Waiter>>,
    /// Something has changed about topics since it was last seen whether messages can flow.
    pub(super) changed: bool,
}

impl<H: Host> Context<H> {
    /// When a request that begins now is given up.
    pub(super) fn until(&self) -> Instant {
        self.now + self.settings.send_timeout
    }

    pub(super) fn call(&mut self, left: usize, ticket: Option<H::Ticket>) -> CallId {
        let until = self.until();
        self.calls.begin(left, until, ticket)
    }

    /// Adds a part to a call; returns when it is given up.
    pub(super) fn add_part(&mut self, call: CallId) -> Instant {
        let until = self.calls.add_parts(call, 1);
        until.unwrap_or_else(|| self.until())
    }

    /// Sends a request as soon as there is a connection for it.
    pub(super) fn submit(&mut self, request: Request) {
        self.requests.push(request);
    }

    pub(super) fn expiry_ms(&self) -> u64 {
        u64::try_from(self.settings.expiry.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long anything may be on a server whose name is in an index.
    pub(super) fn index_ms(&self) -> u64 {
        let longest = self.settings.history.longest();
        let milliseconds = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let kept = milliseconds.saturating_add(milliseconds / 2);
        self.expiry_ms().max(kept)
    }

    /// How envelopes are encrypted, if they are.
    pub(super) fn seal(&self) -> Option<Seal<'_>> {
        let crypt = self.settings.crypt.as_deref()?;
        let now = self.shared.now() / 1000;
        Some(Seal { crypt, now })
    }
}
