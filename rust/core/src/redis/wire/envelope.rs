//! What is published, queued and kept: a header, and one of four bodies.
//!
//! | bytes | |
//! |---|---|
//! | 0 | version: 1, or 2 if the envelope is authenticated |
//! | 1 | flags: the kind in the low four bits (0 group, 1 direct, 2 control, 3 kept), 16 if the body is encrypted |
//! | 2..10 | the sender, a process id |
//! | 10..18 | the sequence: counted per sender and destination, from 1 |
//! | 18..26 | the deadline: milliseconds since the Unix epoch by the server's clock |
//! | 26.. | the body |
//!
//! Numbers are big-endian. A name is its length in one byte and its text. The body of a group message is a byte that
//! counts the excluded channels, their names, and the payload; of a direct one the channel's name and the payload; of a
//! control message an operation (one byte) and its fields. A kept message is one for a group that keeps its history: its
//! epoch follows the header, and then the body of a group message. The epoch is not encrypted.
//!
//! The body is encrypted by the sender's thread, the sequence and the deadline are set later: until then it is a [`Draft`].
//! An encrypted body of version 1 is a Fernet token of it ([`crypt`](crate::redis::wire::crypt)), and nothing else is authenticated. In version 2 it is
//! an initialisation vector, the text by AES-128-CBC, and a code that authenticates all that and the destination
//! ([`sealing`](crate::redis::wire::crypt::sealing)).
//!
//! [`decode`] refuses whatever it does not know in full: it never guesses, skips or repairs. It does not look into
//! payloads; [`crate::redis::wire::payload`] does. It copies no payload and allocates no more than it was given.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used,
        reason = "the bytes come from a server"
    )
)]

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use self::format::{CONTROL, DIRECT, ENCRYPTED, GROUP, KEPT, KIND, SEALED, VERSION, epoch_length};
use self::reader::{Reader, put_name};
use super::crypt::sealing::OVERHEAD;
use super::crypt::{Crypt, IV, Version};
use super::keys::ProcessId;

mod control;
mod draft;
mod error;
mod format;
mod reader;

pub use control::Control;
pub use draft::{Date, Draft};
pub use error::{Malformed, Unsendable};
pub use format::{HEADER, MAX_EXCLUDED};

/// What every envelope begins with. It is not encrypted, and authenticated only in version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub sender: ProcessId,
    /// Counted per sender and destination, from 1.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch, by the server's clock; the message is dropped afterwards.
    pub deadline: u64,
}

/// A body to be sent. Names are not checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutgoingBody<'a> {
    /// For the members of a group, which the pub/sub channel names.
    Group {
        /// Members that don't get it.
        exclude: &'a [&'a str],
        /// The message in msgpack.
        payload: &'a [u8],
    },
    /// The same, for a group that keeps its history. The epoch is set later.
    Kept {
        /// Members that don't get it.
        exclude: &'a [&'a str],
        /// The message in msgpack.
        payload: &'a [u8],
    },
    /// For one channel.
    Direct {
        /// Its name.
        channel: &'a str,
        /// The message in msgpack.
        payload: &'a [u8],
    },
    /// From engine to engine.
    Control(&'a Control),
}

/// A message in msgpack, where it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// What stands at the end of a buffer and has so many bytes.
    fn at_the_end(mut bytes: Bytes, length: usize) -> Self {
        bytes.advance(bytes.len().saturating_sub(length));
        Self(bytes)
    }

    /// The msgpack.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The msgpack, where it is.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<Vec<u8>> for Payload {
    /// A payload that fills its buffer, as under `wire="channels_redis"`.
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Payload {
    /// Without the content, which must not appear in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.as_bytes().len())
    }
}

/// A body that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// For the members of a group, which the pub/sub channel names.
    Group {
        /// Members that don't get it.
        exclude: Vec<String>,
        /// The message.
        payload: Payload,
    },
    /// The same, for a group that keeps its history.
    Kept {
        /// The epoch of the stream that it was written to.
        epoch: u64,
        /// Members that don't get it.
        exclude: Vec<String>,
        /// The message.
        payload: Payload,
    },
    /// For one channel.
    Direct {
        /// Its name.
        channel: String,
        /// The message.
        payload: Payload,
    },
    /// From engine to engine.
    Control(Control),
}

/// An envelope that came in, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedEnvelope {
    /// The sender, the sequence and the deadline.
    pub header: Header,
    /// The body.
    pub body: Body,
    /// Whether a key of this layer authenticates all of it, for the destination that it came by.
    pub authenticated: bool,
}

/// How to encrypt what is sent: with which keys, at what time (seconds since the Unix epoch).
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// The keys.
    pub crypt: &'a Crypt,
    /// The time that the token carries.
    pub now: u64,
}

/// Writes an envelope, but for what is known only later.
///
/// # Errors
/// Names more channels than fit, a name that is too long, or no random bytes for encryption.
pub fn encode(
    header: &Header,
    body: OutgoingBody<'_>,
    seal: Option<Seal<'_>>,
) -> Result<Draft, Unsendable> {
    let (kind, length) = match body {
        OutgoingBody::Group { exclude, payload } => (GROUP, group_length(exclude, payload)),
        OutgoingBody::Kept { exclude, payload } => (KEPT, group_length(exclude, payload)),
        OutgoingBody::Direct { channel, payload } => (DIRECT, 1 + channel.len() + payload.len()),
        OutgoingBody::Control(_) => (CONTROL, 64),
    };
    let put_header = |bytes: &mut Vec<u8>, version, flags| {
        bytes.extend([version, flags]);
        bytes.extend(header.sender.0.to_be_bytes());
        bytes.extend(header.sequence.to_be_bytes());
        bytes.extend(header.deadline.to_be_bytes());
        bytes.extend(std::iter::repeat_n(0, epoch_length(kind)));
    };
    let start = HEADER + epoch_length(kind);
    let Some(Seal { crypt, now }) = seal else {
        let mut bytes = Vec::with_capacity(start + length);
        put_header(&mut bytes, VERSION, kind);
        put_body(&mut bytes, body)?;
        return Ok(bytes.into());
    };
    if crypt.sends(Version::Two) {
        let mut bytes = Vec::with_capacity(start + length + OVERHEAD);
        put_header(&mut bytes, SEALED, kind | ENCRYPTED);
        bytes.extend([0; IV]);
        put_body(&mut bytes, body)?;
        let digest = crypt.seal(&mut bytes, start)?;
        return Ok(Draft::sealed(bytes, digest));
    }
    let mut text = Vec::with_capacity(length);
    put_body(&mut text, body)?;
    let token = crypt.encrypt(&text, now)?;
    let mut bytes = Vec::with_capacity(start + token.len());
    put_header(&mut bytes, VERSION, kind | ENCRYPTED);
    bytes.extend(token);
    Ok(bytes.into())
}

fn group_length(exclude: &[&str], payload: &[u8]) -> usize {
    let names: usize = exclude.iter().map(|name| 1 + name.len()).sum();
    1 + names + payload.len()
}

fn put_body(bytes: &mut Vec<u8>, body: OutgoingBody<'_>) -> Result<(), Unsendable> {
    match body {
        OutgoingBody::Group { exclude, payload } | OutgoingBody::Kept { exclude, payload } => {
            let count = u8::try_from(exclude.len());
            bytes.push(count.map_err(|_| Unsendable::TooManyExcluded(exclude.len()))?);
            exclude.iter().try_for_each(|name| put_name(bytes, name))?;
            bytes.extend_from_slice(payload);
            Ok(())
        }
        OutgoingBody::Direct { channel, payload } => {
            put_name(bytes, channel)?;
            bytes.extend_from_slice(payload);
            Ok(())
        }
        OutgoingBody::Control(control) => control.put(bytes),
    }
}

/// The sender that an envelope names, which is not verified; 0 if it is too short.
pub fn sender(envelope: &[u8]) -> ProcessId {
    let mut reader = Reader::new(envelope.get(2..).unwrap_or_default());
    ProcessId(reader.number().unwrap_or_default())
}

/// The sender that an envelope names and its number, which are not verified; none if it is too short for a header.
pub(super) fn identity(envelope: &[u8]) -> Option<(ProcessId, u64)> {
    let mut reader = Reader::new(envelope.get(2..HEADER)?);
    let sender = ProcessId(reader.number().ok()?);
    Some((sender, reader.number().ok()?))
}

/// Reads an envelope that was written to a destination, a key or a pub/sub channel; the payload stays in the buffer, or in
/// that of the decrypted body. That is the same buffer if nobody else has it and the envelope is of version 2.
///
/// With keys, a body that is not encrypted is refused: else anybody who can publish could send without a key.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode(
    bytes: impl Into<Bytes>,
    destination: &str,
    crypt: Option<&Crypt>,
) -> Result<DecodedEnvelope, Malformed> {
    let bytes = bytes.into();
    let mut reader = Reader::new(&bytes);
    let version = reader.byte()?;
    if version != VERSION && version != SEALED {
        return Err(Malformed::Version(version));
    }
    let flags = reader.byte()?;
    if flags & !(KIND | ENCRYPTED) != 0 {
        return Err(Malformed::Flags(flags));
    }
    let kind = flags & KIND;
    if kind > KEPT {
        return Err(Malformed::Kind(kind));
    }
    let header = Header {
        sender: ProcessId(reader.number()?),
        sequence: reader.number()?,
        deadline: reader.number()?,
    };
    let epoch = if kind == KEPT { reader.number()? } else { 0 };
    let start = HEADER + epoch_length(kind);
    let sealed = version == SEALED;
    let body = match (crypt, flags & ENCRYPTED != 0) {
        (None, false) if sealed => Err(Malformed::Flags(flags)),
        (None, false) => read_body((kind, epoch), bytes, start),
        (Some(crypt), true) if sealed && crypt.reads(Version::Two) => {
            let mut bytes = BytesMut::from(bytes);
            let end = crypt.open(&mut bytes, start, destination);
            bytes.truncate(end.map_err(Malformed::Undecryptable)?);
            read_body((kind, epoch), bytes.freeze(), start + IV)
        }
        (Some(crypt), true) if !sealed && crypt.reads(Version::One) => {
            let text = crypt
                .decrypt(reader.rest())
                .map_err(Malformed::Undecryptable)?;
            read_body((kind, epoch), text.into(), 0)
        }
        (Some(_), true) => Err(Malformed::Unaccepted(version)),
        (None, true) => Err(Malformed::Encrypted),
        (Some(_), false) => Err(Malformed::NotEncrypted),
    }?;
    Ok(DecodedEnvelope {
        header,
        body,
        authenticated: sealed,
    })
}

fn read_body((kind, epoch): (u8, u64), bytes: Bytes, start: usize) -> Result<Body, Malformed> {
    let mut reader = Reader::new(bytes.get(start..).ok_or(Malformed::Truncated)?);
    match kind {
        GROUP | KEPT => {
            let count = reader.byte()?;
            let exclude = (0..count)
                .map(|_| reader.channel())
                .collect::<Result<_, _>>()?;
            let length = reader.rest().len();
            let payload = Payload::at_the_end(bytes, length);
            Ok(if kind == KEPT {
                Body::Kept {
                    epoch,
                    exclude,
                    payload,
                }
            } else {
                Body::Group { exclude, payload }
            })
        }
        DIRECT => {
            let channel = reader.channel()?;
            let length = reader.rest().len();
            let payload = Payload::at_the_end(bytes, length);
            Ok(Body::Direct { channel, payload })
        }
        _ => {
            let control = Control::read(&mut reader)?;
            if reader.rest().is_empty() {
                Ok(Body::Control(control))
            } else {
                Err(Malformed::Trailing)
            }
        }
    }
}

#[cfg(test)]
mod tests;
