//! Envelopes on their way out: encrypted already, and not yet numbered, dated and authenticated.

use std::mem;

use bytes::{Bytes, BytesMut};

use super::format::{CONTROL, HEADER, KIND};
use crate::redis::wire::crypt::sealing::Digest;
use crate::redis::wire::crypt::{Crypt, MAC};

/// How many milliseconds a control message is valid, if it is authenticated; others have no deadline.
const CONTROL_LASTS: u64 = 60_000;

/// An envelope that lacks what is known only when it is written to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    bytes: Bytes,
    /// Of its body, if all of it is to be authenticated; the room for the code is at the end of the bytes.
    digest: Option<Digest>,
}

/// What depends on the server that something is written to, and on the moment.
#[derive(Clone, Copy, Debug)]
pub struct Date<'a> {
    /// The time there, in milliseconds since the Unix epoch.
    pub now: u64,
    /// How many milliseconds a message is valid.
    pub expiry: u64,
    /// The keys.
    pub crypt: Option<&'a Crypt>,
}

impl Draft {
    /// A draft of an encrypted body, with room for the code that will authenticate it.
    pub(super) fn sealed(mut bytes: Vec<u8>, digest: Digest) -> Self {
        bytes.extend([0; MAC]);
        Self {
            bytes: bytes.into(),
            digest: Some(digest),
        }
    }

    /// Whether it will be authenticated.
    pub fn is_sealed(&self) -> bool {
        self.digest.is_some()
    }

    /// Sets its number. Bytes that are too short for a header stay as they are.
    pub fn number(&mut self, sequence: u64) {
        self.change(|bytes| set(bytes, HEADER - 16, sequence));
    }

    /// Sets its deadline and authenticates it, for this destination alone. May be done again.
    pub fn date(&mut self, date: &Date<'_>, destination: &str) {
        let lasts = match self.bytes.get(1) {
            Some(flags) if flags & KIND == CONTROL => CONTROL_LASTS,
            _ => date.expiry,
        };
        let authenticates = self.digest.zip(date.crypt);
        self.change(|bytes| {
            set(bytes, HEADER - 8, date.now.saturating_add(lasts));
            if let Some((digest, crypt)) = authenticates
                && let Some((signed, code)) = bytes.split_last_chunk_mut::<MAC>()
            {
                let header = signed.get(..HEADER).unwrap_or_default();
                *code = crypt.authenticate(header, &digest, destination);
            }
        });
    }

    /// Changes the bytes in their buffer, or, if somebody else has that too, in a copy.
    fn change(&mut self, change: impl FnOnce(&mut [u8])) {
        let mut bytes = BytesMut::from(mem::take(&mut self.bytes));
        change(&mut bytes);
        self.bytes = bytes.freeze();
    }

    /// How many bytes travel.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes as they are now.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes as they are now.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// Sets a number of the header, if all of that is there.
fn set(bytes: &mut [u8], at: usize, number: u64) {
    let header = bytes.get_mut(..HEADER);
    if let Some(field) = header.and_then(|header| header.get_mut(at..at + 8)) {
        field.copy_from_slice(&number.to_be_bytes());
    }
}

impl From<Vec<u8>> for Draft {
    /// What is not authenticated, or no envelope.
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into(),
            digest: None,
        }
    }
}
