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
        let connected =
            cx.servers.map().is_known() && cx.servers.are_open() && topics.are_connected(cx);
        let meter = &cx.shared.meter;
        if !connected || topics.are_awaited() {
            if self.disconnected || cx.servers.has_lost_one() {
                meter.set_state(ConnectionState::Down);
            } else if !connected || topics.have_lost() || meter.state() != ConnectionState::Up {
                meter.set_state(ConnectionState::Connecting);
            } // Else a new topic is awaited: the others flow as before.
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::node_key::{NodeKey, Role};
    use super::super::testing::{SilentLink, World, context, settings};
    use super::*;
    use crate::redis::fault::FaultKind;
    use crate::redis::link::probe::Opened;
    use crate::redis::settings::Topology;

    const SHARD: NodeKey = NodeKey::Shard(0);

    /// Opens all connections, and subscribes to the topics of the process itself.
    fn open_all(cx: &mut Context<World>, topics: &mut Topics) {
        topics.want_own(cx);
        for dial in cx.servers.due(cx.now + Duration::from_secs(1)) {
            let opened = Opened {
                link: Arc::new(SilentLink),
                address: None,
                time: None,
            };
            cx.servers.opened(&dial.id, Ok(opened), cx.now);
            if dial.id.role == Role::Subscriber {
                topics.subscriber_opened(cx, &SHARD);
            }
        }
        for topic in cx.keys.own(cx.me) {
            topics.next_batch(&SHARD, cx.servers.node_mut(&SHARD).expect("it is known"));
            topics.confirmed(cx, &SHARD, &topic);
        }
    }

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

    #[test]
    fn a_new_topic_does_not_make_a_layer_that_is_up_connecting() {
        let (mut cx, mut topics) = (context(settings(Topology::Shards)), Topics::default());
        let mut status = Status::default();
        open_all(&mut cx, &mut topics);
        status.note(&cx, &mut topics);
        assert_eq!(cx.shared.meter.state(), ConnectionState::Up);
        topics.want(&mut cx, "t:g:room", None);
        status.note(&cx, &mut topics);
        assert!(topics.are_awaited());
        assert_eq!(cx.shared.meter.state(), ConnectionState::Up);
    }

    #[test]
    fn a_layer_is_connecting_until_its_first_topic_is_confirmed() {
        let (mut cx, mut topics) = (context(settings(Topology::Shards)), Topics::default());
        let mut status = Status::default();
        open_all(&mut cx, &mut topics);
        topics.want(&mut cx, "t:g:room", None);
        status.note(&cx, &mut topics);
        assert_eq!(cx.shared.meter.state(), ConnectionState::Connecting);
    }
}
