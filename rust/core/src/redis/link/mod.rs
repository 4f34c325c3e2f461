//! Connections to servers: all that knows sockets, and redis-rs.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used,
        reason = "what it reads comes from servers"
    )
)]

mod certificate;
mod command;
mod connection;
mod dial;
mod in_time;
mod login;
mod refusal;
mod resp2;
mod transport;

pub(crate) mod backoff;
pub(crate) mod probe;
pub(crate) mod sentinel;
pub(crate) mod server_clock;

pub(crate) use command::Command;
pub(crate) use connection::RedisTransport;
pub(crate) use in_time::PROBE_TIMEOUT;
pub(crate) use refusal::{Refusal, Reply};
#[cfg(test)]
pub(crate) use transport::BoxFuture;
pub(crate) use transport::{Change, Link, Push, PushSink, Transport};
