//! The errors of encoding and decoding an envelope.

use thiserror::Error;

use super::format::{MAX_EXCLUDED, SEALED, VERSION};
use crate::name::MAX_LENGTH;
use crate::redis::wire::crypt::{NoRandomness, Undecryptable};

/// Why nothing can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// More excluded channels than [`MAX_EXCLUDED`].
    #[error("{0} channels are excluded, and at most {MAX_EXCLUDED} can be")]
    TooManyExcluded(usize),
    /// A name of so many bytes; [`MAX_LENGTH`] fit.
    #[error("a name has {0} bytes, and at most {MAX_LENGTH} fit")]
    NameTooLong(usize),
    /// Encryption failed.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Why bytes are no envelope of this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends too early.
    #[error("the envelope ends too early")]
    Truncated,
    /// A version that this release does not read.
    #[error("the envelope has version {0}, and this release reads {VERSION} and {SEALED}")]
    Version(u8),
    /// A version of encryption that this layer does not accept.
    #[error(
        "it is encrypted as in version {0}, which is not among the encryption_versions of this layer"
    )]
    Unaccepted(u8),
    /// An unknown kind of body.
    #[error("the envelope is of unknown kind {0}")]
    Kind(u8),
    /// Unknown flags.
    #[error("the envelope has unknown flags {0:#04x}")]
    Flags(u8),
    /// An unknown control operation.
    #[error("unknown control operation {0}")]
    Operation(u8),
    /// A name that is none: too long, empty, or with characters that names don't have.
    #[error("the envelope holds an invalid channel or group name")]
    Name,
    /// Bytes behind the end of a control message.
    #[error("more bytes follow the control message")]
    Trailing,
    /// The body is encrypted, and this layer has no keys.
    #[error("it is encrypted, and this layer has no keys")]
    Encrypted,
    /// The body is not encrypted, and this layer has keys.
    #[error("it is not encrypted, and this layer has keys")]
    NotEncrypted,
    /// The body can't be decrypted.
    #[error("it can't be decrypted: {0}")]
    Undecryptable(#[source] Undecryptable),
}

impl Malformed {
    /// Whether it may be an envelope, but is not authenticated by a key of this layer.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(
            self,
            Self::Unaccepted(_) | Self::NotEncrypted | Self::Undecryptable(_)
        )
    }
}
