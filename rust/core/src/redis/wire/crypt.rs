//! Encryption in two versions, with keys made from any secret, and more than one of them so that a fleet can change keys
//! while it runs. What travels in version 2 is authenticated as a whole: see [`sealing`].
//!
//! Version 1 is as `channels_redis` does it, which knows no other: Fernet tokens.
//!
//! A token is base64 (URL-safe, padded) of `0x80`, the time in seconds (8 bytes), an initialisation vector (16 bytes),
//! the text by AES-128-CBC, and HMAC-SHA256 of all that. The SHA-256 of a secret is the key: its first half signs, its
//! second half encrypts. What decrypts was made by somebody who knows a secret, and is whole; nothing says that
//! it is new. The length of a message can be seen.

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
use base64::engine::general_purpose::URL_SAFE;
use base64::Engine;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

pub mod sealing;

use sealing::SealingKey;

const VERSION: u8 = 0x80;
pub(super) const IV: usize = 16;
const BLOCK: usize = 16;
pub(super) const MAC: usize = 32;
/// Version, time and initialisation vector.
const HEAD: usize = 1 + 8 + IV;

type Encryptor = cbc::Encryptor<Aes128Enc>;
type Decryptor = cbc::Decryptor<Aes128Dec>;

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

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undecryptable {
    /// It is no Fernet token.
    NoToken,
    /// No key of this layer made it, or somebody changed it, or it was written to another destination.
    WrongKey,
}

impl fmt::Display for Undecryptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoToken => "it is not encrypted in that way",
            Self::WrongKey => {
                "none of the keys fits: another key made it, or it was changed or moved"
            }
        })
    }
}

impl std::error::Error for Undecryptable {}

/// The operating system gave no random bytes, so nothing can be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness(getrandom::Error);

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no random bytes for encryption")
    }
}

impl std::error::Error for NoRandomness {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
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
        let parts = Parts::of(&token).ok_or(Undecryptable::NoToken)?;
        let mut keys = self.keys.iter();
        let key = keys
            .find(|key| key.signed(&parts))
            .ok_or(Undecryptable::WrongKey)?;
        key.decrypt(&parts)
    }
}

/// A token, taken apart and not yet believed.
struct Parts<'a> {
    signed: &'a [u8],
    mac: &'a [u8],
    iv: [u8; IV],
    text: &'a [u8],
}

impl<'a> Parts<'a> {
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

    /// Whether this key made the signature, told in constant time.
    fn signed(&self, parts: &Parts<'_>) -> bool {
        let mac = self.sign.clone().chain_update(parts.signed);
        mac.verify_slice(parts.mac).is_ok()
    }

    /// The text of a token that this key signed.
    fn decrypt(&self, parts: &Parts<'_>) -> Result<Vec<u8>, Undecryptable> {
        let cipher = Decryptor::inner_iv_init(self.decrypt.clone(), &parts.iv.into());
        let text = cipher.decrypt_padded_vec::<Pkcs7>(parts.text);
        // Who holds the key padded it wrongly; without the key nobody gets here, so nothing can be learnt from it.
        text.map_err(|_| Undecryptable::NoToken)
    }
}

#[cfg(test)]
mod tests;
