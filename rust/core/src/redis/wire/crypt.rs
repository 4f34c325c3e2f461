//! Encryption in two versions, with keys made from any secret, and more than one of them so that a fleet can change keys
//! while it runs. What travels in version 2 is authenticated as a whole: see [`sealing`].
//!
//! Version 1 is as `channels_redis` does it, which knows no other: Fernet tokens.
//!
//! A token is base64 (URL-safe, padded) of `0x80`, the time in seconds (8 bytes), an initialisation vector (16 bytes),
//! the text by AES-128-CBC, and HMAC-SHA256 of all that. The SHA-256 of a secret is the key: its first half signs, its
//! second half encrypts. What decrypts was made with a known secret, and is complete; it may
//! be a replay. The length of a message can be seen.

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

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::consts::U16;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

mod cipher;
mod error;
pub mod sealing;

use self::cipher::{BLOCK, Decryptor, Encryptor};
use self::sealing::{Digest as BodyDigest, SealingKey};

pub(in crate::redis::wire) use cipher::{IV, MAC};
pub use error::{NoRandomness, Undecryptable};

const VERSION: u8 = 0x80;
/// Version, time and initialisation vector.
const HEAD: usize = 1 + 8 + IV;

/// The keys of a layer.
#[derive(Clone)]
pub struct Crypt {
    /// Never empty; the first one encrypts.
    keys: Vec<Key>,
    /// Never empty; the first one is sent, and all are read.
    versions: Vec<Version>,
}

/// How an envelope is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The body is a Fernet token, and nothing else is authenticated.
    One,
    /// The whole envelope is authenticated, and its destination with it.
    Two,
}

/// Both halves of a key, already scheduled: that is done once, not per message.
#[derive(Clone)]
struct Key {
    sign: Hmac<Sha256>,
    encrypt: Aes128Enc,
    decrypt: Aes128Dec,
    sealing: SealingKey,
}

impl fmt::Debug for Crypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crypt({} keys)", self.keys.len())
    }
}

impl Crypt {
    /// Keys made from the secrets; none without any. The first encrypts, all decrypt; only version 2.
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Option<Self> {
        let keys: Vec<Key> = secrets
            .into_iter()
            .map(|secret| Key::new(secret.as_ref()))
            .collect();
        let versions = vec![Version::Two];
        (!keys.is_empty()).then_some(Self { keys, versions })
    }

    /// The same keys for these versions: the first is sent, all are read. Without any it stays as it is.
    #[must_use]
    pub fn with_versions(mut self, versions: Vec<Version>) -> Self {
        if !versions.is_empty() {
            self.versions = versions;
        }
        self
    }

    /// Whether what is sent is of this version.
    pub fn sends(&self, version: Version) -> bool {
        self.versions.first() == Some(&version)
    }

    /// Whether what comes may be of this version.
    pub fn reads(&self, version: Version) -> bool {
        self.versions.contains(&version)
    }

    /// The token of a text, made at `now` (seconds since the Unix epoch).
    ///
    /// # Errors
    /// Only if the operating system has no random bytes.
    pub fn encrypt(&self, text: &[u8], now: u64) -> Result<Vec<u8>, NoRandomness> {
        let mut iv = [0; IV];
        getrandom::fill(&mut iv).map_err(NoRandomness)?;
        Ok(self.encrypt_with(text, now, iv))
    }

    fn encrypt_with(&self, text: &[u8], now: u64, iv: [u8; IV]) -> Vec<u8> {
        // There is a first key, by construction.
        self.keys
            .first()
            .map_or_else(Vec::new, |key| key.encrypt(text, now, iv))
    }

    /// The text of a token, of any age.
    ///
    /// # Errors
    /// Says why not. Takes the same time for every wrong signature.
    pub fn decrypt(&self, token: &[u8]) -> Result<Vec<u8>, Undecryptable> {
        let token = URL_SAFE.decode(token).map_err(|_| Undecryptable::NoToken)?;
        let parts = TokenParts::of(&token).ok_or(Undecryptable::NoToken)?;
        let mut keys = self.keys.iter();
        let key = keys
            .find(|key| key.signed(&parts))
            .ok_or(Undecryptable::WrongKey)?;
        key.decrypt(&parts)
    }

    /// Encrypts a text where it is: from `start` on there is room for an initialisation vector, and the text. Gives the
    /// digest of both.
    ///
    /// # Errors
    /// Only if the operating system has no random bytes.
    pub fn seal(&self, bytes: &mut Vec<u8>, start: usize) -> Result<BodyDigest, NoRandomness> {
        let mut iv = [0; IV];
        getrandom::fill(&mut iv).map_err(NoRandomness)?;
        Ok(self.seal_with(bytes, start, iv))
    }

    pub(in crate::redis) fn seal_with(
        &self,
        bytes: &mut Vec<u8>,
        start: usize,
        iv: [u8; IV],
    ) -> BodyDigest {
        // There is a first key, by construction.
        self.keys
            .first()
            .map_or([0; MAC], |key| key.sealing.seal(bytes, start, iv))
    }

    /// The code that authenticates an envelope at its destination.
    pub fn authenticate(&self, header: &[u8], digest: &BodyDigest, destination: &str) -> [u8; MAC] {
        let mac = |key: &Key| key.sealing.envelope(header, digest, destination);
        self.keys
            .first()
            .map_or([0; MAC], |key| mac(key).finalize().into_bytes().into())
    }

    /// Decrypts an envelope where it is, if it came to the destination that it was written to, and gives where its text ends. The
    /// text begins as long as an initialisation vector behind the header.
    ///
    /// # Errors
    /// Says why not. Takes the same time for every wrong code.
    pub fn open(
        &self,
        bytes: &mut [u8],
        header: usize,
        destination: &str,
    ) -> Result<usize, Undecryptable> {
        let end = bytes.len().checked_sub(MAC).ok_or(Undecryptable::NoToken)?;
        let (signed, mac) = bytes.split_at_mut(end);
        let (header, body) = signed
            .split_at_mut_checked(header)
            .ok_or(Undecryptable::NoToken)?;
        let digest = sealing::digest(body);
        let (&mut iv, text) = body
            .split_first_chunk_mut::<IV>()
            .ok_or(Undecryptable::NoToken)?;
        let whole_blocks = !text.is_empty() && text.len().is_multiple_of(BLOCK);
        if !whole_blocks {
            return Err(Undecryptable::NoToken);
        }
        let mut keys = self.keys.iter().map(|key| &key.sealing);
        let key = keys
            .find(|key| {
                let expected = key.envelope(header, &digest, destination);
                expected.verify_slice(mac).is_ok()
            })
            .ok_or(Undecryptable::WrongKey)?;
        let padding = key.open(text, iv)?;
        Ok(end - padding)
    }

    /// The code that authenticates a membership: a field of a hash, and when it ends.
    pub fn authenticate_member(&self, key: &str, field: &str, end: &str) -> [u8; MAC] {
        let mac = |known: &Key| known.sealing.member(key, field, end);
        self.keys
            .first()
            .map_or([0; MAC], |known| mac(known).finalize().into_bytes().into())
    }

    /// Whether that is the code of a membership, by any of the keys.
    pub fn knows_member(&self, key: &str, field: &str, end: &str, mac: &[u8]) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|known| {
            let expected = known.sealing.member(key, field, end);
            expected.verify_slice(mac).is_ok()
        })
    }
}

/// The parts of a token that is not verified yet.
struct TokenParts<'a> {
    signed: &'a [u8],
    mac: &'a [u8],
    iv: [u8; IV],
    text: &'a [u8],
}

impl<'a> TokenParts<'a> {
    fn of(token: &'a [u8]) -> Option<Self> {
        let (signed, mac) = token.split_at_checked(token.len().checked_sub(MAC)?)?;
        let (head, text) = signed.split_first_chunk::<HEAD>()?;
        let (&version, head) = head.split_first()?;
        let (_time, head) = head.split_first_chunk::<8>()?;
        let &iv = head.first_chunk::<IV>()?;
        let whole_blocks = !text.is_empty() && text.len().is_multiple_of(BLOCK);
        (version == VERSION && whole_blocks).then_some(Self {
            signed,
            mac,
            iv,
            text,
        })
    }
}

impl Key {
    fn new(secret: &[u8]) -> Self {
        let (sign, encrypt) = Sha256::digest(secret).split::<U16>();
        // HMAC fills a short key up with zeros; done here, nothing can fail.
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block.iter_mut().zip(sign).for_each(|(to, byte)| *to = byte);
        Self {
            sign: Hmac::new(&block),
            encrypt: Aes128Enc::new(&encrypt),
            decrypt: Aes128Dec::new(&encrypt),
            sealing: SealingKey::new(secret),
        }
    }

    fn encrypt(&self, text: &[u8], now: u64, iv: [u8; IV]) -> Vec<u8> {
        let cipher = Encryptor::inner_iv_init(self.encrypt.clone(), &iv.into());
        let encrypted = cipher.encrypt_padded_vec::<Pkcs7>(text);
        let mut token = Vec::with_capacity(HEAD + encrypted.len() + MAC);
        token.push(VERSION);
        token.extend(now.to_be_bytes());
        token.extend(iv);
        token.extend(encrypted);
        let mac = self.sign.clone().chain_update(&token).finalize();
        token.extend(mac.into_bytes());
        URL_SAFE.encode(token).into_bytes()
    }

    /// Whether this key made the signature, compared in constant time.
    fn signed(&self, parts: &TokenParts<'_>) -> bool {
        let mac = self.sign.clone().chain_update(parts.signed);
        mac.verify_slice(parts.mac).is_ok()
    }

    /// The text of a token that this key signed.
    fn decrypt(&self, parts: &TokenParts<'_>) -> Result<Vec<u8>, Undecryptable> {
        let cipher = Decryptor::inner_iv_init(self.decrypt.clone(), &parts.iv.into());
        let text = cipher.decrypt_padded_vec::<Pkcs7>(parts.text);
        // The signature was right, so the sender padded it wrongly. Without the key nobody gets here: this is no padding
        // oracle.
        text.map_err(|_| Undecryptable::NoToken)
    }
}

#[cfg(test)]
mod tests;
