//! The errors of an engine.

use crate::name::InvalidName;

/// An operation was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name of a channel or a group breaks the rules.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The engine was closed by its owner.
    #[error("the layer is closed")]
    Closed,
}

/// A send was refused; the message comes back, so a caller may try again without a copy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<M> {
    /// The mailbox holds as many messages, or as many bytes, as it may.
    #[error("the channel is full")]
    Full(M),
    /// Any other reason.
    #[error("{0}")]
    Refused(Error, M),
}
