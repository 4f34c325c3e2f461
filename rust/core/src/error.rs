//! What an engine answers when it cannot do what was asked.

use std::fmt;

use crate::name::InvalidName;

/// An operation was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The name of a channel or a group breaks the rules.
    InvalidName(InvalidName),
    /// The engine was closed by its owner.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName(invalid) => invalid.fmt(f),
            Self::Closed => f.write_str("the layer is closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InvalidName(invalid) => Some(invalid),
            Self::Closed => None,
        }
    }
}

impl From<InvalidName> for Error {
    fn from(invalid: InvalidName) -> Self {
        Self::InvalidName(invalid)
    }
}

/// A send was refused; the message comes back, so a caller may try again without a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError<M> {
    /// The mailbox holds as many messages, or as many bytes, as it may.
    Full(M),
    /// Any other reason.
    Refused(Error, M),
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the channel is full"),
            Self::Refused(error, _) => error.fmt(f),
        }
    }
}

impl<M: fmt::Debug> std::error::Error for SendError<M> {}
