//! Which server, and which of the two connections to it.

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NodeKey {
    /// The shard of this number.
    Shard(usize),
    /// The node of a cluster at this address.
    Address(String, u16),
}

impl NodeKey {
    /// The server that this one named; one that names no host means its own.
    pub(super) fn named(&self, host: &str, port: u16) -> Self {
        match self {
            Self::Address(here, _) if host.is_empty() => Self::Address(here.clone(), port),
            _ => Self::Address(host.to_owned(), port),
        }
    }
}

/// Which of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Subscriber,
}

/// Which connection, of all attempts to make one: events of an earlier one are ignored.
#[derive(Clone, Debug)]
pub(super) struct LinkId {
    pub(super) node: NodeKey,
    pub(super) role: Role,
    pub(super) generation: u64,
}
