//! The locks of both crates: std's, or loom's while a model runs.
//!
//! No foreign code runs while a thread holds one of them: no capacity rule, no comparison of keys, no destructor of a message
//! or a waiter, no call of an event loop. Such code may come back for the same lock, or wait for a thread that waits for
//! it. So what it decides is decided before the lock is taken, and what is removed under the lock is returned and dropped
//! after it. [`Mutex::with`], which the bindings use, takes only closures that another thread could run, and that is none
//! that can call Python. Where foreign code is called, `assert_unlocked` checks in debug builds that no lock is held.
//!
//! A poisoned lock is taken as it is. Every critical section here leaves the state consistent at each point
//! where it could unwind, and a layer that refuses all further work would turn one panic into an outage.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(loom)]
use loom::sync::{Condvar as Condition, Mutex as Lock, MutexGuard as LockGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(loom))]
use std::sync::{Condvar as Condition, Mutex as Lock, MutexGuard as LockGuard};

use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};

/// A lock around a value.
#[derive(Debug, Default)]
pub struct Mutex<T>(Lock<T>);

/// Access to the value, for as long as the lock is held.
#[derive(Debug)]
pub struct Guard<'a, T> {
    guard: LockGuard<'a, T>,
    _held: HeldLock,
}

impl<T> Mutex<T> {
    /// A lock around a value.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self(Lock::new(value))
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Self(Lock::new(value))
    }

    /// Takes the lock. Waits for a thread that holds it.
    pub fn lock(&self) -> Guard<'_, T> {
        Guard::new(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the lock only if nobody holds it.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(Guard::new(guard)),
            Err(TryLockError::Poisoned(poisoned)) => Some(Guard::new(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Runs a function under the lock. What that removes is to be returned, so that it is dropped without the lock.
    pub fn with<R: Send>(&self, function: impl FnOnce(&mut T) -> R + Send) -> R {
        function(&mut self.lock())
    }
}

impl<T: Send> Mutex<Option<T>> {
    /// Takes the value out.
    pub fn take(&self) -> Option<T> {
        self.with(Option::take)
    }

    /// Puts a value in, and returns the former one.
    #[must_use = "what it drops is dropped by the caller, without the lock"]
    pub fn replace(&self, value: T) -> Option<T> {
        self.with(|place| place.replace(value))
    }
}

impl<'a, T> Guard<'a, T> {
    fn new(guard: LockGuard<'a, T>) -> Self {
        Self {
            guard,
            _held: HeldLock::new(),
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A condition to wait for under a lock.
#[derive(Debug, Default)]
pub(crate) struct Condvar(Condition);

impl Condvar {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    #[cfg(feature = "redis")]
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Sleeps until the condition holds or the time is over. Gives up the lock meanwhile.
    #[cfg(not(loom))]
    pub(crate) fn wait_until<'a, T>(
        &self,
        guard: Guard<'a, T>,
        timeout: std::time::Duration,
        holds: impl Fn(&T) -> bool,
    ) -> Guard<'a, T> {
        let (guard, _) = self
            .0
            .wait_timeout_while(guard.guard, timeout, |value| !holds(value))
            .unwrap_or_else(PoisonError::into_inner);
        Guard::new(guard)
    }
}

#[cfg(all(debug_assertions, not(loom)))]
mod held {
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts a lock that this thread holds.
    #[derive(Debug)]
    pub(super) struct HeldLock(());

    impl HeldLock {
        pub(super) fn new() -> Self {
            COUNT.set(COUNT.get() + 1);
            Self(())
        }
    }

    impl Drop for HeldLock {
        fn drop(&mut self) {
            COUNT.set(COUNT.get() - 1);
        }
    }

    /// Checks that this thread holds no lock, because foreign code is about to run.
    pub(crate) fn assert_unlocked() {
        assert_eq!(COUNT.get(), 0, "foreign code would run under a lock");
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
mod held {
    #[derive(Debug)]
    pub(super) struct HeldLock;

    impl HeldLock {
        pub(super) fn new() -> Self {
            Self
        }
    }

    pub(crate) fn assert_unlocked() {}
}

use held::HeldLock;
pub(crate) use held::assert_unlocked;

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_run_foreign_code_before_and_after_a_lock() {
        let (lock, other) = (Mutex::new(1), Mutex::new(Some(2)));
        assert_unlocked();
        let guard = lock.lock();
        assert_eq!(other.replace(3), Some(2));
        drop(guard);
        assert_eq!((lock.with(|value| *value), other.take()), (1, Some(3)));
        assert_unlocked();
    }

    #[test]
    #[should_panic(expected = "foreign code would run under a lock")]
    fn foreign_code_under_a_lock_is_found() {
        Mutex::new(()).with(|()| assert_unlocked());
    }
}
