//! Which server, and which of the two connections to it.

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NodeKey {
    /// The shard of this number.
    Shard(usize),
    /// The node of a cluster at this address.
    Address(String, u16),
}

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Subscriber,
}
