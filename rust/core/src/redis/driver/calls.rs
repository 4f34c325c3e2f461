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

/// What a call is for, if something follows when it is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Another process waits for the acknowledgement, unless there is a fault.
    Acknowledge { process: ProcessId, request: u64 },
    /// To publish the control message of this number, whose answer is waited for, unless it reaches no process.
    Control(u64),
    /// To send a message to a group that has queues in it.
    SendToQueues { group: String },
}

impl Purpose {
    /// Whether something follows from this outcome.
    fn needs_follow_up(&self, answer: &Answer) -> bool {
        match self {
            Self::Acknowledge { .. } => answer.fault.is_none(),
            Self::Control(_) => answer.receivers == 0,
            Self::SendToQueues { .. } => true,
        }
    }
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
    purpose: Option<Purpose>,
    /// Whether the caller wants no fault that passes by waiting.
    patient: bool,
}

/// All calls that are not done, and the outcomes of those that are.
#[derive(Debug)]
pub(super) struct Calls<T> {
    /// Those that are not done.
    open: Slab<Call<T>>,
    answers: Vec<(T, Answer)>,
    /// What those that are done were for, if something follows.
    follow_ups: Vec<(Purpose, Answer)>,
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
            purpose: None,
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
        let mut done = self.open.remove(call.0);
        let purpose = done.purpose.take();
        if let Some(purpose) = purpose.filter(|purpose| purpose.needs_follow_up(&done.answer)) {
            self.follow_ups.push((purpose, done.answer.clone()));
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

    pub(super) fn take_follow_ups(&mut self) -> Vec<(Purpose, Answer)> {
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

    /// Notes what a call is for.
    pub(super) fn set_purpose(&mut self, call: CallId, purpose: Purpose) {
        if let Some(known) = self.open.get_mut(call.0) {
            known.purpose = Some(purpose);
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
            let (process, request) = (ME, 5);
            calls.set_purpose(call, Purpose::Acknowledge { process, request });
            if fails {
                calls.fail(call, Fault::new(FaultKind::Lost, "lost"));
            } else {
                calls.done(call);
            }
        }
        let expected = Purpose::Acknowledge {
            process: ME,
            request: 5,
        };
        assert_eq!(calls.take_follow_ups(), [(expected, Answer::default())]);
    }

    #[test]
    fn a_control_message_that_reached_no_process_is_reported() {
        let (now, mut calls) = (Instant::now(), Calls::<()>::default());
        for (number, receivers) in [(1, 0), (2, 1)] {
            let call = calls.begin(1, now, None);
            calls.set_purpose(call, Purpose::Control(number));
            calls.complete_part(call, |answer| answer.receivers += receivers);
        }
        let unreached = (Purpose::Control(1), Answer::default());
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
