//! Calls that wait until the layer is connected, or has nothing left to send.

use tokio::time::Instant;

use super::calls::CallId;
use super::context::Context;
use crate::redis::fault::Fault;
use crate::redis::host::Host;

#[derive(Debug, Default)]
pub(super) struct Drains {
    /// Until when each waits for the connection.
    connects: Vec<(CallId, Instant)>,
    /// These wait until every message has been taken or given up.
    drains: Vec<CallId>,
}

impl Drains {
    pub(super) fn connect<H: Host>(&mut self, cx: &mut Context<H>, ticket: H::Ticket) {
        let until = cx.until();
        self.connects.push((cx.call(1, Some(ticket)), until));
    }

    pub(super) fn drain<H: Host>(&mut self, cx: &mut Context<H>, ticket: H::Ticket) {
        self.drains.push(cx.call(1, Some(ticket)));
    }

    pub(super) fn have_connects(&self) -> bool {
        !self.connects.is_empty()
    }

    /// Answers those who wait for the connection, if it is there, or if they have waited too long, or in vain.
    pub(super) fn answer_connects<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        not_connected: impl Fn(&Context<H>, Instant) -> Option<Fault>,
        connected: bool,
    ) {
        for (call, until) in std::mem::take(&mut self.connects) {
            if connected {
                cx.calls.done(call);
            } else if let Some(fault) = not_connected(cx, until) {
                cx.calls.fail(call, fault);
            } else {
                self.connects.push((call, until));
            }
        }
    }

    /// Takes the calls that wait until nothing is left to be sent.
    pub(super) fn take_drains(&mut self) -> Vec<CallId> {
        std::mem::take(&mut self.drains)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{context, settings};
    use super::*;
    use crate::redis::fault::FaultKind;
    use crate::redis::settings::Topology;

    #[test]
    fn those_who_wait_for_the_connection_are_answered_when_it_is_there_or_given_up() {
        for (connected, given_up, answered) in
            [(false, false, 0), (true, false, 1), (false, true, 1)]
        {
            let (mut cx, mut drains) = (context(settings(Topology::Shards)), Drains::default());
            drains.connect(&mut cx, 1);
            let fault = || Fault::new(FaultKind::Unreachable, "nobody is there");
            drains.answer_connects(&mut cx, |_, _| given_up.then(fault), connected);
            let answers = cx.calls.take_answers();
            assert_eq!(answers.len(), answered);
            let failed = answers.iter().any(|(_, answer)| answer.fault.is_some());
            assert_eq!((failed, drains.have_connects()), (given_up, answered == 0));
        }
    }
}
