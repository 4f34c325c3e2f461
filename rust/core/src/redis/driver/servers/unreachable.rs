//! Servers that are known to be away, for which nobody waits.
//!
//! A server that was lost a moment ago is waited for: it may be on its way back. One that refuses the first attempt to
//! connect, or is still not there after `send_timeout`, fails at once all that needs it, until an attempt succeeds.

use std::collections::HashMap;

use tokio::time::Instant;

use super::Servers;
use crate::redis::driver::node_key::NodeKey;
use crate::redis::fault::{Fault, FaultKind};

/// What those are told who need a server for which nobody waits.
fn away(failure: &Fault) -> Fault {
    if failure.is_refusal() {
        return failure.clone();
    }
    let text = format!("no server could be reached: {failure}");
    Fault::new(FaultKind::Unreachable, text).because_of(failure.clone())
}

impl Servers {
    /// Why there is no connection, for those who waited for one.
    pub(crate) fn unreachable(&self) -> Fault {
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

    /// Why nobody waits for a server, or, without one, for the map, before which it is not known which it is.
    fn failure_of(&self, node: Option<&NodeKey>, now: Instant) -> Option<&Fault> {
        match node.and_then(|key| self.nodes.get(key)) {
            Some(node) => node.given_up(now, self.settings.send_timeout),
            None => self.map.failure(),
        }
    }

    /// The same, as those are told who need it.
    pub(crate) fn given_up(&self, node: Option<&NodeKey>, now: Instant) -> Option<Fault> {
        self.failure_of(node, now).map(away)
    }

    /// The servers for which nobody waits, and what those are told who need them; without a server: the map.
    pub(crate) fn all_given_up(&self, now: Instant) -> HashMap<Option<NodeKey>, Fault> {
        let places = self.nodes.keys().map(Some).chain([None]);
        let given_up = |place: Option<&NodeKey>| Some((place.cloned(), self.given_up(place, now)?));
        places.filter_map(given_up).collect()
    }

    /// Why no message can be sent, if every server is given up.
    pub(crate) fn away(&self, now: Instant) -> Option<Fault> {
        let writer = |key: &NodeKey| {
            let writer = &self.nodes.get(key)?.writer;
            writer.given_up(now, self.settings.send_timeout)
        };
        let mut failures = self.map.servers().into_iter().map(|key| writer(&key));
        let last = failures.next_back().unwrap_or(self.map.failure());
        let last = last.filter(|_| failures.all(|failure| failure.is_some()));
        last.map(away)
    }

    /// Gives up what waits for a server for which nobody waits.
    pub(super) fn give_up_in_vain(&mut self, now: Instant) {
        let patience = self.settings.send_timeout;
        let mut in_vain = Vec::new();
        for node in self.nodes.values_mut() {
            if let Some(failure) = node.writer.given_up(now, patience) {
                let fault = away(failure);
                in_vain.extend(node.outbox.take().map(|request| (request, fault.clone())));
            }
        }
        if let Some(failure) = self.map.failure() {
            let fault = away(failure);
            in_vain.extend(self.unrouted.take().map(|request| (request, fault.clone())));
        }
        for (request, fault) in in_vain {
            self.fail(request, &fault);
        }
    }
}
