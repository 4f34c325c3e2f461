//! Groups whose messages are counted elsewhere: on a server, of whose history a part is kept here.

use super::MemoryEngine;
use super::history::Resumed;
use crate::clock::Clock;
use crate::error::Error;
use crate::fanout::FanOut;
use crate::history::{Found, HistoryRules, Position, Since, Stamped};
use crate::message::ByteSize;
use crate::name::check_group;

/// How much of a group's history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The epoch of its stream.
    pub(crate) epoch: u64,
    /// The number of the oldest message, or that of the next one if there is none.
    pub(crate) oldest: u64,
    /// There are as many as can be.
    pub(crate) is_full: bool,
}

/// Where that is which somebody missed.
#[derive(Debug)]
pub(crate) enum Missed<M> {
    /// Here, if it is kept here. Else elsewhere, if there may be more.
    Kept { since: Since, may_have_more: bool },
    /// It was read.
    Read(Found<M>),
}

impl<M: Clone + ByteSize + Stamped, W, C: Clock> MemoryEngine<M, W, C> {
    /// Sends to every member of a group except those named, and keeps the message, which is stamped with where it stands.
    ///
    /// # Errors
    /// As `group_send`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is dropped here, where the lock is not held"
    )]
    pub(crate) fn group_accept(
        &self,
        group: &str,
        message: M,
        exclude: &[&str],
        position: Position,
    ) -> Result<FanOut<M, W>, Error> {
        self.with(|state, now| {
            let found = state.find_fresh_group(group, now)?;
            let bytes = message.byte_size();
            state.histories(|histories| {
                histories.accept(group, position, message.clone(), bytes, now)
            });
            let Some(found) = found else {
                return Ok(FanOut::empty());
            };
            let exclude = state.keys(exclude);
            let deadline = now.after(self.config.expiry);
            Ok(state.fan_out(found, &message, &exclude, now, deadline))
        })
    }

    /// Which groups have a history.
    pub fn history_rules(&self) -> HistoryRules {
        let rules = self.with(|state, _| state.histories(|histories| histories.rules().clone()));
        rules.unwrap_or_default()
    }

    /// Forgets what is kept of a group. The next message is the one behind this position.
    pub(crate) fn history_restart(&self, group: &str, head: Position) {
        self.with(|state, now| {
            state.histories(|histories| histories.restart(group, head, now));
        });
    }

    /// Forgets what is kept of a group.
    pub(crate) fn history_forget(&self, group: &str) {
        self.with(|state, _| {
            state.histories(|histories| histories.forget(group));
        });
    }

    /// Keeps these messages of a group, oldest first, instead of what was kept of it. At a position without a message begins what
    /// is kept.
    pub(crate) fn history_load(&self, group: &str, messages: Vec<(Position, Option<M>)>) {
        self.with(|state, now| {
            state.histories(|histories| {
                histories.forget(group);
                for (position, message) in messages {
                    match message {
                        Some(message) => {
                            let bytes = message.byte_size();
                            histories.accept(group, position, message, bytes, now);
                        }
                        None => {
                            histories.restart(group, position, now);
                        }
                    }
                }
            });
        });
    }

    /// How much of a group is kept.
    pub(crate) fn history_extent(&self, group: &str) -> Option<Extent> {
        self.with(|state, now| {
            state.histories(|histories| {
                let size = histories.size_of(group)?;
                let ring = histories.ring(group, now)?;
                let head = ring.head();
                Some(Extent {
                    epoch: head.epoch,
                    oldest: (head.number + 1).saturating_sub(ring.len() as u64),
                    is_full: ring.len() >= size,
                })
            })?
        })
    }

    /// Does what `group_add_since` does, if it is still wanted, and if all that is wanted was found; else nothing. Calls `joined` under
    /// the lock with whether the channel was no member before.
    ///
    /// # Errors
    /// As `group_add`.
    pub(crate) fn group_resume(
        &self,
        group: &str,
        channel: &str,
        missed: Missed<M>,
        (is_wanted, joined): (impl FnOnce() -> bool, impl FnOnce(bool)),
    ) -> Result<Option<Resumed<M, W>>, Error> {
        check_group(group)?;
        self.with_channel(channel, |state, channel, now| {
            let found = is_wanted().then(|| match missed {
                Missed::Read(found) => Some(found),
                Missed::Kept {
                    since,
                    may_have_more,
                } => state.histories(|histories| {
                    let ring = histories.ring(group, now);
                    let is_kept = ring.is_some_and(|ring| match since {
                        Since::Position(position) => {
                            position.is_some_and(|position| ring.behind(&position).is_some())
                        }
                        Since::Newest(count) => ring.len() >= count,
                    });
                    let is_due = is_kept || !may_have_more;
                    is_due.then(|| histories.find(group, since, now)).flatten()
                })?,
            });
            let Some(found) = found.flatten() else {
                state.mark_idle_if_empty(channel);
                return None;
            };
            let deadline = now.after(self.config.expiry);
            let (complete, hand_offs) = state.replay_found(channel, found, deadline);
            let deadline = now.after(self.config.group_expiry);
            joined(state.join(group, channel, (now, deadline)));
            Some(Resumed {
                complete,
                hand_offs,
            })
        })
    }
}
