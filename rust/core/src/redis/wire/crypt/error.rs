//! Why something cannot be encrypted, or decrypted.

use thiserror::Error;

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Undecryptable {
    /// It is no Fernet token.
    #[error("it is not encrypted in that way")]
    NoToken,
    /// No key of this layer made it, or somebody changed it, or it was written to another destination.
    #[error("none of the keys fits: another key made it, or it was changed or moved")]
    WrongKey,
}

/// The operating system gave no random bytes, so nothing can be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no random bytes for encryption")]
pub struct NoRandomness(#[source] pub(super) getrandom::Error);
