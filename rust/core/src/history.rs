//! The newest messages of a group, kept for those who were away.
//!
//! A *stream* is what was sent to one group, in order. Each message has a [`Position`]: the random epoch of its stream and a
//! number that grows by one. A [`Ring`] holds the newest messages of a stream, and [`Histories`] all rings of a layer within a
//! bound of bytes. This part does no input or output and knows no lock: whoever has it says which message comes next, and when.
//!
//! **Complete** is the answer for a position if the ring holds every message behind it. It is never given for a part. A
//! position of another group, of another layer, or of a stream that was lost has another epoch, so that it is not complete.
//!
//! **Bounds.** A ring holds `size` messages and is gone `ttl` after its last one. When all rings together are over the
//! bound of bytes, the group that was unused for longest goes first, and is counted. What is dropped is given to the caller,
//! who drops it where foreign code may run.
//!
//! **Replay.** A [`Replay`] is a cursor over messages that many cursors share. It keeps what it has still to give, so that
//! it has no hole, whatever the ring drops meanwhile. The messages are not copied.

mod histories;
mod position;
mod replay;
mod ring;
mod rules;

pub use histories::{Found, Histories, HistoryStats, Recent, Since, random_seed};
pub use position::{Position, Stamp, Stamped, Token, tag_of};
pub use replay::Replay;
pub use ring::Ring;
pub use rules::HistoryRules;
