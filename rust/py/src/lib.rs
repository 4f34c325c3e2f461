//! `headrace._core`: headrace-core for Python. Translation only; the meaning is in the crate below and in the
//! package above. All knowledge of asyncio is in [`park`] (the future that a task waits on) and
//! [`event_loop`] (how a loop is woken).

#![deny(unsafe_code)]
// A dependency that nothing uses any more is a warning. Not in tests, which have dependencies of their own.
#![cfg_attr(not(test), warn(unused_crate_dependencies))]
#![allow(
    clippy::needless_pass_by_value,
    reason = "PyO3 gives arguments by value, whatever is done with them"
)]
#![allow(
    clippy::doc_markdown,
    reason = "the documentation of what Python sees is written as Python's"
)]

mod arguments;
mod config;
mod errors;
mod event_loop;
mod first_use;
mod frames;
mod greenlets;
mod inbox;
mod interpreters;
mod layer;
mod locks;
mod message;
mod once;
mod park;
mod position;
mod presence;
mod receiver;
mod redis;
mod reply;
mod sleep;
mod start;
mod stats;
mod stub;

/// The native half of headrace. Import from `headrace` instead: this module is not public.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::config::ManualClock;
    #[pymodule_export]
    use crate::event_loop::after_fork_in_child;
    #[pymodule_export]
    use crate::frames::{FrameSend, FrameWriter};
    #[pymodule_export]
    use crate::greenlets::threads_are_greenlets;
    #[pymodule_export]
    use crate::inbox::Inbox;
    #[pymodule_export]
    use crate::layer::MemoryLayer;
    #[pymodule_export]
    use crate::message::decode::unpack;
    #[pymodule_export]
    use crate::message::encode::pack;
    #[pymodule_export]
    use crate::position::{position_mark, position_place};
    #[pymodule_export]
    use crate::receiver::{Forward, Waiter};
    #[pymodule_export]
    use crate::redis::{Ledger, LinkStats, RedisLayer, Runtime};
    #[pymodule_export]
    use crate::reply::Reply;
    #[pymodule_export]
    use crate::stats::{ChannelStats, GroupStats, LayerStats, SendReport};

    #[pymodule_export]
    const EXCEPTIONS: crate::start::Exceptions = crate::start::Exceptions;
}
