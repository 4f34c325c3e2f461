//! Calls that wait for an answer, each for any number of requests.
//!
//! A call is answered once: when all its parts are done, or when the layer is closed.

use slab::Slab;
use tokio::time::Instant;

use super::backlog::Claim;
use crate::redis::fault::Fault;
use crate::redis::host::Answer;
use crate::redis::wire::keys::ProcessId;
use crate::shrink::is_sparse;

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallId(usize);

/// What else follows when a call is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FollowUp {
    /// Another process waits for the acknowledgement.
    Acknowledge { process: ProcessId, request: u64 },
    /// The control message of this number reached no process.
    Unreached { number: u64, fault: Option<Fault> },
    /// A message was sent to a group that has queues in it.
    SentToQueues {
        group: String,
        queued: u64,
        full: u64,
    },
}

#[derive(Debug)]
struct Call<T> {
    /// Parts that are not done.
    left: usize,
    /// When its parts, or its wait for room, are given up.
    until: Instant,
    answer: Answer,
    ticket: Option<T>,
    /// The room that its messages take up.
    claim: Option<Claim>,
    /// The process that waits for the acknowledgement, and its number for the request.
    acknowledge: Option<(ProcessId, u64)>,
    /// The number of the control message that it publishes, if an answer is waited for.
    control: Option<u64>,
    /// The group that the message is for, if that has queues in it.
    group: Option<String>,
    /// Whether the caller wants no fault that passes by waiting.
    patient: bool,
}

/// All calls that are not done, and the outcomes of those that are.
#[derive(Debug)]
pub(super) struct Calls<T> {
    /// Those that are not done.
    open: Slab<Call<T>>,
    answers: Vec<(T, Answer)>,
    follow_ups: Vec<FollowUp>,
    /// How many messages without a ticket failed, and why the latest did.
    unsent: Option<(u64, Fault)>,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self {
            open: Slab::new(),
            answers: Vec::new(),
            follow_ups: Vec::new(),
            unsent: None,
        }
    }
}

impl<T> Calls<T> {
    /// Begins a call of so many parts.
    pub(super) fn begin(&mut self, left: usize, until: Instant, ticket: Option<T>) -> CallId {
        CallId(self.open.insert(Call {
            left,
            until,
            answer: Answer::default(),
            ticket,
            claim: None,
            acknowledge: None,
            control: None,
            group: None,
            patient: false,
        }))
    }

    /// Adds parts to a call; gives when they are given up, if the call is not done.
    pub(super) fn add_parts(&mut self, call: CallId, more: usize) -> Option<Instant> {
        let known = self.open.get_mut(call.0)?;
        known.left += more;
        Some(known.until)
    }

    /// Notes that one part is done. The last one completes the call.
    pub(super) fn complete_part(&mut self, call: CallId, note: impl FnOnce(&mut Answer)) {
        let Some(known) = self.open.get_mut(call.0) else {
            return;
        };
        note(&mut known.answer);
        known.left = known.left.saturating_sub(1);
        if known.left == 0 {
            self.complete(call);
        }
    }

    pub(super) fn done(&mut self, call: CallId) {
        self.complete_part(call, |_| {});
    }

    /// Notes that one part failed.
    pub(super) fn fail(&mut self, call: CallId, fault: Fault) {
        let known = self.open.get(call.0);
        let excused = known.is_some_and(|call| call.patient) && fault.may_pass();
        self.complete_part(call, |answer| {
            if !excused {
                answer.fault = Some(fault);
            }
        });
    }

    /// Notes that the caller waits for a server that is unreachable, and wants no fault for it.
    pub(super) fn excuse_unreachable(&mut self, call: CallId) {
        if let Some(known) = self.open.get_mut(call.0) {
            known.patient = true;
        }
    }

    fn complete(&mut self, call: CallId) {
        let done = self.open.remove(call.0);
        let Answer { queued, full, .. } = done.answer;
        if let Some(group) = done.group.clone() {
            self.follow_ups.push(FollowUp::SentToQueues {
                group,
                queued,
                full,
            });
        }
        if let Some((process, request)) = done.acknowledge.filter(|_| done.answer.fault.is_none()) {
            self.follow_ups
                .push(FollowUp::Acknowledge { process, request });
        }
        if let Some(number) = done.control.filter(|_| done.answer.receivers == 0) {
            let fault = done.answer.fault.clone();
            self.follow_ups.push(FollowUp::Unreached { number, fault });
        }
        self.close(done);
    }

    /// Queues the answer for the ticket. Without a ticket a failed message counts as unsent.
    fn close(&mut self, done: Call<T>) {
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

    /// Ends all calls.
    pub(super) fn end_all(&mut self, fault: &Fault) {
        for (_, mut call) in std::mem::take(&mut self.open) {
            call.answer.fault = Some(fault.clone());
            self.close(call);
        }
    }

    /// Answers a ticket for which there is no call.
    pub(super) fn answer(&mut self, ticket: T, answer: Answer) {
        self.answers.push((ticket, answer));
    }

    pub(super) fn take_answers(&mut self) -> Vec<(T, Answer)> {
        std::mem::take(&mut self.answers)
    }

    pub(super) fn has_follow_ups(&self) -> bool {
        !self.follow_ups.is_empty()
    }

    pub(super) fn take_follow_ups(&mut self) -> Vec<FollowUp> {
        std::mem::take(&mut self.follow_ups)
    }

    pub(super) fn take_unsent(&mut self) -> Option<(u64, Fault)> {
        self.unsent.take()
    }

    /// Keeps the room that the messages of a call take up until it is done.
    pub(super) fn hold(&mut self, call: CallId, claim: Claim) {
        if let Some(known) = self.open.get_mut(call.0) {
            known.claim = Some(claim);
        }
    }

    /// Takes the room for the messages of a call, if there is some; returns whether it has it.
    pub(super) fn admit(&self, call: CallId) -> bool {
        let claim = self.open.get(call.0).and_then(|call| call.claim.as_ref());
        claim.is_some_and(Claim::admit)
    }

    /// Whether a call is to be given up by now.
    pub(super) fn is_late(&self, call: CallId, now: Instant) -> bool {
        self.open.get(call.0).is_none_or(|call| call.until <= now)
    }

    /// Notes that another process waits for the acknowledgement of a call.
    pub(super) fn acknowledge(&mut self, call: CallId, process: ProcessId, request: u64) {
        if let Some(known) = self.open.get_mut(call.0) {
            known.acknowledge = Some((process, request));
        }
    }

    /// Notes that a call publishes the control message of this number.
    pub(super) fn publishes_control(&mut self, call: CallId, number: u64) {
        if let Some(known) = self.open.get_mut(call.0) {
            known.control = Some(number);
        }
    }

    /// Notes that a call sends a message to a group that has queues in it.
    pub(super) fn sends_to_queues(&mut self, call: CallId, group: &str) {
        if let Some(known) = self.open.get_mut(call.0) {
            known.group = Some(group.to_owned());
        }
    }

    /// Gives back the memory of calls that are done, if it is most of all. Requests know calls by their places, so no call is
    /// moved: what goes are the places behind the last one.
    pub(super) fn shrink_if_sparse(&mut self) {
        if is_sparse(self.open.len(), self.open.capacity()) {
            self.open.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::fault::FaultKind;

    const ME: ProcessId = ProcessId(7);

    #[test]
    fn a_call_is_answered_once_when_all_its_parts_are_done() {
        let (now, mut calls) = (Instant::now(), Calls::default());
        let call = calls.begin(1, now, Some("ticket"));
        assert_eq!(calls.add_parts(call, 1), Some(now));
        calls.complete_part(call, |answer| answer.queued += 1);
        assert_eq!(calls.take_answers(), []);
        calls.complete_part(call, |answer| answer.queued += 1);
        let answer = Answer {
            queued: 2,
            ..Answer::default()
        };
        assert_eq!(calls.take_answers(), [("ticket", answer)]);
        calls.done(call);
        assert_eq!(calls.take_answers(), []);
        assert_eq!(calls.add_parts(call, 1), None);
    }

    #[test]
    fn who_is_patient_gets_no_fault_that_passes_by_waiting() {
        let (now, mut calls) = (Instant::now(), Calls::default());
        let unreachable = Fault::new(FaultKind::Unreachable, "there is no connection");
        let lacking = Fault::new(FaultKind::Lacking, "it has no such command");
        let refused = unreachable.clone().because_of(lacking.clone());
        let closed = Fault::new(FaultKind::Closed, "the layer was closed");
        for (fault, excused) in [
            (unreachable, true),
            (lacking, false),
            (refused, false),
            (closed, false),
        ] {
            let patient = calls.begin(1, now, Some("patient"));
            calls.excuse_unreachable(patient);
            let other = calls.begin(1, now, Some("other"));
            calls.fail(patient, fault.clone());
            calls.fail(other, fault.clone());
            let faults = calls
                .take_answers()
                .into_iter()
                .map(|(_, answer)| answer.fault);
            let expected = [(!excused).then(|| fault.clone()), Some(fault)];
            assert_eq!(faults.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn memory_is_given_back_and_no_open_call_moves() {
        let (now, mut calls) = (Instant::now(), Calls::default());
        let opened: Vec<CallId> = (0..4000)
            .map(|ticket| calls.begin(1, now, Some(ticket)))
            .collect();
        let (left, done) = opened.split_first().expect("there are calls");
        for &call in done {
            calls.done(call);
        }
        assert_eq!(calls.take_answers().len(), done.len());
        calls.shrink_if_sparse();
        assert!(calls.open.capacity() <= 16);
        calls.done(*left);
        assert_eq!(calls.take_answers(), [(0, Answer::default())]);
    }

    #[test]
    fn what_was_done_is_acknowledged_and_what_failed_is_not() {
        let (now, mut calls) = (Instant::now(), Calls::<()>::default());
        for fails in [false, true] {
            let call = calls.begin(1, now, None);
            calls.acknowledge(call, ME, 5);
            if fails {
                calls.fail(call, Fault::new(FaultKind::Lost, "lost"));
            } else {
                calls.done(call);
            }
        }
        let expected = FollowUp::Acknowledge {
            process: ME,
            request: 5,
        };
        assert_eq!(calls.take_follow_ups(), [expected]);
    }

    #[test]
    fn a_control_message_that_reached_no_process_is_reported() {
        let (now, mut calls) = (Instant::now(), Calls::<()>::default());
        for (number, receivers) in [(1, 0), (2, 1)] {
            let call = calls.begin(1, now, None);
            calls.publishes_control(call, number);
            calls.complete_part(call, |answer| answer.receivers += receivers);
        }
        let unreached = FollowUp::Unreached {
            number: 1,
            fault: None,
        };
        assert_eq!(calls.take_follow_ups(), [unreached]);
    }

    #[test]
    fn messages_that_failed_and_that_nobody_waits_for_are_counted() {
        let (now, mut calls) = (Instant::now(), Calls::<()>::default());
        let fault = Fault::new(FaultKind::Lost, "lost");
        for _ in 0..2 {
            let call = calls.begin(1, now, None);
            calls.hold(call, Claim::new(&std::sync::Arc::default(), 1, 1));
            calls.fail(call, fault.clone());
        }
        let control = calls.begin(1, now, None);
        calls.fail(control, fault.clone());
        assert_eq!(calls.take_unsent(), Some((2, fault)));
        assert_eq!(calls.take_unsent(), None);
    }
}
