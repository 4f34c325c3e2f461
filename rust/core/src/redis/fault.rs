//! Why a request did not reach the server, or was refused.

use thiserror::Error;

/// Why an operation failed: a kind and a text. The text holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Fault {
    kind: FaultKind,
    text: String,
    /// What led to it.
    #[source]
    cause: Option<Box<Fault>>,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// There is no connection, and none could be made in time. Nothing was sent.
    Unreachable,
    /// The server did not answer in time. It may have taken what it was sent.
    Timeout,
    /// The connection was lost before the answer. The server may have taken what it was sent.
    Lost,
    /// The server refused: the password is wrong, memory is full.
    Refused,
    /// The server has no such command, or does not let the user run it. A retry would not help.
    Lacking,
    /// Too much waits already to be sent, or for an answer. Nothing was sent.
    Backlog,
    /// The layer was closed before it was done.
    Closed,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            cause: None,
        }
    }

    /// The same, with what led to it.
    #[must_use]
    pub fn because_of(mut self, cause: Self) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// What led to it, if that is something else.
    pub fn cause(&self) -> Option<&Self> {
        self.cause.as_deref()
    }

    /// Whether a server answered and refused.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.kind, FaultKind::Refused | FaultKind::Lacking)
    }

    /// Whether waiting may help: nothing is forbidden or lacking, and the layer was not closed.
    pub(super) fn may_pass(&self) -> bool {
        let first = self.cause().unwrap_or(self).kind;
        self.kind != FaultKind::Closed && first != FaultKind::Lacking
    }

    /// What went wrong.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }
}
