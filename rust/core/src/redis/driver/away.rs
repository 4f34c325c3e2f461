//! Servers that are known to be away, for which nobody waits.
//!
//! A server that was lost a moment ago is waited for: it may be on its way back. One that refuses the first attempt to
//! connect, or is still not there after `send_timeout`, fails at once all that needs it, until an attempt succeeds.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::node::{LinkState, Node};
use super::node_key::NodeKey;
use super::Driver;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::meter::ConnectionState;
use crate::redis::settings::Wire;

impl LinkState {
    /// Why nobody waits for it: the latest attempt failed, and it was not lost within this time. A server that refuses
    /// whoever connects is there, and not on its way back.
    fn given_up(&self, now: Instant, patience: Duration) -> Option<&Fault> {
        let returns = |lost: Instant| now < lost + patience;
        let may_return = self.lost.is_some_and(returns);
        let failure = self.failure.as_ref();
        failure.filter(|failure| !may_return || failure.is_refusal())
    }
}

impl Node {
    /// Why nobody waits for one of its connections.
    fn given_up(&self, now: Instant, patience: Duration) -> Option<&Fault> {
        let writer = self.writer.given_up(now, patience);
        writer.or_else(|| self.subscriber.given_up(now, patience))
    }
}

impl<H: Host> Driver<H> {
    /// Why there is no connection, for those who waited for one.
    pub(super) fn unreachable(&self) -> Fault {
        let seconds = self.settings.send_timeout.as_secs_f64();
        match &self.last_fault {
            Some(fault) if fault.is_refusal() => fault.clone(),
            Some(fault) => Fault::new(
                FaultKind::Unreachable,
                format!("no server could be reached in {seconds} s: {fault}"),
            )
            .because_of(fault.clone()),
            None => Fault::new(
                FaultKind::Unreachable,
                format!("no server answered in {seconds} s"),
            ),
        }
    }

    /// What those are told who need a server for which nobody waits.
    fn away(failure: &Fault) -> Fault {
        if failure.is_refusal() {
            return failure.clone();
        }
        let text = format!("no server could be reached: {failure}");
        Fault::new(FaultKind::Unreachable, text).because_of(failure.clone())
    }

    /// Why nobody waits for the server of a topic, or for the map, before which it is not known which that is.
    fn given_up(&self, node: Option<&NodeKey>) -> Option<&Fault> {
        match node.and_then(|key| self.nodes.get(key)) {
            Some(node) => node.given_up(self.now, self.settings.send_timeout),
            None => self.unmapped.as_ref(),
        }
    }

    /// The servers for which nobody waits, and what those are told who need them; without a server: the map.
    pub(super) fn nodes_given_up(&self) -> HashMap<Option<NodeKey>, Fault> {
        let places = self.nodes.keys().map(Some).chain([None]);
        let given_up = |place: Option<&NodeKey>| {
            let fault = Self::away(self.given_up(place)?);
            Some((place.cloned(), fault))
        };
        places.filter_map(given_up).collect()
    }

    /// Why no message can be sent, if every server is given up.
    fn all_given_up(&self) -> Option<&Fault> {
        let writer = |key: &NodeKey| {
            let writer = &self.nodes.get(key)?.writer;
            writer.given_up(self.now, self.settings.send_timeout)
        };
        let mut failures = self.servers().into_iter().map(|key| writer(&key));
        let last = failures.next_back().unwrap_or(self.unmapped.as_ref());
        last.filter(|_| failures.all(|failure| failure.is_some()))
    }

    /// Why nobody waits for the process's own topics.
    fn own_given_up(&self) -> Option<&Fault> {
        if self.needs_map() {
            return self.unmapped.as_ref();
        }
        if self.settings.wire == Wire::ChannelsRedis {
            let mut nodes = self.nodes.keys();
            return nodes.find_map(|key| self.given_up(Some(key)));
        }
        let topics = [self.keys.inbox(self.me), self.keys.control()];
        let place = |topic: &String| self.topics.get(topic)?.node().cloned();
        let mut places = topics.iter().filter_map(place);
        places.find_map(|key| self.given_up(Some(&key)))
    }

    /// What those are told who wait for the process's own topics, if they have waited long enough or in vain.
    pub(super) fn not_connected(&self, until: Instant) -> Option<Fault> {
        if until <= self.now {
            return Some(self.unreachable());
        }
        self.own_given_up().map(Self::away)
    }

    /// Lets senders that wait for nothing know whether their messages would be given up.
    pub(super) fn note_away(&self) {
        if self.shared.meter.state() != ConnectionState::Up {
            *self.shared.away.lock() = self.all_given_up().map(Self::away);
        }
    }

    /// Gives up what waits for a server for which nobody waits.
    pub(super) fn give_up_in_vain(&mut self) {
        let (now, patience) = (self.now, self.settings.send_timeout);
        let mut in_vain = Vec::new();
        for node in self.nodes.values_mut() {
            if let Some(failure) = node.writer.given_up(now, patience) {
                let fault = Self::away(failure);
                in_vain.extend(node.outbox.take().map(|request| (request, fault.clone())));
            }
        }
        if let Some(failure) = &self.unmapped {
            let fault = Self::away(failure);
            in_vain.extend(self.unrouted.take().map(|request| (request, fault.clone())));
        }
        for (request, fault) in in_vain {
            self.fail(request, &fault);
        }
    }
}
