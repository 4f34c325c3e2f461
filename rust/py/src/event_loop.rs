//! How an event loop is notified that some of its tasks have what they wait for.
//!
//! Each loop whose tasks wait has one [`LoopQueue`]. A sender adds the tasks to wake and, unless one is scheduled
//! already, schedules one call of `drain` on the loop: by `call_soon` in the loop's own thread, by a byte through a
//! socket pair from any other. So a batch costs one wake, however many tasks it is for, and a thread that floods a busy
//! loop does not take the interpreter's lock from it message by message, as `call_soon_threadsafe` would.
//!
//! Only the loop refers to the `PipeReader` that reads the socket, so the reader is dropped when the loop is closed or collected.
//! Then the receivers of its tasks are removed from the mailboxes, and messages on their way to them go back.

mod alarm;
mod calls;
mod detached;
mod queue;
mod ready;
mod running;
mod self_pipe;
mod turn;
mod wake_target;
mod wakes;

pub(crate) use alarm::Alarm;
pub(crate) use calls::{Drain, PipeReader, queue_of};
pub(crate) use detached::DetachedWakes;
pub(crate) use queue::{LoopQueue, WaitQueues, after_fork_in_child};
pub(crate) use running::{address, drained_loop, is_running, running_loop};
pub(crate) use turn::{Pace, Turn};
pub(crate) use wakes::{Wake, Wakes};
