//! Version 2 of encryption: a message is valid in one place, until one moment, and at most once in a process, as far as that
//! remembers.
//!
//! Each secret gives three keys, `HMAC-SHA256(SHA-256(secret), label)`: one to encrypt, one to authenticate envelopes, one to
//! authenticate memberships. The first 16 bytes of the first are the key of AES-128-CBC.
//!
//! What is authenticated of an envelope is known in two steps: the body where it is sent, its header and its destination
//! when it is written to a server. So the body goes in as its SHA-256, which is made where the body is encrypted, and the
//! rest costs the same for a message of any length.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};

use super::cipher::{BLOCK, Decryptor, Encryptor, IV, MAC};
use super::error::Undecryptable;

/// The SHA-256 of an encrypted body.
pub type Digest = [u8; MAC];

/// What a body grows by at most: initialisation vector, padding and the code that authenticates it.
pub const OVERHEAD: usize = IV + BLOCK + MAC;

/// The three keys of a secret.
#[derive(Clone)]
pub(super) struct SealingKey {
    encrypt: Aes128Enc,
    decrypt: Aes128Dec,
    envelopes: Hmac<Sha256>,
    members: Hmac<Sha256>,
}

impl SealingKey {
    pub(super) fn new(secret: &[u8]) -> Self {
        let hashed = keyed(&Sha256::digest(secret).into());
        let derived = |label: &str| -> [u8; MAC] {
            let derived = hashed.clone().chain_update(label.as_bytes());
            derived.finalize().into_bytes().into()
        };
        let mut cipher = [0; 16];
        for (to, byte) in cipher.iter_mut().zip(derived("headrace 2 encryption")) {
            *to = byte;
        }
        Self {
            encrypt: Aes128Enc::new(&cipher.into()),
            decrypt: Aes128Dec::new(&cipher.into()),
            envelopes: keyed(&derived("headrace 2 envelope")),
            members: keyed(&derived("headrace 2 members")),
        }
    }

    /// Encrypts a text where it is: from `start` on there is room for the initialisation vector, and the text. Gives the digest of
    /// both.
    pub(super) fn seal(&self, bytes: &mut Vec<u8>, start: usize, iv: [u8; IV]) -> Digest {
        if let Some(room) = bytes.get_mut(start..start + IV) {
            room.copy_from_slice(&iv);
        }
        let text = start + IV;
        let length = bytes.len().saturating_sub(text);
        bytes.resize(text + (length / BLOCK + 1) * BLOCK, 0);
        if let Some(buffer) = bytes.get_mut(text..) {
            let cipher = Encryptor::inner_iv_init(self.encrypt.clone(), &iv.into());
            // There is room for the padding.
            let encrypted = cipher.encrypt_padded::<Pkcs7>(buffer, length).is_ok();
            debug_assert!(encrypted, "the buffer is a whole number of blocks");
        }
        digest(bytes.get(start..).unwrap_or_default())
    }

    /// Decrypts a text where it is; gives how many bytes at its end are padding.
    pub(super) fn open(&self, text: &mut [u8], iv: [u8; IV]) -> Result<usize, Undecryptable> {
        let cipher = Decryptor::inner_iv_init(self.decrypt.clone(), &iv.into());
        let length = text.len();
        let text = cipher.decrypt_padded::<Pkcs7>(text);
        // The code was right, so the sender padded it wrongly. Without the key nobody gets here: this is no padding oracle.
        Ok(length - text.map_err(|_| Undecryptable::NoToken)?.len())
    }

    /// Header and digest have a fixed length, so nothing else gives the same bytes.
    pub(super) fn envelope(
        &self,
        header: &[u8],
        digest: &Digest,
        destination: &str,
    ) -> Hmac<Sha256> {
        let mac = self.envelopes.clone().chain_update(header);
        mac.chain_update(digest).chain_update(destination)
    }

    /// A field holds one NUL, and neither the key nor the end has one.
    pub(super) fn member(&self, key: &str, field: &str, end: &str) -> Hmac<Sha256> {
        let mac = self.members.clone().chain_update(key).chain_update([0]);
        mac.chain_update(field).chain_update([0]).chain_update(end)
    }
}

/// HMAC under a key of its own length, which cannot fail.
fn keyed(key: &[u8; MAC]) -> Hmac<Sha256> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
    Hmac::new(&block)
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::super::Crypt;
    use proptest::prelude::*;

    use super::*;

    const PLACE: &str = "asgi:g:room";

    fn crypt(secrets: &[&str]) -> Crypt {
        Crypt::new(secrets).expect("there are secrets")
    }

    fn sealed(crypt: &Crypt, header: &[u8], text: &[u8]) -> Vec<u8> {
        let mut bytes = [header, &[0; IV], text].concat();
        let digest = crypt
            .seal(&mut bytes, header.len())
            .expect("there is randomness");
        let mac = crypt.authenticate(header, &digest, PLACE);
        bytes.extend(mac);
        bytes
    }

    fn opened(
        crypt: &Crypt,
        mut bytes: Vec<u8>,
        header: usize,
        place: &str,
    ) -> Result<Vec<u8>, Undecryptable> {
        let end = crypt.open(&mut bytes, header, place)?;
        bytes.truncate(end);
        Ok(bytes.split_off(header + IV))
    }

    #[test]
    fn any_key_opens_and_the_first_seals() {
        let (old, new) = (crypt(&["old"]), crypt(&["new", "old"]));
        let by_old = sealed(&old, b"head", b"text");
        assert_eq!(opened(&new, by_old, 4, PLACE), Ok(b"text".to_vec()));
        let by_new = sealed(&new, b"head", b"text");
        assert_eq!(opened(&old, by_new, 4, PLACE), Err(Undecryptable::WrongKey));
    }

    #[test]
    fn what_is_too_short_is_no_token() {
        let keys = crypt(&["a"]);
        let whole = sealed(&keys, b"head", b"text");
        for length in 0..whole.len() {
            let error = opened(&keys, whole[..length].to_vec(), 4, PLACE);
            assert!(error.is_err(), "{length}");
        }
        let least = 4 + IV + BLOCK + MAC;
        assert_eq!(whole.len(), least);
        let error = opened(&keys, vec![0; least - BLOCK], 4, PLACE);
        assert_eq!(error, Err(Undecryptable::NoToken));
        assert_eq!(
            opened(&keys, vec![0; least], 4, PLACE),
            Err(Undecryptable::WrongKey)
        );
    }

    #[test]
    fn a_membership_is_known_by_all_of_its_parts() {
        let keys = crypt(&["new", "old"]);
        let mac = crypt(&["old"]).authenticate_member("asgi:m", "room\0work", "1700000060000");
        assert!(keys.knows_member("asgi:m", "room\0work", "1700000060000", &mac));
        for (key, field, end) in [
            ("other:m", "room\0work", "1700000060000"),
            ("asgi:m", "room\0evil", "1700000060000"),
            ("asgi:m", "room\0work", "1700000060001"),
        ] {
            assert!(
                !keys.knows_member(key, field, end, &mac),
                "{key} {field} {end}"
            );
        }
        assert!(!crypt(&["new"]).knows_member("asgi:m", "room\0work", "1700000060000", &mac));
        assert!(!keys.knows_member("asgi:m", "room\0work", "1700000060000", &mac[1..]));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(
            header in prop::collection::vec(any::<u8>(), 0..40),
            text in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let keys = crypt(&["a"]);
            let bytes = sealed(&keys, &header, &text);
            prop_assert!(bytes.len() <= header.len() + text.len() + OVERHEAD);
            prop_assert_eq!(opened(&keys, bytes.clone(), header.len(), PLACE), Ok(text));
            let elsewhere = opened(&keys, bytes, header.len(), "asgi:g:admin");
            prop_assert_eq!(elsewhere, Err(Undecryptable::WrongKey));
        }
    }
}
