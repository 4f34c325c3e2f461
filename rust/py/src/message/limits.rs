//! What a message may hold.

/// Containers may stand in each other this deep, counting the message itself.
pub(super) const MAX_DEPTH: usize = 64;

/// How many containers a message may hold. One that stands in many places is copied for each of them, so a small message can
/// unfold without end.
pub(super) const MAX_CONTAINERS: usize = 1 << 22;

/// Channels' layers put the channel's name under this key of a message.
pub(super) const RESERVED: &str = "__asgi_channel__";
