//! Calls that wait for an answer, each for any number of requests.

use tokio::time::Instant;

use super::backlog::Claim;
use super::Driver;
use crate::redis::fault::Fault;
use crate::redis::host::{Answer, Host};
use crate::redis::wire::envelope::Control;
use crate::redis::wire::keys::ProcessId;

/// How many groups with plain channels are counted before those are forgotten that have none any more.
const GROUPS: usize = 1024;

/// Several requests with one answer.
#[derive(Debug)]
pub(super) struct Tally<T> {
    pub(super) left: usize,
    /// When it is given up, whatever is left.
    pub(super) until: Instant,
    pub(super) answer: Answer,
    pub(super) ticket: Option<T>,
    /// The room that its messages take up.
    pub(super) claim: Option<Claim>,
    /// Which process waits to be told that it is done, and what it calls it.
    pub(super) acknowledge: Option<(ProcessId, u64)>,
    /// It is about telling another process something: who waits for that one's answer, if nobody is reached.
    pub(super) instead: Option<u64>,
    /// The group that the message was for, if that has queues in it.
    pub(super) group: Option<String>,
}

impl<H: Host> Driver<H> {
    pub(super) fn until(&self) -> Instant {
        self.now + self.settings.send_timeout
    }

    pub(super) fn tally(&mut self, left: usize, ticket: Option<H::Ticket>) -> usize {
        self.tallies.insert(Tally {
            left,
            until: self.until(),
            answer: Answer::default(),
            ticket,
            claim: None,
            acknowledge: None,
            instead: None,
            group: None,
        })
    }

    /// Notes that a tally has one part more; gives when that is given up.
    pub(super) fn add_part(&mut self, tally: usize) -> Instant {
        match self.tallies.get_mut(tally) {
            Some(known) => {
                known.left += 1;
                known.until
            }
            None => self.until(),
        }
    }

    /// Notes that one part of a tally is done.
    pub(super) fn finish(&mut self, tally: usize, note: impl FnOnce(&mut Answer)) {
        if let Some(known) = self.tallies.get_mut(tally) {
            note(&mut known.answer);
            known.left = known.left.saturating_sub(1);
            self.settle(tally);
        }
    }

    pub(super) fn finish_with(&mut self, tally: usize, fault: Fault) {
        self.finish(tally, |answer| answer.fault = Some(fault));
    }

    /// Answers a tally of which nothing is left to be done.
    pub(super) fn settle(&mut self, tally: usize) {
        if self.tallies.get(tally).is_none_or(|known| known.left > 0) {
            return;
        }
        let done = self.tallies.remove(tally);
        if let Some(group) = &done.group {
            let mut groups = self.shared.groups.lock();
            if groups.len() >= GROUPS {
                let plain = self.shared.plain.lock();
                groups.retain(|group, _| plain.has(group));
            }
            let known = groups.entry(group.clone()).or_default();
            known.sends += 1;
            known.queued += done.answer.queued;
            known.full += done.answer.full;
        }
        if let Some((process, request)) = done.acknowledge.filter(|_| done.answer.fault.is_none()) {
            self.say(process, &Control::Done { request });
        }
        if let Some(number) = done.instead.filter(|_| done.answer.receivers == 0) {
            self.told_nobody(number, done.answer.fault.clone());
        }
        self.close_tally(done);
    }

    /// Gives the answer to whoever waits for it.
    pub(super) fn close_tally(&mut self, done: Tally<H::Ticket>) {
        match (done.ticket, done.answer.fault) {
            (Some(ticket), fault) => {
                let answer = Answer {
                    fault,
                    ..done.answer
                };
                self.answers.push((ticket, answer));
            }
            (None, Some(fault)) if done.claim.is_some() => {
                let before = self.unsent.take().map_or(0, |(messages, _)| messages);
                self.unsent = Some((before + 1, fault));
            }
            (None, _) => {}
        }
    }
}
