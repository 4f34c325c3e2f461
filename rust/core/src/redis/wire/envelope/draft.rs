//! Envelopes on their way out: encrypted already, and not yet numbered, dated and authenticated.

use std::mem;

use bytes::{Bytes, BytesMut};

use super::format::{CONTROL, HEADER, KEPT, KIND, epoch_length};
use crate::redis::wire::crypt::sealing::Digest;
use crate::redis::wire::crypt::{Crypt, MAC};

/// How many milliseconds a control message is valid, if it is authenticated; others have no deadline.
const CONTROL_LASTS: u64 = 60_000;

/// An envelope that lacks what is known only when it is written to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    bytes: Bytes,
    /// Of its body, if all of it is to be authenticated; the room for the code is at the end of the bytes.
    digest: Option<Box<Digest>>,
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
            digest: Some(Box::new(digest)),
        }
    }

    /// The draft of bytes that were written, to be dated once more, with what `digest` gave then.
    pub fn again(bytes: Bytes, digest: Option<Digest>) -> Self {
        let digest = digest.map(Box::new);
        Self { bytes, digest }
    }

    /// The digest of its body, if it will be authenticated.
    pub fn digest(&self) -> Option<Digest> {
        self.digest.as_deref().copied()
    }

    /// Whether it will be authenticated.
    pub fn is_sealed(&self) -> bool {
        self.digest.is_some()
    }

    /// Whether it is a message that is kept, and has an epoch.
    pub fn is_kept(&self) -> bool {
        let flags = self.bytes.get(1);
        flags.is_some_and(|flags| flags & KIND == KEPT)
    }

    /// Sets the epoch of a message that is kept.
    pub fn epoch(&mut self, epoch: u64) {
        if self.is_kept() {
            self.change(|bytes| set(bytes, HEADER, epoch));
        }
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
        let authenticates = self.digest().zip(date.crypt);
        self.change(|bytes| {
            set(bytes, HEADER - 8, date.now.saturating_add(lasts));
            if let Some((digest, crypt)) = authenticates
                && let Some((signed, code)) = bytes.split_last_chunk_mut::<MAC>()
            {
                let end = HEADER + signed.get(1).copied().map_or(0, epoch_length);
                let header = signed.get(..end).unwrap_or_default();
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

/// Sets a number of the header or the epoch behind it, if all of the header is there.
fn set(bytes: &mut [u8], at: usize, number: u64) {
    if bytes.len() < HEADER {
        return;
    }
    if let Some(field) = bytes.get_mut(at..at + 8) {
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
