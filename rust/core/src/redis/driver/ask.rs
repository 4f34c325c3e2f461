//! What callers ask of the driver.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::backlog::Claim;
use super::dispatch::Dispatch;
use super::history_then::Wanted;
use crate::history::Since;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Answer;
use crate::redis::wire::envelope::Control;
use crate::redis::wire::keys::ProcessId;

/// What callers ask for. A ticket is answered once, when it is done or when it cannot be done.
#[derive(Debug)]
pub(crate) enum Ask<T> {
    /// Be connected, with the process's own topics subscribed to.
    Connect { ticket: T },
    /// Send messages, with one answer for all. Without a ticket nobody waits for it.
    Send {
        messages: Vec<Dispatch>,
        claim: Claim,
        ticket: Option<T>,
    },
    /// Be subscribed to a pub/sub channel, of a group or (on the wire of `channels_redis`) of a channel.
    Subscribe { topic: String, ticket: T },
    /// Make a plain channel a member of a group, for so many milliseconds, or take it out.
    Membership {
        group: String,
        channel: String,
        lasts: Option<u64>,
        ticket: Option<T>,
    },
    /// Remove a queue and what it holds.
    CloseQueue { channel: String },
    /// Send a request to another process, and wait for its answer.
    SendControl {
        process: ProcessId,
        control: Control,
        ticket: T,
    },
    /// Somebody here waits for a message of a queue.
    Want { channel: String },
    /// Take up to so many messages of a queue, whether anybody waits or not. Who is patient gets none from servers that
    /// are unreachable, and no fault.
    Fetch {
        channel: String,
        most: usize,
        patient: bool,
        ticket: T,
    },
    /// Make a channel a member of a group that keeps its history, and give it what is behind a position, unless that is cancelled.
    Resume {
        group: String,
        channel: String,
        since: Since,
        cancelled: Arc<AtomicBool>,
        ticket: T,
    },
    /// Look at the history of a group.
    Look {
        group: String,
        wanted: Wanted,
        ticket: T,
    },
    /// An entry of this process in a group has come, or has changed, or another member has.
    Presence { group: String },
    /// Entries of this process may have left.
    PresenceLeft,
    /// Read who is present in a group, or how many members it has, if this process does not know.
    LookPresence {
        group: String,
        counts: bool,
        ticket: T,
    },
    /// Remove what the layer has on the servers.
    Flush { ticket: T },
    /// Answer when all earlier messages have been taken or given up, and those for this process have come. At the end of
    /// a layer, return the messages of queues that wait here first.
    Drain { ending: bool, ticket: T },
    /// End.
    Close { ticket: T },
}

impl<T> Ask<T> {
    /// How many messages it is to carry.
    pub(super) fn messages(&self) -> u64 {
        match self {
            Self::Send { messages, .. } => messages.len() as u64,
            _ => 0,
        }
    }

    /// The answer to what is asked of a layer that was closed.
    pub(crate) fn refused(self) -> Option<(T, Answer)> {
        let ticket = match self {
            Self::Send { ticket, .. } | Self::Membership { ticket, .. } => ticket?,
            Self::Want { .. }
            | Self::CloseQueue { .. }
            | Self::Presence { .. }
            | Self::PresenceLeft => return None,
            Self::Connect { ticket }
            | Self::Subscribe { ticket, .. }
            | Self::SendControl { ticket, .. }
            | Self::Fetch { ticket, .. }
            | Self::Resume { ticket, .. }
            | Self::Look { ticket, .. }
            | Self::LookPresence { ticket, .. }
            | Self::Flush { ticket }
            | Self::Drain { ticket, .. }
            | Self::Close { ticket } => ticket,
        };
        let fault = Some(Fault::new(FaultKind::Closed, "the layer was closed"));
        Some((
            ticket,
            Answer {
                fault,
                ..Answer::default()
            },
        ))
    }
}
