//! Calls that wait for more than the answer of a server: for the connection, for another process, or until all is sent.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::calls::{CallId, Purpose};
use super::context::Context;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::meter::smooth;
use crate::redis::wire::envelope::Control;
use crate::redis::wire::keys::ProcessId;
use crate::shrink::Shrink;

/// A call that waits for the connection on which the answers of other processes come.
#[derive(Debug)]
struct Pending {
    call: CallId,
    until: Instant,
    /// What is asked of another process then. Without it the call is done.
    request: Option<(ProcessId, Control)>,
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Which call waits for the answer to the message of a number.
    awaited: HashMap<u64, CallId>,
    /// When each of them is given up, in that order; some have been answered.
    deadlines: VecDeque<(Instant, u64)>,
    last_number: u64,
    pending: Vec<Pending>,
    /// These wait until every message has been taken or given up.
    drains: Vec<CallId>,
    /// The number of the latest message to this process itself, and when it was sent: it measures the lag.
    probe: Option<(u64, Instant)>,
}

impl Peers {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Whether anything has a deadline.
    pub(super) fn are_waiting(&self) -> bool {
        !self.awaited.is_empty() || self.have_pending()
    }

    /// Answers as soon as there is a connection.
    pub(super) fn connect<H: Host>(&mut self, cx: &mut Context<H>, ticket: H::Ticket) {
        self.pending.push(Pending {
            call: cx.call(1, Some(ticket)),
            until: cx.until(),
            request: None,
        });
    }

    /// Sends a request to another process: now, or as soon as the answer can come.
    pub(super) fn ask<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (process, control): (ProcessId, Control),
        ticket: H::Ticket,
        connected: bool,
    ) {
        let call = cx.call(1, Some(ticket));
        if connected {
            self.send_request(cx, process, control, call);
            return;
        }
        self.pending.push(Pending {
            call,
            until: cx.until(),
            request: Some((process, control)),
        });
    }

    pub(super) fn have_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Goes on with the calls that wait for the connection, if it is there; gives up those that waited too long, or in vain.
    pub(super) fn go_on<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        not_connected: impl Fn(&Context<H>, Instant) -> Option<Fault>,
        connected: bool,
    ) {
        for pending in std::mem::take(&mut self.pending) {
            if !connected {
                match not_connected(cx, pending.until) {
                    Some(fault) => cx.calls.fail(pending.call, fault),
                    None => self.pending.push(pending),
                }
            } else if let Some((process, control)) = pending.request {
                self.send_request(cx, process, control, pending.call);
            } else {
                cx.calls.done(pending.call);
            }
        }
    }

    /// Answers when every message has been taken or given up.
    pub(super) fn drain<H: Host>(&mut self, cx: &mut Context<H>, ticket: H::Ticket) {
        self.drains.push(cx.call(1, Some(ticket)));
    }

    /// Takes the calls that wait until nothing is left to be sent.
    pub(super) fn take_drains(&mut self) -> Vec<CallId> {
        std::mem::take(&mut self.drains)
    }

    /// Sends a request to another process. The call waits for the answer.
    fn send_request<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        process: ProcessId,
        mut control: Control,
        call: CallId,
    ) {
        let number = self.next_number();
        if let Control::Join { request, .. } | Control::Leave { request, .. } = &mut control {
            *request = number;
        }
        self.send_and_await(cx, process, &control, number, call);
    }

    fn send_and_await<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        process: ProcessId,
        control: &Control,
        number: u64,
        call: CallId,
    ) {
        self.awaited.insert(number, call);
        self.deadlines.push_back((cx.until(), number));
        // If it reaches nobody there will be no answer: see `unreached`.
        let published = cx.call(0, None);
        cx.calls.set_purpose(published, Purpose::Control(number));
        cx.send_control(process, control, published);
    }

    /// A process has answered a request.
    pub(super) fn done<H: Host>(&mut self, cx: &mut Context<H>, number: u64) {
        if let Some((_, at)) = self.probe.take_if(|(probe, _)| *probe == number) {
            smooth(&cx.shared.meter.lag, cx.now - at);
        } else if let Some(call) = self.awaited.remove(&number) {
            cx.calls.done(call);
        }
    }

    /// A request reached no process, or could not be sent: its call ends. A process that is gone has no members, so without a
    /// fault the call succeeds.
    pub(super) fn unreached<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        number: u64,
        fault: Option<Fault>,
    ) {
        if let Some(call) = self.awaited.remove(&number) {
            cx.calls.complete_part(call, |answer| answer.fault = fault);
        }
    }

    pub(super) fn give_up_late<H: Host>(&mut self, cx: &mut Context<H>) {
        let due = |(until, _): &(Instant, u64)| *until <= cx.now;
        let due = self.deadlines.iter().take_while(|waits| due(waits)).count();
        for (_, number) in self.deadlines.drain(..due) {
            if let Some(call) = self.awaited.remove(&number) {
                let text = "the process of that channel did not answer in time";
                cx.calls.fail(call, Fault::new(FaultKind::Timeout, text));
            }
        }
        // Those that were answered meanwhile.
        let answered = |(_, number): &(Instant, u64)| !self.awaited.contains_key(number);
        while self.deadlines.front().is_some_and(answered) {
            self.deadlines.pop_front();
        }
    }

    /// Sends a control message to this process itself, to measure the lag.
    pub(super) fn send_probe<H: Host>(&mut self, cx: &mut Context<H>) {
        let request = self.next_number();
        self.probe = Some((request, cx.now));
        let call = cx.call(0, None);
        cx.send_control(cx.me, &Control::Done { request }, call);
    }

    /// Completes a call when all earlier messages to this process have come back: a control message to this process
    /// itself comes behind them.
    pub(super) fn complete_when_back<H: Host>(&mut self, cx: &mut Context<H>, call: CallId) {
        let request = self.next_number();
        let done = Control::Done { request };
        self.send_and_await(cx, cx.me, &done, request, call);
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.awaited.shrink_if_sparse();
        self.deadlines.shrink_if_sparse();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{OTHER, World, context, settings};
    use super::*;
    use crate::redis::settings::Topology;

    fn parts() -> (Context<World>, Peers) {
        (context(settings(Topology::Shards)), Peers::default())
    }

    fn leave() -> (ProcessId, Control) {
        let control = Control::Leave {
            request: 0,
            group: "room".to_owned(),
            channel: format!("specific.{OTHER}!a"),
        };
        (OTHER, control)
    }

    /// The tickets that were answered, and whether that was a fault.
    fn answers(cx: &mut Context<World>) -> Vec<(u32, bool)> {
        let answers = cx.calls.take_answers().into_iter();
        answers
            .map(|(ticket, answer)| (ticket, answer.fault.is_some()))
            .collect()
    }

    #[test]
    fn a_request_is_sent_once_the_answer_can_come() {
        let (mut cx, mut peers) = parts();
        peers.ask(&mut cx, leave(), 1, false);
        peers.go_on(&mut cx, |_, _| None, false);
        assert!(cx.requests.is_empty() && peers.have_pending());
        peers.go_on(&mut cx, |_, _| None, true);
        assert_eq!((cx.requests.len(), peers.have_pending()), (1, false));
        peers.done(&mut cx, 1);
        assert_eq!(answers(&mut cx), [(1, false)]);
    }

    #[test]
    fn those_who_wait_for_the_connection_are_answered_when_it_is_there_or_given_up() {
        for (connected, given_up, answered) in
            [(false, false, 0), (true, false, 1), (false, true, 1)]
        {
            let (mut cx, mut peers) = parts();
            peers.connect(&mut cx, 1);
            let fault = || Fault::new(FaultKind::Unreachable, "nobody is there");
            peers.go_on(&mut cx, |_, _| given_up.then(fault), connected);
            let answers = answers(&mut cx);
            assert_eq!(answers.len(), answered);
            let failed = answers.iter().any(|(_, failed)| *failed);
            assert_eq!((failed, peers.have_pending()), (given_up, answered == 0));
        }
    }

    #[test]
    fn a_process_that_does_not_answer_is_given_up_at_its_time() {
        let (mut cx, mut peers) = parts();
        for ticket in 1..=3 {
            peers.ask(&mut cx, leave(), ticket, true);
        }
        peers.done(&mut cx, 2);
        peers.give_up_late(&mut cx);
        assert_eq!(answers(&mut cx), [(2, false)]);
        cx.now += cx.settings.send_timeout;
        peers.give_up_late(&mut cx);
        assert_eq!(answers(&mut cx), [(1, true), (3, true)]);
        assert!(!peers.are_waiting());
    }

    #[test]
    fn nothing_is_kept_of_what_was_answered() {
        let (mut cx, mut peers) = parts();
        for ticket in 1..=4000 {
            peers.ask(&mut cx, leave(), ticket, true);
        }
        for number in 1..=4000 {
            peers.done(&mut cx, number);
        }
        peers.give_up_late(&mut cx);
        peers.shrink_if_sparse();
        assert!(!peers.are_waiting());
        assert!(peers.awaited.capacity() <= 16 && peers.deadlines.capacity() <= 16);
    }

    #[test]
    fn a_process_that_is_gone_has_no_members() {
        let (mut cx, mut peers) = parts();
        peers.ask(&mut cx, leave(), 1, true);
        peers.unreached(&mut cx, 1, None);
        assert_eq!(answers(&mut cx), [(1, false)]);
    }
}
