//! What travels: names, envelopes, payloads, keys and numbers. No input or output, and no clock.

pub mod crypt;
pub mod envelope;
pub(crate) mod form;
pub(crate) mod history;
pub mod keys;
pub(crate) mod membership;
pub mod msgpack;
pub mod payload;
pub(crate) mod presence;
pub mod ring;
pub mod sequence;
pub(crate) mod system_message;
