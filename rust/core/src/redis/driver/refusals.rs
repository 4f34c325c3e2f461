//! Messages that look like this layer's and are refused. Each is counted; the first of each kind from each sender is
//! reported to the owner.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::{Discriminant, discriminant};

use super::shared::Shared;
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::wire::envelope::Malformed;
use crate::redis::wire::keys::ProcessId;

/// How many senders are reported to the owner for each kind: forged messages may name any number of them.
const REPORTED: usize = 16;
/// How many entries of queues are remembered, so that none is taken twice.
const REMEMBERED: usize = 65_536;

/// The refusals that were reported, and the entries that were taken.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    reported: HashMap<RefusalKind, HashSet<Option<ProcessId>>>,
    taken: HashSet<u64>,
    /// The same, in the order in which they were taken.
    order: VecDeque<u64>,
}

/// The kinds of refusals. Each kind is reported once for each sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RefusalKind {
    Malformed(Discriminant<Malformed>),
    /// An envelope whose content is none.
    Content(&'static str),
    Replayed,
    Member,
}

/// Where a message came by, and its sender, if it names one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) place: &'a str,
    pub(super) sender: Option<ProcessId>,
}

impl<'a> Origin<'a> {
    /// That of a message that names no sender.
    pub(super) fn at(place: &'a str) -> Self {
        Self {
            place,
            sender: None,
        }
    }

    /// That of a message from this process, as it says.
    pub(super) fn of(sender: ProcessId, place: &'a str) -> Self {
        Self {
            place,
            sender: Some(sender),
        }
    }
}

/// The reason to refuse a message with a name that neither `new_channel` nor `group_add` can produce.
pub(super) const NO_NAME: &str = "it names a channel or a group that cannot be";
/// The reason to refuse a message that belongs elsewhere.
pub(super) const MISPLACED: &str = "it is of a kind that does not belong there";

impl Refusals {
    /// Refuses what is no envelope, or none that this layer accepts.
    pub(super) fn refuse(&mut self, shared: &Shared, from: Origin<'_>, malformed: Malformed) {
        let counter = if malformed.is_unauthenticated() {
            count(&shared.meter.unauthenticated, 1);
            "unauthenticated"
        } else {
            count(&shared.meter.malformed, 1);
            "malformed"
        };
        let kind = RefusalKind::Malformed(discriminant(&malformed));
        self.report(shared, kind, from, malformed.to_string(), counter);
    }

    /// Refuses a message for what is in it. Each kind is reported once.
    pub(super) fn refuse_content(
        &mut self,
        shared: &Shared,
        from: Origin<'_>,
        kind: &'static str,
        detail: &str,
    ) {
        count(&shared.meter.malformed, 1);
        let colon = if detail.is_empty() { "" } else { ": " };
        let reason = format!("{kind}{colon}{detail}");
        self.report(
            shared,
            RefusalKind::Content(kind),
            from,
            reason,
            "malformed",
        );
    }

    /// Refuses a message that came before.
    pub(super) fn refuse_replay(&mut self, shared: &Shared, from: Origin<'_>) {
        count(&shared.meter.replayed, 1);
        let reason =
            "it came before: somebody recorded it and sent it again, or a server gave it twice";
        self.report(
            shared,
            RefusalKind::Replayed,
            from,
            reason.to_owned(),
            "replayed",
        );
    }

    /// Refuses a membership that no key authenticates. Its sender is not known.
    pub(super) fn refuse_member(
        &mut self,
        shared: &Shared,
        place: &str,
        group: &str,
        channel: &str,
    ) {
        count(&shared.meter.unauthenticated, 1);
        let reason = format!("no key authenticates that '{channel}' is in the group '{group}'");
        let from = Origin::at(place);
        self.report(shared, RefusalKind::Member, from, reason, "unauthenticated");
    }

    fn report(
        &mut self,
        shared: &Shared,
        kind: RefusalKind,
        from: Origin<'_>,
        reason: String,
        counter: &'static str,
    ) {
        let reported = self.reported.entry(kind).or_default();
        if reported.len() < REPORTED && reported.insert(from.sender) {
            shared.notice(Notice::Refused {
                place: from.place.to_owned(),
                sender: from.sender.map(|sender| sender.to_string()),
                reason,
                counter,
            });
        }
    }

    /// Whether an authenticated entry of a queue is to be delivered, which is known by its bytes: it was not taken before, as far
    /// as that is remembered.
    pub(super) fn is_taken_once(&mut self, shared: &Shared, from: Origin<'_>, entry: u64) -> bool {
        let new = self.is_new(entry);
        if !new {
            self.refuse_replay(shared, from);
        }
        new
    }

    fn is_new(&mut self, entry: u64) -> bool {
        if !self.taken.insert(entry) {
            return false;
        }
        self.order.push_back(entry);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.taken.remove(&oldest);
        }
        true
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

    #[test]
    fn each_refusal_is_counted_and_the_first_of_a_sender_is_reported() {
        let (shared, mut refusals) = (Shared::default(), Refusals::default());
        for sender in [1, 1, 2] {
            let from = Origin::of(ProcessId(sender), "t:g:room");
            refusals.refuse_replay(&shared, from);
        }
        assert_eq!(shared.stats().replayed, 3);
        let notices = std::iter::from_fn(|| shared.notices.next(std::time::Duration::ZERO));
        assert_eq!(notices.count(), 2);
    }
}
