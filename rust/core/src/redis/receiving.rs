//! How messages come to the receivers of this process: those of its own channels by a subscription, those of queues when they
//! are asked for.

use std::sync::atomic::Ordering;

use super::driver::Ask;
use super::engine::{Location, Progress, RedisEngine};
use super::host::Host;
use super::meter::ConnectionState;
use crate::error::Error;
use crate::name::check_channel;

impl<H: Host> RedisEngine<H> {
    /// Whether `look` is to be answered before a receiver waits at a channel: it is a queue, and no server has answered for
    /// one yet. A server that lacks what queues need would be waited for in vain.
    pub fn has_to_look(&self, channel: &str) -> bool {
        !self.shared.has_queues.load(Ordering::Relaxed) && self.location(channel) == Location::Queue
    }

    /// Takes up to so many messages of a queue into the local mailbox, before somebody waits there. A server that is unreachable
    /// has none; one that lacks what queues need is a fault.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn look(
        &self,
        channel: &str,
        most: usize,
        ticket: H::Ticket,
    ) -> Result<Progress<H::Ticket>, Error> {
        check_channel(channel)?;
        self.check_open()?;
        if self.location(channel) != Location::Queue {
            return Ok(Progress::Done(ticket));
        }
        self.ask(Ask::Fetch {
            channel: channel.to_owned(),
            most,
            patient: true,
            ticket,
        });
        Ok(Progress::Asked(()))
    }

    /// Takes a message of a queue into the local mailbox, for somebody who does not wait for one. If there is one already it
    /// is done, and also if others wait, who come first.
    pub fn look_at_once(&self, channel: &str, ticket: H::Ticket) -> Progress<H::Ticket> {
        // A wrong name, or a closed layer, is refused by whoever receives then.
        let here = self.local.channel_stats(channel);
        let is_idle = here.is_ok_and(|here| here.depth == 0 && here.waiters == 0);
        if !is_idle || self.location(channel) != Location::Queue {
            return Progress::Done(ticket);
        }
        self.ask(Ask::Fetch {
            channel: channel.to_owned(),
            most: 1,
            patient: false,
            ticket,
        });
        Progress::Asked(())
    }

    /// Has the messages of a channel come here, for a receiver that waits. The ticket is for a request that nobody waits for.
    pub fn attend(&self, channel: &str, ticket: impl FnOnce() -> H::Ticket) {
        match self.location(channel) {
            Location::Here if !self.wire().has_queues() => {
                if !self.shared.topics.lock().contains(channel) {
                    self.listen(channel, ticket());
                }
            }
            // This is called for each wait: the state saves the lookup of the topic for most of them.
            Location::Here if self.shared.meter.state() == ConnectionState::Up => {}
            Location::Here if self.is_ready() => {}
            Location::Here => self.connect(ticket()),
            Location::Queue => self.ask(Ask::Want {
                channel: channel.to_owned(),
            }),
            Location::Elsewhere => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::undriven;
    use super::super::wire::form::Wire;
    use super::*;

    #[test]
    fn a_queue_is_looked_at_before_its_first_receiver_waits_and_no_other_channel_is() {
        let (engine, mut asked) = undriven(Wire::Headrace);
        let here = format!("a.{}!b", engine.process());
        assert!(engine.has_to_look("work") && !engine.has_to_look(&here));
        assert_eq!(engine.look(&here, 1, 7), Ok(Progress::Done(7)));
        assert_eq!(engine.look("work", 5, 7), Ok(Progress::Asked(())));
        let ask = asked.try_recv();
        assert!(matches!(
            ask,
            Ok(Ask::Fetch {
                most: 5,
                patient: true,
                ticket: 7,
                ..
            })
        ));
        assert!(asked.try_recv().is_err());
        engine.shared.has_queues.store(true, Ordering::Relaxed);
        assert!(!engine.has_to_look("work"));
    }

    #[test]
    fn a_wrong_name_and_a_closed_layer_are_refused_before_anything_is_asked() {
        let (engine, mut asked) = undriven(Wire::Headrace);
        assert!(engine.look("a b", 1, 7).is_err());
        assert!(engine.local.close().is_empty());
        assert_eq!(engine.look("work", 1, 7), Err(Error::Closed));
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn who_does_not_wait_asks_only_for_what_nobody_else_comes_first_for() {
        let (engine, mut asked) = undriven(Wire::Headrace);
        assert_eq!(engine.look_at_once("work", 7), Progress::Asked(()));
        let ask = asked.try_recv();
        assert!(matches!(
            ask,
            Ok(Ask::Fetch {
                most: 1,
                patient: false,
                ..
            })
        ));
        assert!(engine.local.send("work", vec![1]).is_ok());
        assert_eq!(engine.look_at_once("work", 7), Progress::Done(7));
        assert!(engine.local.wait("others", 1, None).is_ok());
        assert_eq!(engine.look_at_once("others", 7), Progress::Done(7));
        assert_eq!(engine.look_at_once("a b", 7), Progress::Done(7));
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn a_receiver_has_its_messages_come_in_the_way_of_its_channel() {
        let (engine, mut asked) = undriven(Wire::Headrace);
        let here = format!("a.{}!b", engine.process());
        engine.attend(&here, || 7);
        assert!(matches!(asked.try_recv(), Ok(Ask::Connect { ticket: 7 })));
        engine.shared.meter.set_state(ConnectionState::Up);
        engine.attend(&here, || 7);
        assert!(asked.try_recv().is_err());
        engine.attend("work", || 7);
        assert!(matches!(asked.try_recv(), Ok(Ask::Want { .. })));
    }

    #[test]
    fn a_channel_on_the_wire_of_channels_redis_is_subscribed_to_once() {
        let (engine, mut asked) = undriven(Wire::ChannelsRedis);
        assert!(!engine.has_to_look("work"));
        engine.attend("work", || 7);
        assert!(matches!(asked.try_recv(), Ok(Ask::Subscribe { .. })));
        engine.shared.topics.lock().insert("work".into());
        engine.attend("work", || 7);
        assert!(asked.try_recv().is_err());
    }
}
