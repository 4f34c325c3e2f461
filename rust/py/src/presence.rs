//! Who is present in groups: what Python gives of that, and the timer by which it is told.

mod entry;
mod timer;

pub(crate) use entry::{Key, Meta};
pub(crate) use timer::Timer;
