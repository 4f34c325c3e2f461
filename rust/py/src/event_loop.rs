//! How an event loop learns that some of its tasks have a message.
//!
//! Each loop that receives has one [`LoopQueue`]. A sender puts the waiters it found there and, if nobody has done so
//! before, arranges for one call of `drain` on the loop: by `call_soon` in the loop's own thread, by a byte
//! through a socket pair from any other. So a batch costs one wake, however many tasks it is for, and a thread that floods a
//! busy loop does not take the interpreter's lock from it message by message, as `call_soon_threadsafe` would.
//!
//! The loop holds the only reference to the [`Bell`] that reads the socket, so the bell's end is the loop's end: closed
//! or collected. That is when receivers that still wait there are let go, and messages on their way to them go back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use headrace_core::sync::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use crate::awaitable::Waiter;
use crate::locks::refer;
use crate::receiver::{Engine, Receiver};
use crate::wire::Wire;

mod calls;
mod ready;
mod turn;

use calls::{Bell, Drain};
pub(crate) use ready::DetachedWakes;
use ready::{Line, Ready};
pub(crate) use turn::{Pace, Turn};

/// How many waiters `drain` takes out of the line at once.
const BATCH: usize = 16;
/// After how many waiters it looks at the clock; at first earlier, because where one handler is slow most are.
const LOOK: usize = 8;

/// The queues of all loops of the process, by the address of the loop; there are few of them. It is the one global of
/// this crate, because a running loop is one: several layers share its queue, and a fork has to find all descriptors.
static QUEUES: Mutex<Vec<(usize, Py<LoopQueue>)>> = Mutex::new(Vec::new());

/// The waiters of one event loop that have a message, or are called by their clients, and have not been woken yet.
#[pyclass(frozen)]
#[derive(Debug)]
pub(crate) struct LoopQueue {
    address: usize,
    reference: Py<PyWeakrefReference>,
    ready: Arc<Ready>,
    born: Instant,
    /// The layers on which this loop's tasks have waited, for its end; the last of them also by address.
    engines: Mutex<Vec<Weak<Engine>>>,
    last_engine: AtomicUsize,
}

/// Why a waiter is woken.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Its client calls it.
    Called,
    /// It has a message.
    Ready,
}

impl Kind {
    fn of(self, line: &mut Line) -> &mut VecDeque<Py<Waiter>> {
        match self {
            Self::Called => &mut line.called,
            Self::Ready => &mut line.waiters,
        }
    }
}

/// What a queue wants after waiters were added.
enum Added {
    Nothing,
    Ring,
    /// The loop is gone; the waiters come back.
    Closed(Vec<Py<Waiter>>),
}

impl LoopQueue {
    /// The queue of the running loop, for a task of that loop that is about to wait on the engine.
    pub(crate) fn of(event_loop: &Bound<'_, PyAny>, engine: &Arc<Engine>) -> PyResult<Py<Self>> {
        let queue = match Self::find(event_loop) {
            Some(queue) => queue,
            None => Self::create(event_loop)?,
        };
        queue.get().remember(engine);
        Ok(queue)
    }

    fn find(event_loop: &Bound<'_, PyAny>) -> Option<Py<Self>> {
        let py = event_loop.py();
        let here = address(event_loop);
        let queue = Self::at(py, here)?;
        let same = queue.get().has_bell() || queue.get().event_loop(py).is_some();
        same.then_some(queue)
    }

    fn at(py: Python<'_>, address: usize) -> Option<Py<Self>> {
        refer(py, &QUEUES, |queues| {
            let found = queues.iter().find(|(known, _)| *known == address);
            found.map(|(_, queue)| queue)
        })
    }

    fn create(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        let wire = Wire::new()?;
        let descriptor = wire.as_ref().map(Wire::descriptor);
        let queue = Self {
            address: address(event_loop),
            reference: PyWeakrefReference::new(event_loop)?.unbind(),
            ready: Arc::new(Ready::new(wire)),
            born: Instant::now(),
            engines: Mutex::default(),
            last_engine: AtomicUsize::new(0),
        };
        let queue = Py::new(py, queue)?;
        if let Some(descriptor) = descriptor {
            Bell::hang(&queue, event_loop, descriptor)?;
        }
        Self::forget_silent(py);
        let known = (queue.get().address, queue.clone_ref(py));
        QUEUES.with(|queues| queues.push(known));
        Ok(queue)
    }

    /// Forgets the loops that went without a bell, and so without a word.
    fn forget_silent(py: Python<'_>) {
        let known: Vec<_> =
            QUEUES.with(|queues| queues.iter().map(|(address, _)| *address).collect());
        for queue in known.iter().filter_map(|address| Self::at(py, *address)) {
            // Asked without the lock: the answer may be the last reference to a loop, whose end takes the lock.
            if queue.get().event_loop(py).is_none() {
                drop(queue.get().forget());
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
        !self.has_bell() && self.ready.line.with(|line| line.closed)
    }

    /// Whether the loop is there, and its end will be noticed.
    pub(crate) fn has_bell(&self) -> bool {
        self.ready.has_bell.load(Ordering::Relaxed)
    }

    /// Whether a call of `drain` is on its way; the one that is being made does not count.
    pub(crate) fn is_called(&self) -> bool {
        drained_loop() != Some(self.address) && self.ready.line.with(|line| line.scheduled)
    }

    /// What the times of this loop's tasks are counted from.
    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    /// Whether the loop was closed or collected; only a loop without a bell has to be asked.
    fn is_gone(&self, py: Python<'_>) -> bool {
        let closed = |event_loop: Bound<'_, PyAny>| {
            event_loop
                .call_method0(intern!(py, "is_closed"))?
                .is_truthy()
        };
        self.event_loop(py)
            .is_none_or(|event_loop| closed(event_loop).unwrap_or(false))
    }

    fn remember(&self, engine: &Arc<Engine>) {
        let address = Arc::as_ptr(engine) as usize;
        if self.last_engine.load(Ordering::Relaxed) == address {
            return;
        }
        self.last_engine.store(address, Ordering::Relaxed);
        self.engines.with(|engines| {
            engines.retain(|known| known.strong_count() > 0);
            let known = |known: &Weak<Engine>| known.as_ptr() as usize == address;
            if !engines.iter().any(known) {
                engines.push(Arc::downgrade(engine));
            }
        });
    }

    fn add(&self, py: Python<'_>, waiters: Vec<Py<Waiter>>, kind: Kind) -> Added {
        if !self.has_bell() && self.is_gone(py) {
            self.close(py);
        }
        self.ready.line.with(|line| {
            if line.closed {
                return Added::Closed(waiters);
            }
            kind.of(line).extend(waiters);
            if std::mem::replace(&mut line.scheduled, true) {
                Added::Nothing
            } else {
                Added::Ring
            }
        })
    }

    /// Arranges for one call of `drain`.
    ///
    /// A loop's `call_soon` may be Python, and so may be interrupted by whatever a signal handler raises: then the wire
    /// serves, and the exception goes to the caller. Only a loop that is really gone is treated as gone.
    fn ring(this: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        let queue = this.get();
        let Some(event_loop) = queue.event_loop(py) else {
            queue.close(py);
            return Ok(());
        };
        let here = runs_here(&event_loop);
        if !here && queue.pull_wire() {
            return Ok(());
        }
        let method = if here {
            intern!(py, "call_soon")
        } else {
            intern!(py, "call_soon_threadsafe")
        };
        let called = Drain::call(this, &event_loop, method, None);
        if called.is_ok() {
            return called;
        }
        if queue.is_gone(py) {
            queue.close(py);
            return Ok(());
        }
        if !queue.pull_wire() {
            queue.ready.line.with(|line| line.scheduled = false);
        }
        called
    }

    /// As `ring`, where there is no caller to tell of an exception.
    fn ring_aside(this: &Py<Self>, py: Python<'_>) {
        if let Err(error) = Self::ring(this, py) {
            error.write_unraisable(py, None);
        }
    }

    fn pull_wire(&self) -> bool {
        self.ready.pull_wire()
    }

    /// Wakes the waiters that are there now, as long as the turn lasts; the rest is woken in the loop's next turn.
    fn drain(this: &Py<Self>, py: Python<'_>) -> PyResult<()> {
        let queue = this.get();
        let _draining = Draining::new(queue.address);
        let drained = queue.wake_all(py);
        Self::finish(this, py);
        drained
    }

    /// Wakes those of each kind for a turn of their own: clients that send without pause hold up no group, and a group no client.
    fn wake_all(&self, py: Python<'_>) -> PyResult<()> {
        self.sound_alarms(py);
        self.wake(py, Kind::Called)?;
        self.wake(py, Kind::Ready)
    }

    fn wake(&self, py: Python<'_>, kind: Kind) -> PyResult<()> {
        let line = &self.ready.line;
        let there = line.with(|line| kind.of(line).len());
        if there == 0 {
            return Ok(());
        }
        let turn = Turn::begin();
        let mut batch = VecDeque::with_capacity(BATCH);
        for woken in 1..=there {
            if batch.is_empty() {
                line.with(|line| {
                    let waiters = kind.of(line);
                    // Fewer than there were, if the loop was closed meanwhile.
                    let next = (there + 1 - woken).min(BATCH).min(waiters.len());
                    batch.extend(waiters.drain(..next));
                });
            }
            let Some(waiter) = batch.pop_front() else {
                break;
            };
            let result = Waiter::wake(waiter.bind(py), &turn);
            let looks = woken.is_power_of_two() || woken % LOOK == 0;
            if result.is_err() || (looks && turn.is_over()) {
                self.put_back(batch, kind);
                return result;
            }
        }
        Ok(())
    }

    fn sound_alarms(&self, py: Python<'_>) {
        let alarms = self
            .ready
            .line
            .with(|line| std::mem::take(&mut line.alarms));
        for alarm in alarms {
            if let Err(error) = alarm.get().call(py) {
                error.write_unraisable(py, None);
            }
        }
    }

    fn put_back(&self, batch: VecDeque<Py<Waiter>>, kind: Kind) {
        self.ready.line.with(|line| {
            for waiter in batch.into_iter().rev() {
                kind.of(line).push_front(waiter);
            }
        });
    }

    /// Ends one call of `drain`, with another to follow if there is more to do.
    fn finish(this: &Py<Self>, py: Python<'_>) {
        let again = this.get().ready.line.with(|line| {
            line.scheduled = line.has_more();
            line.scheduled
        });
        if again {
            Self::ring_aside(this, py);
        }
    }

    /// The loop is gone: messages on their way to its tasks go back, and its tasks are let go.
    fn close(&self, py: Python<'_>) {
        let (waiters, alarms) = self.ready.line.with(Line::close);
        self.ready.has_bell.store(false, Ordering::Relaxed);
        let removed = self.forget();
        drop(self.ready.wire.take());
        for waiter in waiters {
            waiter.get().give_back(py);
        }
        let mine = |receiver: &Receiver| match receiver {
            Receiver::Task(waiter) => std::ptr::eq(waiter.get().queue(), self),
            Receiver::Alarm(alarm) => std::ptr::eq(alarm.get().queue(), self),
            Receiver::Thread(_) => false,
        };
        let engines = self.engines.with(std::mem::take);
        for engine in engines.iter().filter_map(Weak::upgrade) {
            drop(engine.forget_all(mine));
        }
        drop((removed, alarms));
    }
}

thread_local! {
    /// The address of the loop whose queue is being drained in this thread, or 0.
    static DRAINED: Cell<usize> = const { Cell::new(0) };
}

/// The loop that runs in this thread, as far as that is known without asking asyncio, which makes a system call to find
/// out whether the process has forked: a task that `drain` woke runs in the loop that called `drain`.
pub(crate) fn drained_loop() -> Option<usize> {
    let address = DRAINED.get();
    (address != 0).then_some(address)
}

/// Marks the loop as the one that is drained, until it is dropped.
struct Draining {
    before: usize,
}

impl Draining {
    fn new(address: usize) -> Self {
        Self {
            before: DRAINED.replace(address),
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        DRAINED.set(self.before);
    }
}

/// The event loop that runs in this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUNNING.import(py, "asyncio", "get_running_loop")?.call0()
}

/// The event loop that runs in this thread, or None.
fn current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUNNING.import(py, "asyncio", "_get_running_loop")?.call0()
}

/// Whether any loop runs in this thread.
pub(crate) fn is_running(py: Python<'_>) -> bool {
    current(py).is_ok_and(|running| !running.is_none())
}

/// Whether this loop runs in this thread, and is in the middle of a call. Anywhere else it has to be woken.
fn runs_here(event_loop: &Bound<'_, PyAny>) -> bool {
    match drained_loop() {
        Some(drained) => drained == address(event_loop),
        None => current(event_loop.py()).is_ok_and(|running| running.is(event_loop)),
    }
}

pub(crate) fn address(object: &Bound<'_, PyAny>) -> usize {
    object.as_ptr() as usize
}

/// The waiters of one delivery, on their way to the queues of their loops.
#[derive(Default)]
pub(crate) struct Wakes {
    /// The waiters since the loop last changed: all of one loop.
    waiters: Vec<Py<Waiter>>,
    /// Queues that were handed waiters before, and want to be rung.
    ring: Vec<Py<LoopQueue>>,
    stranded: Vec<Py<Waiter>>,
}

impl Wakes {
    pub(crate) fn add(&mut self, py: Python<'_>, waiter: Py<Waiter>) {
        if let Some(last) = self.waiters.last() {
            if !std::ptr::eq(last.get().queue(), waiter.get().queue()) {
                self.hand_over(py);
            }
        }
        self.waiters.push(waiter);
    }

    fn hand_over(&mut self, py: Python<'_>) {
        let Some(queue) = self
            .waiters
            .last()
            .map(|last| last.get().queue_handle().clone_ref(py))
        else {
            return;
        };
        let waiters = std::mem::take(&mut self.waiters);
        self.add_to(py, queue, waiters, Kind::Ready);
    }

    /// Adds a waiter that its own client calls.
    pub(crate) fn call(&mut self, py: Python<'_>, waiter: Py<Waiter>) {
        let queue = waiter.get().queue_handle().clone_ref(py);
        self.add_to(py, queue, vec![waiter], Kind::Called);
    }

    fn add_to(
        &mut self,
        py: Python<'_>,
        queue: Py<LoopQueue>,
        waiters: Vec<Py<Waiter>>,
        kind: Kind,
    ) {
        match queue.get().add(py, waiters, kind) {
            Added::Nothing => {}
            Added::Ring => self.ring.push(queue),
            Added::Closed(waiters) => self.stranded.extend(waiters),
        }
    }

    /// Wakes every loop that was handed waiters; all of them, even if one raises.
    pub(crate) fn ring(mut self, py: Python<'_>) -> PyResult<()> {
        self.hand_over(py);
        let mut rung = Ok(());
        for queue in self.ring {
            rung = rung.and(LoopQueue::ring(&queue, py));
        }
        for waiter in self.stranded {
            waiter.get().give_back(py);
        }
        rung
    }
}

/// Forget the event loops of the parent process, and close their descriptors. The tasks of the parent are
/// neither woken nor finalised: they are not this process's to end.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    // The fork may have happened in a task that `drain` had woken; in this process that loop runs no more.
    DRAINED.set(0);
    // Without an interpreter lock another thread may have held one of these at the fork, and will never release it.
    let queues = QUEUES.try_lock();
    let queues = queues.map(|mut queues| std::mem::take(&mut *queues));
    for (_, handle) in queues.unwrap_or_default() {
        let queue = handle.get();
        queue.ready.has_bell.store(false, Ordering::Relaxed);
        drop(queue.ready.wire.try_lock().map(|mut wire| wire.take()));
        let engines = queue.engines.try_lock();
        drop(engines.map(|mut engines| std::mem::take(&mut *engines)));
        let line = queue.ready.line.try_lock();
        std::mem::forget(line.map(|mut line| line.close()));
    }
}
