//! AES-128-CBC, by which both versions encrypt, and the lengths of what goes with it.

use aes::{Aes128Dec, Aes128Enc};

/// Bytes of an initialisation vector.
pub(in crate::redis::wire) const IV: usize = 16;
/// Bytes of a block.
pub(super) const BLOCK: usize = 16;
/// Bytes of a code that authenticates.
pub(in crate::redis::wire) const MAC: usize = 32;

pub(super) type Encryptor = cbc::Encryptor<Aes128Enc>;
pub(super) type Decryptor = cbc::Decryptor<Aes128Dec>;
