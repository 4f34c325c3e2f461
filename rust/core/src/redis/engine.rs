//! The engine that spans processes, as callers in any thread use it.
//!
//! It keeps the promises of [`engine`](crate::engine), with these differences. A message to a group, or to a channel of
//! another process, is taken by the server before it is in any mailbox; a full mailbox at the other end counts it as
//! dropped there. A membership of a channel of this process is confirmed by the server before it is done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::driver::{Ask, Driver, DriverParts, Shared};
use super::host::{Host, Local};
use super::joins::Joins;
use super::link::RedisTransport;
use super::meter::{ConnectionState, count};
use super::notice::Notice;
use super::random;
use super::runtime::Runtime;
use super::settings::{Protocol, Server, Settings, Topology};
use super::wire::keys::{Keys, ProcessId, process_of};
use crate::error::Error;
use crate::redis::wire::form::Wire;
use crate::sync::{Mutex, assert_unlocked};

/// The mailboxes of this process, and the connections to those of others.
pub struct RedisEngine<H: Host> {
    host: Arc<H>,
    pub(super) local: Arc<Local<H>>,
    pub(super) settings: Arc<Settings>,
    pub(super) keys: Keys,
    pub(super) me: ProcessId,
    /// The end of the part before the `!` in the names of its channels.
    ending: String,
    /// The topic of this process.
    own_topic: String,
    pub(super) shared: Arc<Shared>,
    pub(super) joins: Arc<Joins>,
    asks: UnboundedSender<Ask<H::Ticket>>,
    /// What the driver is made from when it is first needed.
    unstarted: Mutex<Option<Unstarted<H>>>,
    runtime: Arc<Runtime>,
}

type Unstarted<H> = (DriverParts<H>, UnboundedReceiver<Ask<<H as Host>::Ticket>>);

/// Whether histories can be kept with these settings.
fn check_history(settings: &Settings, keys: &Keys) -> Result<(), String> {
    if !settings.wire.has_envelopes() {
        return Err(
            "'history' needs the wire format of headrace: messages of wire='channels_redis' have no number by which one is \
             known again"
                .to_owned(),
        );
    }
    if !keys.can_tag_groups() {
        return Err(
            "'history' needs a prefix without a closing brace, or with a hash tag such as '{app}': a group and its history would \
             be in two slots of a cluster"
                .to_owned(),
        );
    }
    let resp2 = |server: &Server| server.endpoint.protocol == Protocol::Resp2;
    if settings.topology == Topology::Cluster && settings.hosts.iter().any(resp2) {
        return Err(
            "'history' needs sharded pub/sub on a cluster, and so RESP 3: leave out 'protocol', or 'history'".to_owned(),
        );
    }
    Ok(())
}

/// Whether who is present can be known with these settings.
fn check_presence(settings: &Settings, keys: &Keys) -> Result<(), String> {
    if !settings.wire.has_envelopes() {
        return Err(
            "'presence' and 'counted' need the wire format of headrace: processes with wire='channels_redis' do not tell each other who is \
             there"
                .to_owned(),
        );
    }
    if !keys.can_tag_groups() {
        return Err(
            "'presence' and 'counted' need a prefix without a closing brace, or with a hash tag such as '{app}': a group and its hash would \
             be in two slots of a cluster"
                .to_owned(),
        );
    }
    Ok(())
}

/// Where the messages of a channel go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// A specific channel of this process.
    Here,
    /// A specific channel of another process.
    Elsewhere,
    /// A queue, which any process may read.
    Queue,
}

/// Whether an operation is done already, or was requested.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<T, P = ()> {
    /// It is done; nobody has to wait.
    Done(T),
    /// The ticket will be answered. What is to be kept until then may come with it.
    Asked(P),
}

impl<H: Host> RedisEngine<H> {
    /// An engine that connects when it is first used.
    ///
    /// # Errors
    /// The prefix cannot begin a key, or the system has no randomness for the id of the process.
    pub fn new(
        host: Arc<H>,
        local: Arc<Local<H>>,
        settings: Settings,
        runtime: Arc<Runtime>,
    ) -> Result<Self, String> {
        let keys = Keys::new(&settings.prefix).map_err(|error| error.to_string())?;
        let keys = keys.in_form(settings.wire);
        if !settings.history.is_empty() {
            check_history(&settings, &keys)?;
        }
        if !settings.presence.is_empty() || !settings.counted.is_empty() {
            check_presence(&settings, &keys)?;
        }
        let me = random::id().map_err(|error| format!("the system has no randomness: {error}"))?;
        let me = ProcessId(me);
        let settings = Arc::new(settings);
        let shared = Arc::new(Shared::default());
        let joins: Arc<Joins> = Arc::default();
        let (asks, asked) = unbounded_channel();
        let parts = DriverParts {
            host: Arc::clone(&host),
            engine: Arc::clone(&local),
            joins: Arc::clone(&joins),
            settings: Arc::clone(&settings),
            keys: keys.clone(),
            me,
            shared: Arc::clone(&shared),
            transport: Arc::new(RedisTransport),
            sentinels: Arc::clone(runtime.sentinels()),
        };
        Ok(Self {
            host,
            local,
            settings,
            ending: format!(".{me}"),
            own_topic: keys.process(me),
            keys,
            me,
            shared,
            joins,
            asks,
            unstarted: Mutex::new(Some((parts, asked))),
            runtime,
        })
    }

    /// The id of this process, as far as this layer is concerned.
    pub fn process(&self) -> ProcessId {
        self.me
    }

    /// The mailboxes of this process.
    pub fn local(&self) -> &Arc<Local<H>> {
        &self.local
    }

    /// The wire format of messages.
    pub fn wire(&self) -> Wire {
        self.settings.wire
    }

    /// Whether a channel is named as those that this process makes.
    pub fn has_made(&self, channel: &str) -> bool {
        let owner = channel.split_once('!').map(|(owner, _token)| owner);
        owner.is_some_and(|owner| owner.ends_with(&self.ending))
    }

    /// Where the messages of a channel go.
    pub fn location(&self, channel: &str) -> Location {
        if !self.wire().has_queues() {
            return Location::Here;
        }
        if self.has_made(channel) {
            return Location::Here;
        }
        match process_of(channel) {
            Some(_) => Location::Elsewhere,
            None => Location::Queue,
        }
    }

    /// Checks that requests are accepted. At the end of the process the connections close before the mailboxes.
    ///
    /// # Errors
    /// It was closed.
    pub fn check_open(&self) -> Result<(), Error> {
        if self.shared.meter.state() == ConnectionState::Closed {
            return Err(Error::Closed);
        }
        self.local.check_open()
    }

    pub(super) fn ask(&self, ask: Ask<H::Ticket>) {
        let unstarted = self.unstarted.lock().take();
        if let Some((parts, asked)) = unstarted {
            self.runtime.handle().spawn(Driver::run(parts, asked));
        }
        if let Err(refused) = self.asks.send(ask) {
            let answers = refused.0.refused().into_iter().collect();
            assert_unlocked();
            self.host.deliver(answers, Vec::new());
        }
    }

    /// Connects, if it is not connected.
    pub fn connect(&self, ticket: H::Ticket) {
        self.ask(Ask::Connect { ticket });
    }

    /// Whether the connection has been made, and its subscriptions are confirmed.
    pub fn is_ready(&self) -> bool {
        !self.wire().has_peers() || self.shared.topics.lock().contains(&self.own_topic)
    }

    /// Subscribes to a pub/sub channel, by its name.
    pub fn listen(&self, topic: &str, ticket: H::Ticket) -> Progress<H::Ticket> {
        if self.shared.topics.lock().contains(topic) {
            return Progress::Done(ticket);
        }
        self.ask(Ask::Subscribe {
            topic: topic.to_owned(),
            ticket,
        });
        Progress::Asked(())
    }

    /// Drops the messages of a channel and takes it out of all its groups; a queue's for the whole fleet, without waiting for
    /// that to be done.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn close_channel(&self, channel: &str) -> Result<(), Error> {
        self.local.close_channel(channel)?;
        self.note_left(true);
        if self.location(channel) != Location::Queue {
            return Ok(());
        }
        let mut plain = self.shared.plain.lock();
        let groups = plain.of_channel(channel, self.shared.now());
        for group in &groups {
            plain.remove(group, channel);
        }
        drop(plain);
        for group in groups {
            self.ask(Ask::Membership {
                group,
                channel: channel.to_owned(),
                lasts: None,
                ticket: None,
            });
        }
        self.ask(Ask::CloseQueue {
            channel: channel.to_owned(),
        });
        Ok(())
    }

    /// Removes what the layer has on the servers, here, and in all processes.
    pub fn flush(&self, ticket: H::Ticket) {
        self.ask(Ask::Flush { ticket });
    }

    /// Answers when all messages asked for so far have been taken or given up.
    pub fn drain(&self, ending: bool, ticket: H::Ticket) {
        self.ask(Ask::Drain { ending, ticket });
    }

    /// Whether the driver was started: else there is nothing to wait for at the end.
    pub fn is_started(&self) -> bool {
        self.unstarted.lock().is_none()
    }

    /// Ends the connections. What waits in queues is left to other processes, and counted as dropped here.
    pub fn close(&self, ticket: H::Ticket) {
        let left: u64 = self
            .shared
            .depths
            .lock()
            .drain()
            .map(|(_, depth)| depth)
            .sum();
        count(&self.shared.meter.queue_dropped, left);
        self.shared.plain.lock().clear();
        self.shared.meter.set_state(ConnectionState::Closed);
        let unstarted = self.unstarted.lock().take();
        if unstarted.is_some() {
            // There is nothing to end, and nobody to answer.
            self.shared.notices.end();
            return;
        }
        self.ask(Ask::Close { ticket });
    }

    /// Waits for the next notice to the owner.
    pub fn next_notice(&self, timeout: Duration) -> Option<Notice> {
        self.shared.notices.next(timeout)
    }
}

impl<H: Host> fmt::Debug for RedisEngine<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisEngine")
            .field("process", &self.me)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::driver::testing::{World, settings};
    use super::*;
    use crate::clock::ManualClock;
    use crate::config::Config;
    use crate::memory::MemoryEngine;

    /// A layer whose requests reach no driver, and those requests.
    pub(in crate::redis) fn undriven(
        wire: Wire,
    ) -> (RedisEngine<World>, UnboundedReceiver<Ask<u32>>) {
        let local = MemoryEngine::new(Config::default(), ManualClock::default());
        let runtime = Runtime::start().expect("there are threads");
        let settings = Settings {
            wire,
            ..settings(Topology::Shards)
        };
        let engine = RedisEngine::new(Arc::default(), Arc::new(local), settings, Arc::new(runtime));
        let engine = engine.expect("the prefix is plain");
        let (_, asked) = engine.unstarted.lock().take().expect("it was not used");
        (engine, asked)
    }

    #[test]
    fn the_process_is_in_the_names_of_its_channels_alone() {
        let (engine, _asked) = undriven(Wire::Headrace);
        let here = format!("a.{}!b", engine.process());
        assert_eq!(engine.location(&here), Location::Here);
        assert_eq!(engine.location("a.0123456789abcdef!b"), Location::Elsewhere);
        assert_eq!(engine.location("work"), Location::Queue);
        let (engine, _asked) = undriven(Wire::ChannelsRedis);
        assert_eq!(engine.location("work"), Location::Here);
    }
}
