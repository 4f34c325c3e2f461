//! Servers that are known to be unreachable, for which no request waits.
//!
//! Requests wait for a server that was lost a moment ago: it may come back. If it refuses the first attempt to connect, or is
//! not back after `send_timeout`, requests to it fail at once, until an attempt succeeds.

use std::collections::HashMap;

use tokio::time::Instant;

use super::Servers;
use crate::redis::driver::node_key::NodeKey;
use crate::redis::fault::{Fault, FaultKind};

/// The fault of requests to a server that is unreachable.
fn as_unreachable(failure: &Fault) -> Fault {
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

    /// Why a server is unreachable, or, without one, why the map cannot be read.
    fn failure_of(&self, node: Option<&NodeKey>, now: Instant) -> Option<&Fault> {
        match node.and_then(|key| self.nodes.get(key)) {
            Some(node) => node.given_up(now, self.settings.send_timeout),
            None => self.map.failure(),
        }
    }

    /// The same, as the fault of requests to it.
    pub(crate) fn given_up(&self, node: Option<&NodeKey>, now: Instant) -> Option<Fault> {
        self.failure_of(node, now).map(as_unreachable)
    }

    /// The unreachable servers, and the fault of requests to each; without a server: the map.
    pub(crate) fn all_given_up(&self, now: Instant) -> HashMap<Option<NodeKey>, Fault> {
        let places = self.nodes.keys().map(Some).chain([None]);
        let given_up = |place: Option<&NodeKey>| Some((place.cloned(), self.given_up(place, now)?));
        places.filter_map(given_up).collect()
    }

    /// Why no message can be sent, if every server is given up.
    pub(crate) fn all_unreachable(&self, now: Instant) -> Option<Fault> {
        let writer = |key: &NodeKey| {
            let writer = &self.nodes.get(key)?.writer;
            writer.given_up(now, self.settings.send_timeout)
        };
        let mut failures = self.map.servers().into_iter().map(|key| writer(&key));
        let last = failures.next_back().unwrap_or(self.map.failure());
        let last = last.filter(|_| failures.all(|failure| failure.is_some()));
        last.map(as_unreachable)
    }

    /// Gives up the requests to unreachable servers.
    pub(super) fn give_up_unreachable(&mut self, now: Instant) {
        let patience = self.settings.send_timeout;
        let mut given_up = Vec::new();
        for node in self.nodes.values_mut() {
            if let Some(failure) = node.writer.given_up(now, patience) {
                let fault = as_unreachable(failure);
                given_up.extend(node.outbox.take().map(|request| (request, fault.clone())));
            }
        }
        if let Some(failure) = self.map.failure() {
            let fault = as_unreachable(failure);
            given_up.extend(self.unrouted.take().map(|request| (request, fault.clone())));
        }
        for (request, fault) in given_up {
            self.fail(request, &fault);
        }
    }
}
