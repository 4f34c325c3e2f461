//! How callers send: a message is prepared, takes up room, and is handed to the driver.

use std::time::Duration;

use super::driver::{Ask, Claim, Dispatch};
use super::engine::{Location, RedisEngine};
use super::fault::Fault;
use super::host::Host;
use super::meter::count;
use super::wire::envelope::{self, Draft, Header, OutgoingBody, Seal, Unsendable};
use crate::error::Error;
use crate::name::{check_channel, check_group};

/// A message that is prepared, and takes up room.
#[derive(Debug)]
pub struct Prepared {
    dispatch: Dispatch,
    claim: Claim,
}

impl Prepared {
    /// Whether there is room for it now.
    pub fn has_room(&self) -> bool {
        self.claim.is_admitted()
    }

    /// Sleeps until there is room for it, or until the time is over.
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        self.claim.wait(timeout)
    }
}

/// Why a message was not handed to the driver.
#[derive(Debug)]
pub enum Unsent {
    /// A name is invalid, or the layer is closed.
    Refused(Error),
    /// The mailbox is here, and full.
    Full,
    /// It does not fit into an envelope.
    Unsendable(Unsendable),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Unsendable> for Unsent {
    fn from(error: Unsendable) -> Self {
        Self::Unsendable(error)
    }
}

/// One of several messages: where to, and its msgpack.
pub type Addressed = (String, Vec<u8>);

impl<H: Host> RedisEngine<H> {
    fn seal(&self) -> Option<Seal<'_>> {
        self.settings.crypt.as_deref().map(|crypt| Seal {
            crypt,
            now: self.shared.now() / 1000,
        })
    }

    fn entry(&self, body: OutgoingBody<'_>) -> Result<Draft, Unsendable> {
        if !self.wire().has_envelopes() {
            let payload = match body {
                OutgoingBody::Group { payload, .. }
                | OutgoingBody::Kept { payload, .. }
                | OutgoingBody::Direct { payload, .. } => payload,
                OutgoingBody::Control(_) => return Ok(Vec::new().into()),
            };
            let bytes = match self.seal() {
                Some(Seal { crypt, now }) => crypt.encrypt(payload, now)?,
                None => payload.to_vec(),
            };
            return Ok(bytes.into());
        }
        let header = Header {
            sender: self.me,
            ..Header::default()
        };
        envelope::encode(&header, body, self.seal())
    }

    /// Makes a message, given as msgpack, ready to go to a channel.
    ///
    /// # Errors
    /// A name is invalid, the layer is closed, or the mailbox is here and full.
    pub fn prepare_send(&self, channel: &str, payload: &[u8]) -> Result<Prepared, Unsent> {
        Ok(self.claimed(self.to_channel(channel, payload)?))
    }

    /// Makes a message, given as msgpack, ready to go to the members of a group.
    ///
    /// # Errors
    /// A name is invalid, or the layer is closed, or more channels are excluded than an envelope names.
    pub fn prepare_group_send(
        &self,
        group: &str,
        payload: &[u8],
        exclude: &[&str],
    ) -> Result<Prepared, Unsent> {
        let kept = self.keeps(group);
        Ok(self.claimed(self.to_group(group, payload, exclude, kept)?))
    }

    /// Makes a message ready that ends those who are in a group now. No history keeps it: it would end those who come later.
    ///
    /// # Errors
    /// As `prepare_group_send`.
    pub fn prepare_group_close(
        &self,
        group: &str,
        payload: &[u8],
        exclude: &[&str],
    ) -> Result<Prepared, Unsent> {
        Ok(self.claimed(self.to_group(group, payload, exclude, false)?))
    }

    fn claimed(&self, dispatch: Dispatch) -> Prepared {
        let claim = Claim::new(&self.shared.backlog, 1, dispatch.len());
        Prepared { dispatch, claim }
    }

    /// Sends a message. Without a ticket only the counters show its outcome. If there is no room, the message waits in
    /// the driver, and is given up after a timeout; a caller that does not wait for the answer has to wait for room
    /// before.
    pub fn send(&self, message: Prepared, ticket: Option<H::Ticket>) {
        let Prepared { dispatch, claim } = message;
        self.ask(Ask::Send {
            messages: vec![dispatch],
            claim,
            ticket,
        });
    }

    /// Why a message would be given up at once, if no server can be reached; the message is counted as unsent. For
    /// senders that do not wait for the answer, which has the same fault.
    pub fn refuse_unreachable(&self) -> Option<Fault> {
        let fault = self.shared.unreachable()?;
        count(&self.shared.meter.unsent, 1);
        Some(fault)
    }

    /// How long a sender waits for the servers.
    pub fn send_timeout(&self) -> Duration {
        self.settings.send_timeout
    }

    /// Counts a message for which there was no room in that time, and returns why.
    pub fn give_up(&self, message: Prepared) -> Fault {
        drop(message);
        count(&self.shared.meter.unsent, 1);
        self.shared.no_room(self.settings.send_timeout)
    }

    fn to_channel(&self, channel: &str, payload: &[u8]) -> Result<Dispatch, Unsent> {
        check_channel(channel).map_err(Error::from)?;
        self.check_open()?;
        let here = self.wire().has_queues() && self.location(channel) == Location::Here;
        if here && self.local.is_full(channel, payload.len()) {
            self.local.count_full(channel);
            return Err(Unsent::Full);
        }
        Ok(Dispatch::Channel {
            channel: channel.to_owned(),
            entry: self.entry(OutgoingBody::Direct { channel, payload })?,
        })
    }

    fn to_group(
        &self,
        group: &str,
        payload: &[u8],
        exclude: &[&str],
        kept: bool,
    ) -> Result<Dispatch, Unsent> {
        check_group(group).map_err(Error::from)?;
        self.check_open()?;
        Ok(Dispatch::Group {
            group: group.to_owned(),
            exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
            entry: self.entry(if kept {
                OutgoingBody::Kept { exclude, payload }
            } else {
                OutgoingBody::Group { exclude, payload }
            })?,
        })
    }

    /// Sends messages to channels, with one answer for all; a full mailbox here is counted and no error.
    ///
    /// # Errors
    /// As `prepare_send`, but for full mailboxes. Nothing was sent then.
    pub fn send_many(&self, messages: &[Addressed], ticket: H::Ticket) -> Result<usize, Unsent> {
        let mut dispatches = Vec::with_capacity(messages.len());
        let mut full = 0;
        for (channel, payload) in messages {
            match self.to_channel(channel, payload) {
                Ok(dispatch) => dispatches.push(dispatch),
                Err(Unsent::Full) => full += 1,
                Err(unsent) => return Err(unsent),
            }
        }
        self.send_all(dispatches, ticket);
        Ok(full)
    }

    /// Sends messages to groups, but not to the excluded channels, with one answer for all.
    ///
    /// # Errors
    /// As `prepare_group_send`. Nothing was sent then.
    pub fn group_send_many(
        &self,
        messages: &[Addressed],
        exclude: &[&str],
        ticket: H::Ticket,
    ) -> Result<(), Unsent> {
        let dispatches = messages
            .iter()
            .map(|(group, payload)| self.to_group(group, payload, exclude, self.keeps(group)))
            .collect::<Result<_, _>>()?;
        self.send_all(dispatches, ticket);
        Ok(())
    }

    fn send_all(&self, dispatches: Vec<Dispatch>, ticket: H::Ticket) {
        let bytes = dispatches.iter().map(Dispatch::len).sum();
        let claim = Claim::new(&self.shared.backlog, dispatches.len(), bytes);
        self.ask(Ask::Send {
            messages: dispatches,
            claim,
            ticket: Some(ticket),
        });
    }
}
