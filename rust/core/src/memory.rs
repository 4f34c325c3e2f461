//! The engine that lives in one process: all mailboxes and groups behind one lock.
//!
//! One lock, not one per mailbox. A fan-out touches every member, so finer locks would be taken ten thousand times
//! where one is enough, and an order between them would have to be kept. Each critical section is short, runs no
//! foreign code and never waits. Whatever foreign code could run when a message or a waiter is dropped (a
//! finaliser that sends, for instance) runs after the lock is released: see `MemoryEngine::with`, and [`sync`](crate::sync).

mod alarms;
mod bell;
mod channels;
#[cfg(feature = "redis")]
mod counted;
mod finals;
mod group;
mod history;
mod mailbox;
mod presence;
mod readings;
mod replays;
mod state;
mod waiters;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use self::bell::Bell;
use self::channels::ChannelKey;
use self::mailbox::{Bound, Offer};
use self::state::State;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::error::{Error, SendError};
use crate::fanout::FanOut;
use crate::handoff::HandOff;
use crate::message::{ByteSize, Envelope};
use crate::name::check_group;
use crate::overflow::Overflow;
use crate::sync::{Mutex, assert_unlocked};

#[cfg(feature = "redis")]
pub(crate) use self::counted::{Extent, Missed};
pub use self::history::Resumed;

/// Mailboxes and groups in one process. See [`engine`](crate::engine) for what it promises.
pub struct MemoryEngine<M, W, C> {
    clock: C,
    config: Config,
    state: Mutex<State<M, W>>,
    /// Whether there are alarms to be taken; looked at without the lock, after every send.
    alarmed: AtomicBool,
    /// Drops the waiters that are not needed any more; called without the lock.
    drop_waiters: fn(Vec<W>),
    bell: Bell,
}

/// The answer to a receive.
#[derive(Debug)]
pub enum Received<M> {
    /// The oldest message.
    Ready(Envelope<M>),
    /// There is none; a waiter was queued.
    Waiting,
    /// There is none, and no waiter of an earlier wait to queue.
    Empty,
}

impl<M: Clone + ByteSize, W, C: Clock> MemoryEngine<M, W, C> {
    /// An empty engine.
    pub fn new(config: Config, clock: C) -> Self {
        Self {
            clock,
            state: Mutex::new(State::new(config.capacity_bytes)),
            config,
            alarmed: AtomicBool::new(false),
            drop_waiters: drop,
            bell: Bell::default(),
        }
    }

    /// The same, with a function that drops waiters, for those that not every thread may drop.
    #[must_use]
    pub fn with_drop_waiters(mut self, drop_waiters: fn(Vec<W>)) -> Self {
        self.drop_waiters = drop_waiters;
        self
    }

    /// Drops what an operation removed. Destructors are foreign code, so the lock must have been released.
    fn drop_unlocked(&self, (messages, waiters): (Vec<M>, Vec<W>)) {
        assert_unlocked();
        drop(messages);
        if !waiters.is_empty() {
            (self.drop_waiters)(waiters);
        }
    }

    /// Runs one operation under the lock, with a share of the sweep, and drops afterwards what it removed.
    fn with<R>(&self, operation: impl FnOnce(&mut State<M, W>, Moment) -> R) -> R {
        let mut state = self.state.lock();
        let now = self.clock.now();
        state.sweep(now, self.config.expiry);
        state.note_left(now);
        let result = operation(&mut state, now);
        state.note_left(now);
        let dropped = state.end_operation();
        if state.has_alarms() {
            self.alarmed.store(true, Ordering::Release);
        }
        let is_due_earlier = state.take_due_earlier();
        drop(state);
        self.drop_unlocked(dropped);
        if is_due_earlier {
            self.bell.ring();
        }
        result
    }

    /// As `with`, for a receive: it looks at the clock only if there is a message whose age matters, and leaves the sweep
    /// to those who send.
    fn with_receiver<R>(&self, operation: impl FnOnce(&mut State<M, W>) -> R) -> R {
        let mut state = self.state.lock();
        let result = operation(&mut state);
        let dropped = state.end_operation();
        drop(state);
        self.drop_unlocked(dropped);
        result
    }

    /// As `with`, for operations that need the channel to exist.
    fn with_channel<R>(
        &self,
        channel: &str,
        operation: impl FnOnce(&mut State<M, W>, ChannelKey, Moment) -> R,
    ) -> Result<R, Error> {
        let capacity = self.capacity(channel);
        self.with(|state, now| {
            let channel = state.open(channel, capacity)?;
            Ok(operation(state, channel, now))
        })
    }

    /// The capacity that a channel has, or is to be made with. A capacity rule may be foreign code: it is asked without
    /// the lock.
    fn capacity(&self, channel: &str) -> usize {
        if let Some(capacity) = self.config.capacities.uniform() {
            return capacity;
        }
        let known = {
            let state = self.state.lock();
            state
                .find(channel)
                .map(|channel| state.mailbox(channel).capacity())
        };
        known.unwrap_or_else(|| self.config.capacities.of(channel))
    }

    /// Puts a message in a channel's mailbox, or hands it to the first waiter.
    ///
    /// # Errors
    /// [`SendError::Full`] when the mailbox is full, else why it was refused; either has the message.
    pub fn send(&self, channel: &str, message: M) -> Result<Option<HandOff<M, W>>, SendError<M>> {
        self.put(channel, message, Bound::Both)
    }

    /// Does what `send` does, but does not refuse a message for its bytes: for one that was taken from a server, and would be
    /// lost.
    ///
    /// # Errors
    /// As `send`.
    pub fn accept(&self, channel: &str, message: M) -> Result<Option<HandOff<M, W>>, SendError<M>> {
        self.put(channel, message, Bound::Messages)
    }

    fn put(
        &self,
        channel: &str,
        message: M,
        bound: Bound,
    ) -> Result<Option<HandOff<M, W>>, SendError<M>> {
        let mut message = Some(message);
        let sent = self.with_channel(channel, |state, channel, now| {
            let Some(message) = message.take() else {
                return Ok(None);
            };
            let deadline = now.after(self.config.expiry);
            let envelope = state.envelope(message, deadline);
            match state.offer(channel, envelope, bound, now) {
                Offer::HandedOff(hand_off) => {
                    state.mark_idle_if_empty(channel);
                    Ok(Some(hand_off))
                }
                Offer::Queued | Offer::Replaced(_) => Ok(None),
                Offer::Full(envelope) => Err(SendError::Full(envelope.message)),
            }
        });
        match (sent, message) {
            (Ok(outcome), _) => outcome,
            (Err(error), Some(message)) => Err(SendError::Refused(error, message)),
            (Err(_), None) => Ok(None),
        }
    }

    /// Takes the oldest message of a channel, if there is one.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn take(&self, channel: &str) -> Result<Option<Envelope<M>>, Error> {
        self.with_receiver(|state| match state.find_open(channel)? {
            Some(channel) => Ok(state.take(channel, &self.clock)),
            None => Ok(None),
        })
    }

    /// Takes the oldest message of a channel, or queues the waiter of an earlier wait again if `again` returns it.
    ///
    /// `again` is called under the lock, and has to be as short as a comparison.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn receive(
        &self,
        channel: &str,
        again: impl FnOnce(&W) -> Option<W>,
    ) -> Result<Received<M>, Error> {
        self.with_receiver(|state| {
            let Some(channel) = state.find_open(channel)? else {
                return Ok(Received::Empty);
            };
            if let Some(envelope) = state.take(channel, &self.clock) {
                return Ok(Received::Ready(envelope));
            }
            Ok(if state.wait_again(channel, again) {
                Received::Waiting
            } else {
                Received::Empty
            })
        })
    }

    /// Takes the oldest message of a channel, or queues the waiter for the next one; `spare` is kept for a later
    /// `receive` to find.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn wait(&self, channel: &str, waiter: W, spare: Option<W>) -> Result<Received<M>, Error> {
        let capacity = self.capacity(channel);
        // Borrowed by the operation, so that waiters that are not needed are dropped when the lock is released.
        let (mut waiter, mut spare) = (Some(waiter), spare);
        self.with_receiver(|state| {
            let channel = state.open(channel, capacity)?;
            if let Some(envelope) = state.take(channel, &self.clock) {
                return Ok(Received::Ready(envelope));
            }
            if let Some(waiter) = waiter.take() {
                state.wait(channel, waiter);
            }
            state.keep_spare(channel, spare.take());
            Ok(Received::Waiting)
        })
    }

    /// Removes a waiter. `None` means that it was given a message, or that one is on its way to it.
    pub fn forget(&self, channel: &str, is_it: impl FnMut(&W) -> bool) -> Option<W> {
        self.with_receiver(|state| {
            let channel = state.find(channel)?;
            state.forget(channel, is_it)
        })
    }

    /// Removes all waiters that the caller recognises. The one operation that walks all channels; it is
    /// for the end of an event loop.
    pub fn forget_all(&self, mut is_it: impl FnMut(&W) -> bool) -> Vec<W> {
        self.with(|state, _| state.forget_all(&mut is_it))
    }

    /// Takes back a message that a waiter was given and did not consume: it goes to the next waiter, or to its
    /// old place. On a closed engine it is dropped and counted.
    pub fn give_back(&self, channel: &str, envelope: Envelope<M>) -> Option<HandOff<M, W>> {
        let mut envelope = Some(envelope);
        let handed = self.with_channel(channel, |state, channel, now| {
            let envelope = envelope.take()?;
            state.give_back(channel, envelope, now.after(self.config.expiry))
        });
        let Some(late) = envelope else {
            return handed.ok().flatten();
        };
        self.with(|state, _| state.drop_returned(late));
        None
    }

    /// Counts a message that was given to a receiver who could not use it: it is dropped, not delivered.
    pub fn count_unusable(&self) {
        self.with_receiver(State::count_unusable);
    }

    /// Sends to every member of a group except those named, in one pass. An unknown group has no members.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed. Full mailboxes are no error: they are counted in the report.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is dropped here, where the lock is not held"
    )]
    pub fn group_send(
        &self,
        group: &str,
        message: M,
        exclude: &[&str],
    ) -> Result<FanOut<M, W>, Error> {
        let life = if message.is_final() {
            self.config.group_expiry
        } else {
            self.config.expiry
        };
        self.with(|state, now| match state.find_fresh_group(group, now)? {
            Some(group) => {
                let exclude = state.keys(exclude);
                Ok(state.fan_out(group, &message, &exclude, now, now.after(life)))
            }
            None => Ok(FanOut::empty()),
        })
    }

    /// Puts a channel in a group, or renews its membership.
    ///
    /// # Errors
    /// A name is invalid, or the engine is closed.
    pub fn group_add(&self, group: &str, channel: &str) -> Result<(), Error> {
        self.group_add_then(group, channel, |_is_new| ())
    }

    /// Does what `group_add` does, and calls `then` with whether the channel was no member before. It is called under the
    /// lock, and has to be as short as a comparison.
    ///
    /// # Errors
    /// As `group_add`. It was not called then.
    pub fn group_add_then<R>(
        &self,
        group: &str,
        channel: &str,
        then: impl FnOnce(bool) -> R,
    ) -> Result<R, Error> {
        check_group(group)?;
        self.with_channel(channel, |state, channel, now| {
            let deadline = now.after(self.config.group_expiry);
            then(state.join(group, channel, (now, deadline)))
        })
    }

    /// Keeps a channel and its memberships until it is released; to be called by those who receive from it as long as they
    /// live.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn hold(&self, channel: &str) -> Result<(), Error> {
        self.with_channel(channel, |state, channel, _| state.hold(channel))
    }

    /// Undoes one `hold`. After the last of them its memberships end when `group_expiry` is over.
    pub fn release(&self, channel: &str) {
        self.with(|state, now| {
            if let Some(channel) = state.find(channel) {
                state.release(channel, now.after(self.config.group_expiry));
            }
        });
    }

    /// Takes a channel out of a group; nothing happens if it is not in.
    ///
    /// # Errors
    /// A name is invalid, or the engine is closed.
    pub fn group_discard(&self, group: &str, channel: &str) -> Result<(), Error> {
        self.group_discard_if(group, channel, || true)
    }

    /// Does what `group_discard` does if `is_due` says so. It is called once, under the lock, and has to be as short as a
    /// comparison.
    ///
    /// # Errors
    /// As `group_discard`, if it is due.
    pub fn group_discard_if(
        &self,
        group: &str,
        channel: &str,
        is_due: impl FnOnce() -> bool,
    ) -> Result<(), Error> {
        self.with(|state, _| {
            if !is_due() {
                return Ok(());
            }
            let (group, channel) = (state.find_group(group)?, state.find_open(channel)?);
            if let (Some(group), Some(channel)) = (group, channel) {
                state.groups.discard(group, channel);
                state.mark_idle_if_empty(channel);
            }
            Ok(())
        })
    }

    /// Drops the messages of a channel and takes it out of all its groups. Receivers that wait go on waiting.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn close_channel(&self, channel: &str) -> Result<(), Error> {
        self.with(|state, now| {
            if let Some(channel) = state.find_open(channel)? {
                state.groups.leave_all(channel);
                state.note_left(now);
                state.disown(channel);
                state.empty(channel);
                state.forget_channel(channel);
            }
            Ok(())
        })
    }

    /// Sets how much a channel holds and what becomes of the rest, until it is closed; without `capacity_bytes` it holds as
    /// many bytes as any other. `alarm` is given out by
    /// [`Self::take_alarms`] after the channel was full for the first time.
    ///
    /// # Errors
    /// The name is invalid, or the engine is closed.
    pub fn own(
        &self,
        channel: &str,
        capacity: NonZeroUsize,
        capacity_bytes: Option<usize>,
        overflow: Overflow<M>,
        alarm: Option<W>,
    ) -> Result<(), Error> {
        // Borrowed by the operation, so that an alarm that is not needed is dropped when the lock is released.
        let mut alarm = alarm;
        self.with_channel(channel, |state, channel, _| {
            state.disown(channel);
            state.own(channel, capacity, capacity_bytes, overflow, alarm.take());
        })
    }

    /// Checks that the engine is open.
    ///
    /// # Errors
    /// It was closed.
    pub fn check_open(&self) -> Result<(), Error> {
        self.state.lock().check_open()
    }

    /// Drops all messages and memberships. Receivers that wait go on waiting.
    pub fn flush(&self) {
        self.with(|state, _| state.flush());
    }

    /// Flushes, refuses everything from now on, and returns the waiters for the caller to wake.
    #[must_use = "a waiter that is not woken waits for ever"]
    pub fn close(&self) -> Vec<W> {
        self.with(|state, _| {
            state.flush();
            state.close()
        })
    }

    /// Counts a message that was refused for want of room before it was offered.
    pub fn count_full(&self, channel: &str) {
        self.with_receiver(|state| {
            if let Some(channel) = state.find(channel) {
                state.count_full(channel);
            }
        });
    }
}

impl<M, W, C: fmt::Debug> fmt::Debug for MemoryEngine<M, W, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine")
            .field("clock", &self.clock)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
