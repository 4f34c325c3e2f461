//! A message between its sender and the receiver that was waiting for it.
//!
//! The engine pops a waiter and gives it out with its message; some time later the waiter's task or thread runs and
//! takes the message. In between either side may act: the receiver may be cancelled before the message reaches
//! its [`Slot`], or after. The slot decides each race one way: a message that goes in comes out exactly once,
//! through [`Slot::take`] to the receiver or through [`Slot::release`] to whoever gives it back to the engine, and a
//! message that comes too late is refused and goes back at once.
//!
//! The receiver leaves word of how to wake it in the same slot and under the same lock, so that a message which
//! arrives while it settles down to wait is not missed.

#[cfg(not(loom))]
use std::time::Duration;

use crate::message::Envelope;
use crate::sync::{AtomicU8, Condvar, Mutex, Ordering};

/// A waiter with the message that it is to be woken for.
#[derive(Debug)]
#[must_use = "a waiter that is not woken never learns of its message"]
pub struct HandOff<M, W> {
    /// Whom to wake.
    pub waiter: W,
    /// What to give it.
    pub envelope: Envelope<M>,
}

/// How far a wait has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is no message yet.
    Waiting,
    /// The message came; it may have been taken since.
    Filled,
    /// The receiver stopped waiting, or left the message.
    Released,
    /// The engine was closed: there will be no message.
    Closed,
}

const WAITING: u8 = 0;
const FILLED: u8 = 1;
const RELEASED: u8 = 2;
const CLOSED: u8 = 3;

/// Where a waiting receiver finds its message; `N` is its word of how to wake it.
#[derive(Debug)]
pub struct Slot<M, N> {
    /// Written under the lock, read without it by the receiver's own thread.
    phase: AtomicU8,
    content: Mutex<Content<M, N>>,
}

#[derive(Debug)]
struct Content<M, N> {
    envelope: Option<Envelope<M>>,
    notice: N,
}

impl<M, N: Default> Default for Slot<M, N> {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(WAITING),
            content: Mutex::new(Content {
                envelope: None,
                notice: N::default(),
            }),
        }
    }
}

impl<M, N: Default> Slot<M, N> {
    /// How far the wait has come.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            WAITING => Phase::Waiting,
            FILLED => Phase::Filled,
            RELEASED => Phase::Released,
            _ => Phase::Closed,
        }
    }

    /// Moves from waiting to another phase; false if the wait was over before.
    fn end(&self, phase: u8) -> bool {
        let waiting = self.phase.load(Ordering::Relaxed) == WAITING;
        if waiting {
            self.phase.store(phase, Ordering::Release);
        }
        waiting
    }

    /// Puts the message in.
    ///
    /// # Errors
    /// Gives it back if the receiver has left: the message belongs to the engine again.
    pub fn fill(&self, envelope: Envelope<M>) -> Result<(), Envelope<M>> {
        let mut content = self.content.lock();
        if !self.end(FILLED) {
            return Err(envelope);
        }
        content.envelope = Some(envelope);
        Ok(())
    }

    /// Ends the wait without a message, because the engine was closed.
    pub fn close(&self) {
        let _content = self.content.lock();
        self.end(CLOSED);
    }

    /// Takes the message out, once.
    pub fn take(&self) -> Option<Envelope<M>> {
        self.content.lock().envelope.take()
    }

    /// The receiver leaves. What it held and did not take comes back, for the engine's `give_back`.
    pub fn release(&self) -> Option<Envelope<M>> {
        let mut content = self.content.lock();
        self.end(RELEASED);
        content.envelope.take()
    }

    /// The receiver leaves word of how to wake it, if it has to wait; false if the wait is over.
    pub fn ask(&self, notice: impl FnOnce(&mut N)) -> bool {
        let mut content = self.content.lock();
        let waiting = self.phase.load(Ordering::Relaxed) == WAITING;
        if waiting {
            notice(&mut content.notice);
        }
        waiting
    }

    /// Takes the word that the receiver left.
    pub fn notice(&self) -> N {
        std::mem::take(&mut self.content.lock().notice)
    }

    /// Changes the word that the receiver left, whatever the phase.
    pub fn amend(&self, change: impl FnOnce(&mut N)) {
        change(&mut self.content.lock().notice);
    }

    /// Looks at the message and at the notice, unless another thread is at the slot just now.
    #[cfg(not(loom))]
    pub fn peek<R>(&self, look: impl FnOnce(Option<&M>, &N) -> R) -> Option<R> {
        let content = self.content.try_lock()?;
        let message = content.envelope.as_ref().map(|envelope| &envelope.message);
        Some(look(message, &content.notice))
    }
}

/// A slot that a thread sleeps on.
#[derive(Debug)]
pub struct Parker<M> {
    slot: Slot<M, ()>,
    /// Set when the slot was filled or the engine was closed, under its own lock so that no wake is missed.
    woken: Mutex<bool>,
    condition: Condvar,
}

impl<M> Default for Parker<M> {
    fn default() -> Self {
        Self {
            slot: Slot::default(),
            woken: Mutex::new(false),
            condition: Condvar::default(),
        }
    }
}

impl<M> Parker<M> {
    /// The slot that the thread sleeps on.
    pub fn slot(&self) -> &Slot<M, ()> {
        &self.slot
    }

    /// Wakes the thread; call it after the slot was filled, or when there will be no message.
    pub fn wake(&self) {
        *self.woken.lock() = true;
        self.condition.notify_one();
    }

    /// Sleeps until woken or until the time is over; tells whether it was woken.
    #[cfg(not(loom))]
    pub fn sleep(&self, timeout: Duration) -> bool {
        self.condition
            .wait_until(self.woken.lock(), timeout, |woken| *woken)
    }
}
