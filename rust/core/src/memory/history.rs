//! Groups whose newest messages are kept.

use super::MemoryEngine;
use crate::clock::Clock;
use crate::error::Error;
use crate::fanout::FanOut;
use crate::handoff::HandOff;
use crate::history::{Histories, Recent, Since, Stamp, Stamped};
use crate::message::ByteSize;
use crate::name::check_group;

/// A channel that was added to a group with a history.
#[derive(Debug)]
#[must_use = "a waiter that is not woken never learns of its message"]
pub struct Resumed<M, W> {
    /// Whether it gets every message behind the position. If not, it gets none of them.
    pub complete: bool,
    /// Receivers that waited at the channel, each with one of the messages.
    pub hand_offs: Vec<HandOff<M, W>>,
}

impl<M: Clone + ByteSize + Stamped, W, C: Clock> MemoryEngine<M, W, C> {
    /// The same, with histories for the groups that their rules name.
    #[must_use]
    pub fn with_histories(self, histories: Histories<M>) -> Self {
        self.state.lock().set_histories(histories);
        self
    }

    /// Does what `group_send` does, and keeps the message if the group has a history. Returns where it stands then.
    ///
    /// # Errors
    /// As `group_send`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is dropped here, where the lock is not held"
    )]
    pub fn group_send_kept(
        &self,
        group: &str,
        message: M,
        exclude: &[&str],
    ) -> Result<(FanOut<M, W>, Option<Stamp>), Error> {
        self.with(|state, now| {
            let found = state.find_fresh_group(group, now)?;
            let stamp = state.keep(group, &message, now);
            let Some(found) = found else {
                return Ok((FanOut::empty(), stamp));
            };
            let exclude = state.keys(exclude);
            let deadline = now.after(self.config.expiry);
            Ok((
                state.fan_out(found, &message, &exclude, now, deadline),
                stamp,
            ))
        })
    }

    /// Puts a channel in a group, with what it missed before what is sent to the group from now on. `None` if the group has no
    /// history; nothing is done then.
    ///
    /// # Errors
    /// As `group_add`.
    pub fn group_add_since(
        &self,
        group: &str,
        channel: &str,
        since: Since,
    ) -> Result<Option<Resumed<M, W>>, Error> {
        check_group(group)?;
        self.with_channel(channel, |state, channel, now| {
            let times = (now, now.after(self.config.expiry));
            let resumed = state.replay(group, channel, since, times);
            let Some((complete, hand_offs)) = resumed else {
                state.mark_idle_if_empty(channel);
                return None;
            };
            let deadline = now.after(self.config.group_expiry);
            state.join(group, channel, (now, deadline));
            Some(Resumed {
                complete,
                hand_offs,
            })
        })
    }

    /// The position of the newest message of a group, or the one before the first. `None` if it has no history.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn group_position(&self, group: &str) -> Result<Option<Stamp>, Error> {
        self.with(|state, now| {
            state.find_group(group)?;
            Ok(state
                .histories(|histories| histories.head(group, now))
                .flatten())
        })
    }

    /// The oldest `limit` messages of a group behind a position. `None` if it has no history.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn group_history(
        &self,
        group: &str,
        since: Since,
        limit: usize,
    ) -> Result<Option<Recent<M>>, Error> {
        self.with(|state, now| {
            state.find_group(group)?;
            Ok(state.recent(group, since, limit, now))
        })
    }
}
