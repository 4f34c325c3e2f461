//! The engine that spans processes, through one or more Redis or Valkey servers.
//!
//! [`RedisEngine`] is what callers hold, and a [`Ledger`] keeps the outcome of sends that nobody waited for. Below it are three
//! folders, each of which knows those before it and none behind it:
//!
//! - `wire`: what travels, as `docs/reference/protocol.md` describes it. Pure: no input or output, no clock.
//! - `link`: connections to servers. Sockets are nowhere else.
//! - `driver`: one task for each layer, which keeps its state and makes every decision.

mod driver;
mod engine;
mod fault;
mod groups;
mod host;
mod joins;
mod kept;
mod ledger;
mod link;
mod meter;
mod notice;
mod plain;
mod present;
mod random;
mod readings;
mod receiving;
mod runtime;
mod sending;
mod settings;
mod wire;

pub use engine::{Location, Progress, RedisEngine};
pub use fault::{Fault, FaultKind};
pub use host::{Answer, Host, KeptMessage, RawMessage};
pub use joins::Join;
pub use kept::Resuming;
pub use ledger::{Ledger, LedgerEntry, Mark};
pub use meter::{ConnectionState, LinkStats};
pub use notice::Notice;
pub use runtime::Runtime;
pub use sending::{Addressed, Prepared, Unsent};
pub use settings::{
    CertificateSource, Certificates, Counted, Credentials, Endpoint, Protocol, Server, Settings,
    SocketAddress, Tls, Topology,
};
pub use wire::form::Wire;
pub use wire::{crypt, envelope, keys, msgpack, payload, ring, sequence};
