//! The engine that spans processes, through one or more Redis or Valkey servers.
//!
//! What can be decided without a socket is decided in pure modules: [`keys`], [`ring`], [`envelope`], [`crypt`],
//! [`payload`], [`sequence`], [`backoff`], `server_clock`. `connection` alone touches sockets. One task, the `driver`, keeps all state
//! of a layer and makes every decision: about servers (`nodes`, `discovery`, `health`, `away`), what is asked of them (`requests`, `outbox`), what this
//! process is subscribed to (`topics`, `wanted`, `subscribing`), what goes out (`sends`, `backlog`), plain channels (`queues`, `taking`,
//! `members`, `membership`), what comes in (`arrivals`, `refusals`), and the size of its tables (`shrinking`). [`RedisEngine`] is what callers hold, and a [`Ledger`] keeps what
//! became of sends that nobody waited for.
//! `docs/protocol.md` describes what travels.

mod arrivals;
mod away;
mod backlog;
pub mod backoff;
mod certificate;
mod connection;
pub mod crypt;
mod dial;
mod discovery;
mod driver;
mod engine;
pub mod envelope;
mod fault;
mod health;
mod host;
pub mod keys;
mod ledger;
mod login;
mod members;
mod membership;
mod nodes;
mod notices;
mod outbox;
pub mod payload;
mod queues;
mod random;
mod refusals;
mod requests;
pub mod ring;
mod runtime;
mod sends;
pub mod sequence;
mod server_clock;
mod settings;
mod shared;
mod shrinking;
mod subscribing;
mod taking;
mod topics;
mod wanted;

pub use engine::{Addressed, Place, Prepared, Progress, RedisEngine, Unsent};
pub use fault::{Fault, FaultKind};
pub use host::{Answer, Frame, Host};
pub use ledger::{Entry, Ledger, Mark};
pub use runtime::Runtime;
pub use settings::{
    CertificateSource, Certificates, Credentials, Endpoint, Host as Server, Settings, Tls,
    Topology, Wire,
};
pub use shared::{ConnectionState, LinkStats, Notice, PlainSends};
