//! What a process knows of the stream of one group that it listens to. Pure: what it decides is carried out by `listening`.
//!
//! The listener counts: a message of the epoch of the last one has the next number. Whatever else comes may be the sign of a stream
//! that is another one now, or of messages that are missing. Then the entries behind the last one are *read*, and what comes
//! meanwhile is *held*. When all that had been published before the answer has come ([`Link::settle`]), it is known what of the held
//! messages is in the answer: what came up to the newest entry of it. So none is given twice, and none is missing.
//!
//! If the last one is not there any more, and the stream is a new one that still has its first entry, a gap is told, and the new stream is
//! given from its beginning: nothing that was sent after the loss is missing.
//!
//! [`Link::settle`]: crate::redis::link::Link::settle

use std::collections::{HashMap, HashSet, VecDeque};

use super::rows::Row;
use crate::history::Position;
use crate::redis::wire::envelope::Payload;
use crate::redis::wire::history::{EntryId, Identity};
use crate::redis::wire::keys::ProcessId;

/// How many messages are remembered by which one is known that comes again.
const RECENT: usize = 64;
/// How many senders are remembered.
const SENDERS: usize = 4096;
/// The distance between the first numbers of a sender that never uses one again.
const EPOCH: u64 = 1 << 24;

/// A message that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis::driver) struct Pushed {
    pub(in crate::redis::driver) epoch: u64,
    pub(in crate::redis::driver) identity: Identity,
    pub(in crate::redis::driver) exclude: Vec<String>,
    pub(in crate::redis::driver) payload: Payload,
    /// It is authenticated, and its deadline is past: from a sender that is not known it may have been recorded long ago.
    pub(in crate::redis::driver) stale: bool,
}

/// The last entry that was given to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) id: EntryId,
    pub(super) print: u32,
}

impl Last {
    pub(super) fn of(row: &Row) -> Self {
        Self {
            id: row.id,
            print: row.print(),
        }
    }

    pub(super) fn position(self) -> Position {
        Position {
            epoch: self.id.epoch,
            number: self.id.number,
            print: self.print,
        }
    }
}

/// What is to be done for the members, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To give them a message, which stands there; nowhere if that is not known.
    Give(Pushed, Option<Last>),
    /// To give them an entry that was read.
    GiveRow(Row),
    /// To give them nothing: they have that entry, or it is a head.
    Skip(Last),
    /// Messages are missing, so many if that is known.
    Gap(u64),
    /// To read the entries behind the last one.
    Read,
    /// A message that was recorded, and sent again.
    Refuse(Pushed),
}

#[derive(Debug)]
struct Reading {
    /// What came since it began, or caused it.
    held: VecDeque<Pushed>,
    /// How many of these were published before anything was read.
    before: usize,
    /// How many messages are missing, as their numbers show.
    missed: u64,
    answer: Option<Answer>,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The entries from the last one on, if that was there; else those of later epochs.
    pub(super) rows: Vec<Row>,
    /// The newest one, read behind those.
    pub(super) newest: Option<Row>,
    /// There was no stream a moment ago: these are the entries of a new one.
    pub(super) anew: bool,
}

impl Answer {
    /// Whether the entries are those of a stream that was begun after this entry was given, from its first one on.
    fn is_begun_after(&self, last: Option<Last>) -> bool {
        self.rows.first().is_some_and(|first| {
            let is_later = last.is_some_and(|last| first.id.epoch > last.id.epoch);
            first.id.number == 0 && (self.anew || is_later)
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Listener {
    last: Option<Last>,
    subscribed: bool,
    /// The subscription was interrupted since the last entry was given.
    interrupted: bool,
    /// The entries could not be read.
    unreadable: bool,
    reading: Option<Reading>,
    senders: HashMap<ProcessId, u64>,
    /// How many messages of a sender came behind that one which are not kept.
    unkept: HashMap<ProcessId, u64>,
    recent: VecDeque<Identity>,
}

impl Listener {
    /// The last entry, if nothing is known to be missing behind it.
    pub(super) fn last(&self) -> Option<Last> {
        let settled = self.reading.is_none() && !self.interrupted;
        self.last.filter(|_| settled)
    }

    /// From where on entries are to be read.
    pub(super) fn read_from(&self) -> Option<Last> {
        self.last
    }

    /// What is known proves wrong: the entries are read again.
    pub(super) fn doubt(&mut self) -> Vec<Step> {
        if self.reading.is_some() {
            return Vec::new();
        }
        self.read(VecDeque::new(), 0)
    }

    /// The stream was removed: where it goes on is read when the next message comes.
    pub(super) fn reset(&mut self) -> Vec<Step> {
        let steps = self.unread();
        self.last = None;
        self.unreadable = false;
        steps
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable && self.reading.is_none()
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// The topic is subscribed to from now on, or again: then messages may be missing. What is held is in the stream, if it was kept.
    pub(super) fn subscribed(&mut self) -> Vec<Step> {
        self.interrupted |= std::mem::replace(&mut self.subscribed, true);
        self.read(VecDeque::new(), 0)
    }

    fn read(&mut self, held: VecDeque<Pushed>, missed: u64) -> Vec<Step> {
        self.reading = Some(Reading {
            before: held.len(),
            held,
            missed,
            answer: None,
        });
        vec![Step::Read]
    }

    pub(super) fn pushed(&mut self, pushed: Pushed) -> Vec<Step> {
        if let Some(reading) = &mut self.reading {
            reading.held.push_back(pushed);
            return Vec::new();
        }
        let Some(last) = self.last else {
            return if self.unreadable {
                self.give(pushed, None)
            } else {
                self.read(VecDeque::from([pushed]), 0)
            };
        };
        let missed = self.missed(pushed.identity);
        if pushed.epoch != last.id.epoch || missed > 0 || self.is_suspect(&pushed) {
            return self.read(VecDeque::from([pushed]), missed);
        }
        self.give_next(pushed, last)
    }

    fn is_suspect(&self, pushed: &Pushed) -> bool {
        pushed.stale && !self.senders.contains_key(&pushed.identity.sender)
    }

    fn give_next(&mut self, pushed: Pushed, last: Last) -> Vec<Step> {
        let id = EntryId {
            number: last.id.number.saturating_add(1),
            ..last.id
        };
        let print = pushed.identity.print();
        self.give(pushed, Some(Last { id, print }))
    }

    /// Gives a message, unless the members have it already.
    fn give(&mut self, pushed: Pushed, at: Option<Last>) -> Vec<Step> {
        if at.is_some() {
            self.last = at;
        } else if self.is_suspect(&pushed) {
            return vec![Step::Refuse(pushed)];
        }
        if self.note(pushed.identity) {
            vec![Step::Give(pushed, at)]
        } else {
            at.map(Step::Skip).into_iter().collect()
        }
    }

    fn give_row(&mut self, row: Row) -> Step {
        let at = Last::of(&row);
        self.last = Some(at);
        match row.identity() {
            Some(identity) if self.note(identity) => Step::GiveRow(row),
            _ => Step::Skip(at),
        }
    }

    /// How many messages of a sender are missing before this one.
    fn missed(&self, identity: Identity) -> u64 {
        let Some(&last) = self.senders.get(&identity.sender) else {
            return 0;
        };
        let sequence = identity.sequence;
        let begins = last / EPOCH < sequence / EPOCH;
        let ahead = if begins {
            sequence % EPOCH
        } else {
            let unkept = self.unkept.get(&identity.sender).copied();
            sequence.saturating_sub(last.saturating_add(unkept.unwrap_or(0)))
        };
        ahead.saturating_sub(1)
    }

    /// A message came that is not kept: its number is not missing among those that are.
    pub(super) fn note_unkept(&mut self, identity: Identity) {
        let Identity { sender, sequence } = identity;
        if self
            .senders
            .get(&sender)
            .is_some_and(|last| sequence > *last)
        {
            *self.unkept.entry(sender).or_default() += 1;
        }
    }

    /// Notes a message that is given; returns whether it is new.
    fn note(&mut self, identity: Identity) -> bool {
        let Identity { sender, sequence } = identity;
        let last = self.senders.get(&sender).copied();
        // A sender that has forgotten the group begins at 1 again.
        let came = last.is_some_and(|last| sequence <= last && sequence > 1);
        if came || self.recent.contains(&identity) {
            return false;
        }
        if self.senders.len() >= SENDERS {
            self.senders.clear();
            self.unkept.clear();
        }
        self.senders.insert(sender, sequence);
        self.unkept.remove(&sender);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(identity);
        true
    }

    /// The entries were read; false if that is not waited for.
    pub(super) fn answered(&mut self, answer: Answer) -> bool {
        match &mut self.reading {
            Some(reading) => {
                reading.answer = Some(answer);
                true
            }
            None => false,
        }
    }

    /// The entries cannot be read: what is held is given, and it is not known where it stands.
    pub(super) fn unread(&mut self) -> Vec<Step> {
        let Some(reading) = self.reading.take() else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        if self.interrupted || reading.missed > 0 {
            steps.push(Step::Gap(reading.missed));
        }
        self.last = None;
        self.interrupted = false;
        self.unreadable = true;
        for pushed in reading.held {
            steps.extend(self.give(pushed, None));
        }
        steps
    }

    /// All that was published before the answer has come.
    pub(super) fn settled(&mut self) -> Vec<Step> {
        let Some(reading) = self.reading.take() else {
            return Vec::new();
        };
        let Reading {
            mut held,
            before,
            missed,
            answer,
        } = reading;
        let answer = answer.unwrap_or_default();
        let is_last = |row: &Row| self.last == Some(Last::of(row));
        let found = answer.rows.first().is_some_and(is_last);
        let is_begun = !found && answer.is_begun_after(self.last);
        let Answer { rows, newest, .. } = answer;
        let newest = if found { rows.last().cloned() } else { newest };
        let Some(newest) = newest else {
            self.reading = Some(Reading {
                held,
                before,
                missed,
                answer: None,
            });
            return self.unread();
        };
        let mut steps = Vec::new();
        let rows = if found || is_begun {
            rows
        } else {
            vec![newest.clone()]
        };
        let known = rows
            .iter()
            .filter_map(|row| Some((row.identity()?, Last::of(row))));
        let known: HashMap<Identity, Last> = known.collect();
        let place = |pushed: &Pushed| {
            let at = known.get(&pushed.identity).copied();
            at.filter(|at| at.id.epoch == pushed.epoch)
        };
        let covered = held.iter().rposition(|pushed| place(pushed).is_some());
        let covered = covered.map_or(0, |at| at + 1);
        let rest = held.split_off(covered);
        if found {
            // What is held and not among these was not kept: its sender writes it again.
            steps.extend(rows.into_iter().skip(1).map(|row| self.give_row(row)));
        } else {
            let tells = self.interrupted || missed > 0;
            if tells {
                steps.push(Step::Gap(missed));
            }
            let placed = if is_begun {
                // What was written before the topic was subscribed to; all that was published since is held.
                let came = held.iter().filter_map(place).map(|at| at.id);
                let came: HashSet<EntryId> = came.collect();
                let missed = rows.into_iter().take_while(|row| !came.contains(&row.id));
                let missed: Vec<Row> = missed.collect();
                steps.extend(missed.into_iter().map(|row| self.give_row(row)));
                // What was not kept its sender writes again. But it may have been in a stream that was lost again, which must be told.
                let is_kept = |pushed: &Pushed| place(pushed).is_some();
                let is_again = |pushed: &Pushed| tells || known.contains_key(&pushed.identity);
                held.retain(|pushed| is_kept(pushed) || !is_again(pushed));
                let placed = held.into_iter().map(|pushed| (place(&pushed), pushed));
                placed.collect()
            } else {
                counted(&newest, held)
            };
            steps.extend(self.begin_at(&newest, placed));
        }
        self.interrupted = false;
        self.unreadable = false;
        steps.extend(self.go_on(rest, before.saturating_sub(covered), found));
        steps
    }

    /// Goes on at the newest entry, behind the messages up to it.
    fn begin_at(&mut self, newest: &Row, placed: Vec<(Option<Last>, Pushed)>) -> Vec<Step> {
        let mut steps = Vec::new();
        for (at, pushed) in placed {
            steps.extend(self.give(pushed, at));
        }
        let at = Last::of(newest);
        if self.last != Some(at) {
            self.last = Some(at);
            steps.push(Step::Skip(at));
        }
        steps
    }

    /// Goes on with messages that are not in the answer. The first so many were published before that was made.
    fn go_on(&mut self, rest: VecDeque<Pushed>, mut before: usize, found: bool) -> Vec<Step> {
        let (mut steps, mut rest) = (Vec::new(), rest);
        while let Some(pushed) = rest.pop_front() {
            let is_before = before > 0;
            before = before.saturating_sub(1);
            let Some(last) = self.last else {
                steps.extend(self.give(pushed, None));
                continue;
            };
            let (same, suspect) = (pushed.epoch == last.id.epoch, self.is_suspect(&pushed));
            let missed = self.missed(pushed.identity);
            if is_before && suspect {
                steps.push(Step::Refuse(pushed));
            } else if same && (is_before || missed == 0 && !suspect) {
                steps.extend(self.give_next(pushed, last));
            } else if !found && pushed.epoch < last.id.epoch {
                // It was kept in the stream that is lost, or its sender writes it again: then it is not given twice.
                steps.extend(self.give(pushed, None));
            } else if !is_before {
                rest.push_front(pushed);
                steps.extend(self.read(rest, missed));
                return steps;
            } else if !found {
                steps.extend(self.give(pushed, None));
            }
            // Else it was not kept, and its sender writes it again.
        }
        steps
    }
}

/// Where messages stand of which the last, if there are any, is the one that the newest entry holds.
fn counted(newest: &Row, held: VecDeque<Pushed>) -> Vec<(Option<Last>, Pushed)> {
    let count = held.len() as u64;
    let is_in_epoch = |pushed: &&Pushed| pushed.epoch == newest.id.epoch;
    let in_epoch = held.iter().rev().take_while(is_in_epoch).count() as u64;
    let place = |(place, pushed): (u64, Pushed)| {
        let behind = count - place;
        let number = newest.id.number.checked_sub(behind);
        let id = number.filter(|_| behind < in_epoch).map(|number| EntryId {
            number,
            ..newest.id
        });
        let print = pushed.identity.print();
        (id.map(|id| Last { id, print }), pushed)
    };
    (1..).zip(held).map(place).collect()
}

#[cfg(test)]
mod tests;
