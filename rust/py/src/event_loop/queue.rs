//! The queue of one event loop: what is to be woken by its next call of `drain`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use headrace_core::sync::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::ready::{Ready, RunQueue};
use super::running::{Draining, address, drained_loop, forget_drained};
use super::self_pipe::SelfPipe;
use super::turn::Turn;
use super::wake_target::WakeTarget;
use crate::locks::refer;
use crate::once::intern;

/// How many objects `drain` takes out of the queue at once.
const BATCH: usize = 16;
/// After how many of them it looks at the clock. It looks earlier at first: where one handler is slow, most are.
const LOOK: usize = 8;

/// The queues of all loops of the process, by the address of the loop; there are few of them. Global, because a running
/// loop is: several layers share its queue, and a fork has to find all descriptors.
static QUEUES: Mutex<Vec<(usize, Py<LoopQueue>)>> = Mutex::new(Vec::new());

/// The waiters of several mailboxes, among them tasks of a loop. It is notified when the loop is gone.
pub(crate) trait WaitQueues: Send + Sync {
    /// Removes all waiters that would be woken through this queue.
    fn forget_loop(&self, queue: &LoopQueue);
}

/// What is to be woken by one event loop, and has not been woken yet.
#[pyclass(frozen)]
pub(crate) struct LoopQueue {
    address: usize,
    reference: Py<PyWeakrefReference>,
    pub(super) ready: Arc<Ready>,
    created: Instant,
    /// Where tasks of this loop have waited, to be notified when it is gone; the last of them also by address.
    wait_queues: Mutex<Vec<Weak<dyn WaitQueues>>>,
    last_wait_queues: AtomicUsize,
}

impl std::fmt::Debug for LoopQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopQueue")
            .field("address", &self.address)
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

/// Why a task is woken.
#[derive(Clone, Copy, Debug)]
pub(super) enum WakeReason {
    /// Its wait was interrupted.
    Interrupted,
    /// It has what it waits for.
    Ready,
}

impl WakeReason {
    fn of(self, queue: &mut RunQueue) -> &mut VecDeque<WakeTarget> {
        match self {
            Self::Interrupted => &mut queue.interrupted,
            Self::Ready => &mut queue.ready,
        }
    }
}

/// What is to be done after something was added to a queue.
pub(super) enum Added {
    Nothing,
    /// A call of `drain` is to be scheduled.
    Schedule,
    /// The loop is gone; what was to be added comes back.
    Closed(Vec<WakeTarget>),
}

impl LoopQueue {
    pub(super) fn new(event_loop: &Bound<'_, PyAny>, pipe: Option<SelfPipe>) -> PyResult<Self> {
        Ok(Self {
            address: address(event_loop),
            reference: PyWeakrefReference::new(event_loop)?.unbind(),
            ready: Arc::new(Ready::new(pipe)),
            created: Instant::now(),
            wait_queues: Mutex::default(),
            last_wait_queues: AtomicUsize::new(0),
        })
    }

    /// The queue of a loop that is there.
    pub(super) fn find(event_loop: &Bound<'_, PyAny>) -> Option<Py<Self>> {
        let py = event_loop.py();
        let queue = Self::at(py, address(event_loop))?;
        let same = queue.get().has_reader() || queue.get().event_loop(py).is_some();
        same.then_some(queue)
    }

    fn at(py: Python<'_>, address: usize) -> Option<Py<Self>> {
        refer(py, &QUEUES, |queues| {
            let found = queues.iter().find(|(known, _)| *known == address);
            found.map(|(_, queue)| queue)
        })
    }

    /// The queue of which this is the part that needs no Python.
    pub(super) fn with_ready(py: Python<'_>, ready: &Arc<Ready>) -> Option<Py<Self>> {
        refer(py, &QUEUES, |queues| {
            let is_it = |queue: &Py<Self>| Arc::ptr_eq(&queue.get().ready, ready);
            let found = queues.iter().find(|(_, queue)| is_it(queue));
            found.map(|(_, queue)| queue)
        })
    }

    /// Makes the queue known to all that look for it.
    pub(super) fn register(this: &Py<Self>, py: Python<'_>) {
        Self::close_silent(py);
        let known = (this.get().address, this.clone_ref(py));
        QUEUES.with(|queues| queues.push(known));
    }

    /// Closes the queues of loops without a reader that are gone: nothing else has noticed their end.
    fn close_silent(py: Python<'_>) {
        let known: Vec<_> =
            QUEUES.with(|queues| queues.iter().map(|(address, _)| *address).collect());
        for queue in known.iter().filter_map(|address| Self::at(py, *address)) {
            // Without the lock: this may hold the last reference to a loop, whose end takes the lock.
            if queue.get().event_loop(py).is_none() {
                queue.get().close(py);
            }
        }
    }

    /// Takes the queue out of those that are known.
    #[must_use = "what it drops is dropped by the caller, without the lock"]
    fn forget(&self) -> Vec<(usize, Py<Self>)> {
        let is_it = |(_, known): &mut (usize, Py<Self>)| std::ptr::eq(known.get(), self);
        QUEUES.with(|queues| queues.extract_if(.., is_it).collect())
    }

    /// The loop, if it is still there.
    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.reference.bind(py).upgrade()
    }

    /// Whether this is the queue of a loop at that address: the same loop, as long as that is there.
    pub(crate) fn is_at(&self, address: usize) -> bool {
        self.address == address
    }

    /// Whether the loop is known to be gone.
    pub(crate) fn is_closed(&self) -> bool {
        !self.has_reader() && self.ready.run_queue.with(|queue| queue.closed)
    }

    /// Whether the loop is there, and its end will be noticed: it has a reader.
    pub(crate) fn has_reader(&self) -> bool {
        self.ready.has_reader.load(Ordering::Relaxed)
    }

    /// Whether a call of `drain` is scheduled; the one that is running does not count.
    pub(crate) fn is_drain_scheduled(&self) -> bool {
        drained_loop() != Some(self.address) && self.ready.run_queue.with(|queue| queue.scheduled)
    }

    /// The origin of the times that this loop's tasks store.
    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// Whether the loop was closed or collected; only a loop without a reader has to be asked.
    pub(super) fn is_gone(&self, py: Python<'_>) -> bool {
        let closed = |event_loop: Bound<'_, PyAny>| {
            event_loop
                .call_method0(intern!(py, "is_closed"))?
                .is_truthy()
        };
        self.event_loop(py)
            .is_none_or(|event_loop| closed(event_loop).unwrap_or(false))
    }

    /// Notes that tasks of this loop wait here.
    pub(crate) fn remember<L: WaitQueues + 'static>(&self, wait_queues: &Arc<L>) {
        let address = Arc::as_ptr(wait_queues) as usize;
        if self.last_wait_queues.load(Ordering::Relaxed) == address {
            return;
        }
        self.last_wait_queues.store(address, Ordering::Relaxed);
        self.wait_queues.with(|all| {
            all.retain(|known| known.strong_count() > 0);
            let known =
                |known: &Weak<dyn WaitQueues>| known.as_ptr().cast::<()>() as usize == address;
            if !all.iter().any(known) {
                let wait_queues: Arc<dyn WaitQueues> = Arc::<L>::clone(wait_queues);
                all.push(Arc::downgrade(&wait_queues));
            }
        });
    }

    pub(super) fn add(
        &self,
        py: Python<'_>,
        targets: Vec<WakeTarget>,
        reason: WakeReason,
    ) -> Added {
        if !self.has_reader() && self.is_gone(py) {
            self.close(py);
        }
        self.ready.run_queue.with(|queue| {
            if queue.closed {
                return Added::Closed(targets);
            }
            reason.of(queue).extend(targets);
            if std::mem::replace(&mut queue.scheduled, true) {
                Added::Nothing
            } else {
                Added::Schedule
            }
        })
    }

    /// Notes, until it is dropped, that this thread is in a call of `drain`.
    pub(super) fn draining(&self) -> Draining {
        Draining::new(self.address)
    }

    /// Wakes what is there now, as long as the turn lasts; the rest is woken in the loop's next turn.
    pub(super) fn wake_all(&self, py: Python<'_>) -> PyResult<()> {
        self.call_alarms(py);
        // Each reason has a turn of its own: neither a group nor clients that send all the time hold up the other.
        self.wake(py, WakeReason::Interrupted)?;
        self.wake(py, WakeReason::Ready)
    }

    fn wake(&self, py: Python<'_>, reason: WakeReason) -> PyResult<()> {
        let run_queue = &self.ready.run_queue;
        let there = run_queue.with(|queue| reason.of(queue).len());
        if there == 0 {
            return Ok(());
        }
        let turn = Turn::begin();
        let mut batch = VecDeque::with_capacity(BATCH);
        for woken in 1..=there {
            if batch.is_empty() {
                run_queue.with(|queue| {
                    let targets = reason.of(queue);
                    // Fewer than there were, if the loop was closed meanwhile.
                    let next = (there + 1 - woken).min(BATCH).min(targets.len());
                    batch.extend(targets.drain(..next));
                });
            }
            let Some(target) = batch.pop_front() else {
                break;
            };
            let result = target.wake(py, &turn);
            let looks = woken.is_power_of_two() || woken % LOOK == 0;
            if result.is_err() || (looks && turn.is_over()) {
                self.put_back(batch, reason);
                return result;
            }
        }
        Ok(())
    }

    fn call_alarms(&self, py: Python<'_>) {
        let alarms = self
            .ready
            .run_queue
            .with(|queue| std::mem::take(&mut queue.alarms));
        let turn = Turn::begin();
        for alarm in alarms {
            if let Err(error) = alarm.wake(py, &turn) {
                error.write_unraisable(py, None);
            }
        }
    }

    fn put_back(&self, batch: VecDeque<WakeTarget>, reason: WakeReason) {
        self.ready.run_queue.with(|queue| {
            for target in batch.into_iter().rev() {
                reason.of(queue).push_front(target);
            }
        });
    }

    /// Ends one call of `drain`; true if there is more to do, for which another is to be scheduled.
    pub(super) fn end_drain(&self) -> bool {
        self.ready.run_queue.with(|queue| {
            queue.scheduled = queue.has_more();
            queue.scheduled
        })
    }

    /// Notes that no call of `drain` is scheduled, because that failed.
    pub(super) fn give_up(&self) {
        self.ready.run_queue.with(|queue| queue.scheduled = false);
    }

    /// Ends the queue of a loop that is gone: messages that its tasks have not taken go back, and its tasks wait no more.
    pub(super) fn close(&self, py: Python<'_>) {
        let (targets, alarms) = self.ready.run_queue.with(RunQueue::close);
        self.ready.has_reader.store(false, Ordering::Relaxed);
        let removed = self.forget();
        drop(self.ready.pipe.take());
        for target in targets {
            target.give_back(py);
        }
        let wait_queues = self.wait_queues.with(std::mem::take);
        for wait_queues in wait_queues.iter().filter_map(Weak::upgrade) {
            wait_queues.forget_loop(self);
        }
        drop((removed, alarms));
    }
}

/// Forget the event loops of the parent process, and close their descriptors. The tasks of the parent are
/// neither woken nor finalised: they are not this process's to end.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    // The fork may have happened in a task that `drain` had woken; in this process that loop runs no more.
    forget_drained();
    // Without an interpreter lock another thread may have held one of these at the fork, and will never release it.
    let queues = QUEUES.try_lock();
    let queues = queues.map(|mut queues| std::mem::take(&mut *queues));
    for (_, handle) in queues.unwrap_or_default() {
        let queue = handle.get();
        queue.ready.has_reader.store(false, Ordering::Relaxed);
        drop(queue.ready.pipe.try_lock().map(|mut pipe| pipe.take()));
        let wait_queues = queue.wait_queues.try_lock();
        drop(wait_queues.map(|mut wait_queues| std::mem::take(&mut *wait_queues)));
        let run_queue = queue.ready.run_queue.try_lock();
        std::mem::forget(run_queue.map(|mut queue| queue.close()));
    }
}
