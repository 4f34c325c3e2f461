//! The errors of encoding and decoding an envelope.

use std::fmt;

use super::format::{MAX_EXCLUDED, SEALED, VERSION};
use crate::name::MAX_LENGTH;
use crate::redis::wire::crypt::{NoRandomness, Undecryptable};

/// Why nothing can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsendable {
    /// More excluded channels than [`MAX_EXCLUDED`].
    TooManyExcluded(usize),
    /// A name of so many bytes; [`MAX_LENGTH`] fit.
    NameTooLong(usize),
    /// Encryption failed.
    NoRandomness(NoRandomness),
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyExcluded(count) => {
                write!(
                    f,
                    "{count} channels are excluded, and at most {MAX_EXCLUDED} can be"
                )
            }
            Self::NameTooLong(length) => {
                write!(f, "a name has {length} bytes, and at most {MAX_LENGTH} fit")
            }
            Self::NoRandomness(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unsendable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoRandomness(error) => error.source(),
            Self::TooManyExcluded(_) | Self::NameTooLong(_) => None,
        }
    }
}

impl From<NoRandomness> for Unsendable {
    fn from(error: NoRandomness) -> Self {
        Self::NoRandomness(error)
    }
}

/// Why bytes are no envelope of this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends too early.
    Truncated,
    /// A version that this release does not read.
    Version(u8),
    /// A version of encryption that this layer does not accept.
    Unaccepted(u8),
    /// An unknown kind of body.
    Kind(u8),
    /// Unknown flags.
    Flags(u8),
    /// An unknown control operation.
    Operation(u8),
    /// A name that is none: too long, empty, or with characters that names don't have.
    Name,
    /// Bytes behind the end of a control message.
    Trailing,
    /// The body is encrypted, and this layer has no keys.
    Encrypted,
    /// The body is not encrypted, and this layer has keys.
    NotEncrypted,
    /// The body can't be decrypted.
    Undecryptable(Undecryptable),
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

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the envelope ends too early"),
            Self::Version(version) => {
                write!(
                    f,
                    "the envelope has version {version}, and this release reads {VERSION} and {SEALED}"
                )
            }
            Self::Unaccepted(version) => write!(
                f,
                "it is encrypted as in version {version}, which is not among the encryption_versions of this layer"
            ),
            Self::Kind(kind) => write!(f, "the envelope is of unknown kind {kind}"),
            Self::Flags(flags) => write!(f, "the envelope has unknown flags {flags:#04x}"),
            Self::Operation(operation) => write!(f, "unknown control operation {operation}"),
            Self::Name => write!(f, "the envelope holds an invalid channel or group name"),
            Self::Trailing => write!(f, "more bytes follow the control message"),
            Self::Encrypted => write!(f, "it is encrypted, and this layer has no keys"),
            Self::NotEncrypted => write!(f, "it is not encrypted, and this layer has keys"),
            Self::Undecryptable(why) => write!(f, "it can't be decrypted: {why}"),
        }
    }
}

impl std::error::Error for Malformed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Undecryptable(why) => Some(why),
            _ => None,
        }
    }
}
