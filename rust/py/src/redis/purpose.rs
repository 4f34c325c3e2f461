//! Why a message is sent to a group.

/// What a message to a group is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// To be received, and to be kept if the group has a history.
    Inform,
    /// To end those who are in the group now.
    End,
}
