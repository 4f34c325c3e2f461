//! Messages that look like this layer's and are refused. Each is counted; the owner is told of the first of each kind from each
//! sender.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::{discriminant, Discriminant};

use super::node_key::NodeKey;
use super::Driver;
use crate::redis::host::Host;
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::{Header, Malformed};
use crate::redis::wire::keys::ProcessId;
use crate::redis::wire::sequence::Seen;

/// Of how many senders the owner is told for each kind: who forges messages may invent senders.
const TOLD: usize = 16;
/// How many entries of queues are remembered, so that none is taken twice.
const REMEMBERED: usize = 65_536;

/// What was refused, as far as it matters for what comes.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: HashMap<Kind, HashSet<Option<ProcessId>>>,
    taken: HashSet<u64>,
    /// The same, in the order in which they were taken.
    order: VecDeque<u64>,
}

/// Kinds of which the owner is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Malformed(Discriminant<Malformed>),
    /// An envelope whose content is none.
    Content(&'static str),
    Replayed,
    Member,
}

/// Where a message came by, and of whom, if it says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) place: &'a str,
    pub(super) sender: Option<ProcessId>,
}

/// What is wrong in a message with a name that comes from nobody's `new_channel` or `group_add`.
pub(super) const NO_NAME: &str = "it names a channel or a group that cannot be";
/// What is wrong in a message that belongs elsewhere.
pub(super) const MISPLACED: &str = "it is of a kind that does not belong there";

impl Refusals {
    /// Whether an authenticated entry of a queue was not taken before, as far as that is remembered.
    fn is_new(&mut self, entry: u64) -> bool {
        if !self.taken.insert(entry) {
            return false;
        }
        self.order.push_back(entry);
        if self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.taken.remove(&oldest);
            }
        }
        true
    }
}

impl<H: Host> Driver<H> {
    /// Refuses what is no envelope, or none that this layer accepts.
    pub(super) fn refuse(&mut self, place: &str, sender: Option<ProcessId>, malformed: Malformed) {
        let meter = &self.shared.meter;
        let counter = if malformed.is_unauthenticated() {
            count(&meter.unauthenticated, 1);
            "unauthenticated"
        } else {
            count(&meter.malformed, 1);
            "malformed"
        };
        let kind = Kind::Malformed(discriminant(&malformed));
        self.tell_refused(kind, place, sender, malformed.to_string(), counter);
    }

    /// Refuses a message for what is in it. The owner is told once of each kind.
    pub(super) fn refuse_content(&mut self, from: Origin<'_>, kind: &'static str, detail: &str) {
        count(&self.shared.meter.malformed, 1);
        let colon = if detail.is_empty() { "" } else { ": " };
        let reason = format!("{kind}{colon}{detail}");
        let Origin { place, sender } = from;
        self.tell_refused(Kind::Content(kind), place, sender, reason, "malformed");
    }

    /// Refuses what came before.
    pub(super) fn refuse_replay(&mut self, place: &str, sender: ProcessId) {
        count(&self.shared.meter.replayed, 1);
        let reason =
            "it came before: somebody recorded it and sent it again, or a server gave it twice";
        let (kind, sender) = (Kind::Replayed, Some(sender));
        self.tell_refused(kind, place, sender, reason.to_owned(), "replayed");
    }

    /// Refuses a membership that no key authenticates; nobody says who wrote it.
    pub(super) fn refuse_member(&mut self, group: &str, channel: &str) {
        count(&self.shared.meter.unauthenticated, 1);
        let reason = format!("no key authenticates that '{channel}' is in the group '{group}'");
        let place = self.keys.members();
        self.tell_refused(Kind::Member, &place, None, reason, "unauthenticated");
    }

    fn tell_refused(
        &mut self,
        kind: Kind,
        place: &str,
        sender: Option<ProcessId>,
        reason: String,
        counter: &'static str,
    ) {
        let told = self.refusals.told.entry(kind).or_default();
        if told.len() < TOLD && told.insert(sender) {
            self.shared.notice(Notice::Refused {
                place: place.to_owned(),
                sender: sender.map(|sender| sender.to_string()),
                reason,
                counter,
            });
        }
    }

    /// Whether an authenticated message is to be delivered: none is after its deadline, and none twice.
    ///
    /// No clock that was set excuses a deadline, as it does without keys: a recorded message would be excused at any later time.
    pub(super) fn is_due(&mut self, node: &NodeKey, topic: &str, header: &Header) -> bool {
        let expired = self.is_expired(node, header.deadline);
        // What expired is no measure of what comes, if nothing else of its sender is known.
        let seen = if expired && !self.sequences.knows(header.sender, topic) {
            Seen::First
        } else {
            let Header {
                sender, sequence, ..
            } = *header;
            self.sequences.note_once(sender, topic, sequence)
        };
        let late = match seen {
            Seen::Again | Seen::Late if self.is_unsettled(topic) => true,
            Seen::Again => {
                self.refuse_replay(topic, header.sender);
                return false;
            }
            Seen::Gap(missed) => {
                self.unsettle(topic);
                self.tell_gap(&[topic.to_owned()], missed);
                expired
            }
            Seen::First | Seen::Next | Seen::Late => expired,
        };
        if late {
            count(&self.shared.meter.late, 1);
        }
        if expired {
            self.tell_once(Notice::Late);
        }
        !late
    }

    /// Whether an authenticated entry of a queue is to be delivered; it is known by its bytes.
    pub(super) fn is_taken_once(&mut self, queue: &str, entry: u64, sender: ProcessId) -> bool {
        let new = self.refusals.is_new(entry);
        if !new {
            self.refuse_replay(queue, sender);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_new_once() {
        let mut refusals = Refusals::default();
        assert!(refusals.is_new(1));
        assert!(!refusals.is_new(1));
        for entry in 2..=u64::try_from(REMEMBERED).unwrap_or(0) {
            assert!(refusals.is_new(entry));
        }
        assert!(!refusals.is_new(1));
        assert!(refusals.is_new(0));
        assert!(refusals.is_new(1), "it was taken longest ago");
        assert_eq!(refusals.order.len(), REMEMBERED);
        assert_eq!(refusals.taken.len(), REMEMBERED);
    }
}
