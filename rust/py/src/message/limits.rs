//! What a message may hold.

/// What may come over a server may also be sent in process. A container that stands in many places is copied for each of them, so
/// that without a limit a small message could unfold without end.
pub(super) use headrace_core::redis::msgpack::{MAX_CONTAINERS, MAX_DEPTH};

/// Channels' layers put the channel's name under this key of a message.
pub(super) const RESERVED: &str = "__asgi_channel__";

/// Where a message of a group with a history stands is under this key when it is received.
pub(super) const POSITION: &str = "__headrace_position__";
