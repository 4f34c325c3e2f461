//! Whether messages can flow, and what of that the owner of the layer and its channels are notified of.

use super::context::Context;
use super::topics::Topics;
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::meter::{ConnectionState, count};
use crate::redis::notice::Notice;

#[derive(Debug, Default)]
pub(super) struct Status {
    /// A connection for subscriptions was lost, and not all is whole since.
    disconnected: bool,
    /// No server could be reached since all was whole, and the owner was notified.
    unreached: bool,
    /// A connection was made, or all topics of one were confirmed, since gaps were last reported.
    node_is_back: bool,
}

/// What the channels are to be notified of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// All is whole again.
    pub(super) reconnected: bool,
    /// These topics may have missed messages.
    pub(super) gaps: Vec<String>,
}

impl Status {
    /// A connection was made, or all topics of one were confirmed.
    pub(super) fn note_node_is_back(&mut self, is_back: bool) {
        self.node_is_back |= is_back;
    }

    /// A server could not be reached. The owner is notified of the first failure before there ever was a connection;
    /// later ones belong to a loss that was reported.
    pub(super) fn not_reached<H: Host>(&mut self, cx: &Context<H>, fault: &Fault) {
        if !self.disconnected && !self.unreached {
            self.unreached = true;
            let reason = fault.to_string();
            cx.shared.notice(Notice::Disconnected { reason });
        }
    }

    /// A connection for subscriptions was lost; returns whether the channels are to be notified.
    pub(super) fn lost<H: Host>(&mut self, cx: &Context<H>, fault: &Fault) -> bool {
        if self.disconnected {
            return false;
        }
        self.disconnected = true;
        let reason = fault.to_string();
        cx.shared.notice(Notice::Disconnected { reason });
        true
    }

    /// Notes whether messages can flow.
    pub(super) fn note<H: Host>(&mut self, cx: &Context<H>, topics: &mut Topics) -> News {
        let whole = !topics.are_awaited()
            && cx.servers.map().is_known()
            && cx.servers.are_open()
            && topics.are_connected(cx);
        let meter = &cx.shared.meter;
        if !whole {
            let down = self.disconnected || cx.servers.has_lost_one();
            meter.set_state(if down {
                ConnectionState::Down
            } else {
                ConnectionState::Connecting
            });
            let mut news = News::default();
            if topics.have_lost() && std::mem::take(&mut self.node_is_back) {
                news.gaps = topics.take_lost_that_are_back(cx);
            }
            return news;
        }
        meter.set_state(ConnectionState::Up);
        let reconnected = std::mem::take(&mut self.disconnected);
        let unreached = std::mem::take(&mut self.unreached);
        if reconnected {
            count(&meter.reconnects, 1);
        }
        if reconnected || unreached {
            cx.shared.notice(Notice::Reconnected);
        }
        News {
            reconnected,
            gaps: topics.take_lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{context, settings};
    use super::*;
    use crate::redis::fault::FaultKind;
    use crate::redis::settings::Topology;

    #[test]
    fn the_owner_is_notified_once_of_a_loss_and_once_that_all_is_whole_again() {
        let cx = context(settings(Topology::Cluster));
        let (mut status, mut topics) = (Status::default(), Topics::default());
        let fault = Fault::new(FaultKind::Lost, "lost");
        status.not_reached(&cx, &fault);
        status.not_reached(&cx, &fault);
        assert!(status.lost(&cx, &fault));
        assert!(!status.lost(&cx, &fault), "the channels know");
        assert_eq!(status.note(&cx, &mut topics), News::default());
        assert_eq!(cx.shared.meter.state(), ConnectionState::Down);
        let notices = std::iter::from_fn(|| cx.shared.notices.next(Duration::ZERO));
        assert_eq!(notices.count(), 2);
    }
}
