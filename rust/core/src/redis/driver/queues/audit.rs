//! Checks that are made once a second: of queues with waiting receivers, of messages that nobody here wants any more, and of
//! queues that nobody uses.

use std::time::Duration;

use super::{Queues, wake};
use crate::redis::driver::context::Context;
use crate::redis::driver::request::{Request, Then};
use crate::redis::host::Host;
use crate::redis::link::Command;
use crate::redis::meter::count;
use crate::redis::wire::envelope::{self, Draft, Header};

/// For how long entries that have come are remembered where the messages live longer: a server that takes over is not further
/// behind.
const LAG: Duration = Duration::from_secs(60);
/// How many queues without waiting receivers here are looked at in a second.
const LOOKS: usize = 64;
/// How long a message waits here for a receiver that left, before it goes back to its queue.
const STALE: Duration = Duration::from_secs(1);

impl Queues {
    /// Fetches from the queues with waiting receivers, hands back messages that nobody here wants any more, and forgets
    /// the queues that nobody uses and whose entries cannot come twice.
    pub(crate) fn audit<H: Host>(&mut self, cx: &mut Context<H>) {
        let channels: Vec<String> = self.queues.keys().cloned().collect();
        let mut known_ones = Vec::new();
        let remembered = cx.settings.expiry.min(LAG);
        for channel in channels {
            if cx.local.waiters(&channel) > 0 {
                self.fetch(cx, &channel);
                continue;
            }
            if cx.local.depth(&channel) > 0 {
                self.hand_back_if_stale(cx, &channel);
                continue;
            }
            let known = cx.shared.depths.lock().contains_key(&channel);
            let Some(queue) = self.queues.get_mut(&channel) else {
                continue;
            };
            queue.stale = None;
            let past = queue.came.is_none_or(|came| cx.now - came >= remembered);
            let over = past && queue.is_acknowledged();
            if queue.unsure {
                self.recover(cx, &channel);
            } else if known && queue.fetching == 0 {
                known_ones.push((queue.looked, channel));
            } else if !known && queue.fetching == 0 && over {
                self.queues.remove(&channel);
            }
        }
        self.look_at_some(cx, known_ones);
    }

    /// Asks for the lengths of the queues that were not looked at for longest. Only `stats()` needs them.
    fn look_at_some<H: Host>(&mut self, cx: &mut Context<H>, mut queues: Vec<(u64, String)>) {
        if queues.len() > LOOKS {
            queues.select_nth_unstable(LOOKS);
            queues.truncate(LOOKS);
        }
        for (_, channel) in queues {
            self.look_at(cx, channel);
        }
    }

    /// Asks how long a queue is.
    fn look_at<H: Host>(&mut self, cx: &mut Context<H>, channel: String) {
        self.looks += 1;
        if let Some(queue) = self.queues.get_mut(&channel) {
            queue.looked = self.looks;
        }
        let (name, key) = (channel.clone(), cx.keys.queue(&channel));
        let command = Command::new("LLEN").text(&key);
        let then = Then::Fetched {
            channel,
            asked: 0,
            call: None,
        };
        cx.submit(Request::new(&name, &key, vec![command], cx.until(), then).safe());
    }

    fn hand_back_if_stale<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        let Some(queue) = self.queues.get_mut(channel) else {
            return;
        };
        let since = *queue.stale.get_or_insert(cx.now);
        if since + STALE <= cx.now {
            queue.stale = None;
            self.hand_back(cx, channel);
        }
    }

    /// Puts all messages that wait here back to the front of their queues.
    pub(crate) fn hand_back_all<H: Host>(&mut self, cx: &mut Context<H>) {
        let channels: Vec<String> = self.queues.keys().cloned().collect();
        for channel in channels {
            self.hand_back(cx, &channel);
        }
    }

    /// Puts the messages that wait here back to the front of their queue. They expire anew: how old they are is not known
    /// any more.
    ///
    /// Only where there is a connection: the messages leave the mailbox, and would be lost with the request.
    fn hand_back<H: Host>(&mut self, cx: &mut Context<H>, channel: &str) {
        let key = cx.keys.queue(channel);
        if !cx.servers.can_write(channel, &key) {
            return;
        }
        let mut messages = Vec::new();
        while let Ok(Some(message)) = cx.local.take(channel) {
            messages.push(message.message);
        }
        if messages.is_empty() {
            return;
        }
        let mut commands = Vec::with_capacity(messages.len() + 2);
        for message in messages.iter().rev() {
            if let Some(entry) = entry_of(cx, channel, message) {
                commands.push(Command::new("LPUSH").text(&key).envelope(entry));
            }
        }
        self.index(cx, channel);
        let messages = commands.len() as u64;
        count(&cx.shared.meter.handed_back, messages);
        self.note_depth(cx, channel, messages);
        commands.push(Command::expire(&key, cx.expiry_ms()));
        commands.push(wake(cx, channel));
        let call = cx.call(1, None);
        let then = Then::HandedBack { call, messages };
        cx.submit(Request::new(channel, &key, commands, cx.until(), then));
    }
}

fn entry_of<H: Host>(cx: &mut Context<H>, channel: &str, message: &H::Message) -> Option<Draft> {
    let payload = cx.host.payload(message)?;
    let header = Header {
        sender: cx.me,
        ..Header::default()
    };
    let body = envelope::OutgoingBody::Direct { channel, payload };
    let entry = envelope::encode(&header, body, cx.seal()).ok()?;
    Some(cx.numbered(&cx.keys.queue(channel), entry))
}
