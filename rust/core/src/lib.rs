//! The core of headrace: mailboxes, groups and fan-out, in pure Rust.
//!
//! This crate knows nothing of Python or of event loops. A message is any type `M`, and whoever waits for one is any
//! type `W`; an operation that finds a message for a waiter returns both as a [`HandOff`], and the caller wakes the waiter
//! in its own way.
//!
//! [`engine`] states what every engine promises; [`memory`] is the engine that lives in one process. With the feature `redis`
//! there is one that spans processes, and one of its folders knows sockets.
#![forbid(unsafe_code)]
// A dependency that nothing uses any more is a warning. Not in tests, which have dependencies of their own.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
mod expiry;
mod fanout;
mod glob;
pub mod handoff;
pub mod history;
pub mod memory;
pub mod message;
pub mod name;
mod overflow;
pub mod presence;
#[cfg(feature = "redis")]
pub mod redis;
mod shrink;
pub mod sync;
pub mod websocket;

pub use clock::{Clock, ManualClock, Moment, MonotonicClock};
pub use config::{Capacities, CapacityRule, Config};
pub use engine::{ChannelStats, GroupStats, LayerStats};
pub use error::{Error, SendError};
pub use fanout::{FanOut, SendReport};
pub use handoff::{HandOff, Parker, Phase, Slot};
pub use memory::{MemoryEngine, Received, Resumed};
pub use message::{ByteSize, Envelope};
pub use name::InvalidName;
pub use overflow::Overflow;
