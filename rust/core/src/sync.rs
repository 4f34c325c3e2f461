//! The locks of this crate: std's, or loom's while a model runs.
//!
//! A poisoned lock is taken as it is. Every critical section here leaves the state consistent at each point
//! where it could unwind, and a layer that refuses all further work would turn one panic into an outage.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(loom)]
use loom::sync::{Condvar as Condition, Mutex as Lock, MutexGuard as Guard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(loom))]
use std::sync::{Condvar as Condition, Mutex as Lock, MutexGuard as Guard};

use std::sync::PoisonError;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(Lock<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Lock::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock only if nobody holds it.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(Condition);

impl Condvar {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Sleeps until the condition holds or the time is over; tells whether it holds.
    #[cfg(not(loom))]
    pub(crate) fn wait_until<T>(
        &self,
        guard: Guard<'_, T>,
        timeout: std::time::Duration,
        holds: impl Fn(&T) -> bool,
    ) -> bool {
        let (guard, _) = self
            .0
            .wait_timeout_while(guard, timeout, |value| !holds(value))
            .unwrap_or_else(PoisonError::into_inner);
        holds(&guard)
    }
}
