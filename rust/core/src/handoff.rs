//! A message between its sender and the receiver that was waiting for it.
//!
//! The engine pops a waiter and gives it out with its message; some time later the waiter's task or thread runs and
//! takes the message. In between either side may act: the receiver may be cancelled before the message reaches
//! its [`Slot`], or after. The slot decides each race one way: a message that goes in comes out exactly once,
//! through [`Slot::take`] to the receiver or through [`Slot::release`] to whoever gives it back to the engine, and a
//! message that comes too late is refused and goes back at once.

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

/// The phase of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is no message yet.
    Waiting,
    /// The message is there.
    Filled,
    /// The message was there, and was taken.
    Taken,
    /// The receiver stopped waiting, or left the message.
    Released,
    /// The wait was interrupted: there is no message, and the receiver may wait again.
    Interrupted,
    /// The engine was closed: there will be no message.
    Closed,
}

const WAITING: u8 = 0;
const FILLED: u8 = 1;
const TAKEN: u8 = 2;
const RELEASED: u8 = 3;
const CLOSED: u8 = 4;
const INTERRUPTED: u8 = 5;

/// Where a waiting receiver finds its message.
#[derive(Debug)]
pub struct Slot<M> {
    /// Written under the lock, read without it by the receiver's own thread.
    phase: AtomicU8,
    envelope: Mutex<Option<Envelope<M>>>,
}

impl<M> Default for Slot<M> {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(WAITING),
            envelope: Mutex::new(None),
        }
    }
}

impl<M> Slot<M> {
    /// A slot that nobody waits at yet: `reset` begins the first wait.
    pub fn idle() -> Self {
        Self {
            phase: AtomicU8::new(TAKEN),
            envelope: Mutex::new(None),
        }
    }

    /// The phase of the present wait.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            WAITING => Phase::Waiting,
            FILLED => Phase::Filled,
            TAKEN => Phase::Taken,
            RELEASED => Phase::Released,
            INTERRUPTED => Phase::Interrupted,
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
        let mut place = self.envelope.lock();
        if !self.end(FILLED) {
            return Err(envelope);
        }
        *place = Some(envelope);
        Ok(())
    }

    /// Ends the wait without a message, because the engine was closed.
    pub fn close(&self) {
        let _place = self.envelope.lock();
        self.end(CLOSED);
    }

    /// Ends the wait without a message, because the receiver has something else to do.
    pub fn interrupt(&self) {
        let _place = self.envelope.lock();
        self.end(INTERRUPTED);
    }

    /// Takes the message out, once.
    pub fn take(&self) -> Option<Envelope<M>> {
        let mut place = self.envelope.lock();
        let taken = place.take()?;
        self.phase.store(TAKEN, Ordering::Release);
        Some(taken)
    }

    /// The receiver leaves. What it held and did not take comes back, for the engine's `give_back`.
    pub fn release(&self) -> Option<Envelope<M>> {
        let mut place = self.envelope.lock();
        if matches!(self.phase.load(Ordering::Relaxed), WAITING | FILLED) {
            self.phase.store(RELEASED, Ordering::Release);
        }
        place.take()
    }

    /// Makes the slot ready for another wait, if the last one ended with its message taken or without one; else false,
    /// because a message may still be on its way to a receiver that left.
    pub fn reset(&self) -> bool {
        let over = matches!(self.phase.load(Ordering::Acquire), TAKEN | INTERRUPTED);
        if over {
            self.phase.store(WAITING, Ordering::Release);
        }
        over
    }

    /// Looks at the message, unless another thread is at the slot just now.
    pub fn peek<R>(&self, look: impl FnOnce(&M) -> R) -> Option<R> {
        let envelope = self.envelope.try_lock()?;
        envelope.as_ref().map(|envelope| look(&envelope.message))
    }
}

/// A slot that a thread sleeps on.
#[derive(Debug)]
pub struct Parker<M> {
    slot: Slot<M>,
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
    pub fn slot(&self) -> &Slot<M> {
        &self.slot
    }

    /// Wakes the thread; call it after the slot was filled, or when there will be no message.
    pub fn wake(&self) {
        *self.woken.lock() = true;
        self.condition.notify_one();
    }

    /// Sleeps until woken or until the time is over; returns whether it was woken.
    #[cfg(not(loom))]
    pub fn sleep(&self, timeout: Duration) -> bool {
        *self
            .condition
            .wait_until(self.woken.lock(), timeout, |woken| *woken)
    }
}
