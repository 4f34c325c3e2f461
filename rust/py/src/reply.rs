//! The answer to a request to a server, for the task or thread that waits for it, if one does.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use headrace_core::Parker;
use headrace_core::history::{Stamp, Stamped};
use headrace_core::presence::Listing;
use headrace_core::redis::{Answer, Fault, FaultKind, KeptMessage};
use headrace_core::sync::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTimeoutError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::config::seconds;
use crate::errors::{ChannelFull, fault_to_python};
use crate::event_loop::{DetachedWakes, LoopQueue, Turn, Wake, queue_of, running_loop};
use crate::message::Message;
use crate::message::listing::{Present, present};
use crate::park::Park;
use crate::sleep::sleep;
use crate::stats::SendReport;
use crate::stub::StepsTo;

/// What is known of a message before its answer is there.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Channels of this process that get a copy.
    pub(crate) here: usize,
    /// Channels of this process that were full.
    pub(crate) full_here: usize,
    /// The channel that it was sent to, if it is an error that this is a full queue.
    pub(crate) channel: Option<String>,
}

impl Sent {
    fn report(&self, py: Python<'_>, answer: &Answer) -> PyResult<SendReport> {
        match (&answer.fault, &self.channel) {
            (Some(fault), _) => Err(fault_to_python(py, fault)),
            (None, Some(channel)) if answer.full > 0 => Err(ChannelFull::new_err(channel.clone())),
            (None, _) => Ok(SendReport::of_answer(answer, self.here, self.full_here)),
        }
    }
}

/// The messages of a history, each with where it stands.
fn kept_messages<'py>(py: Python<'py>, kept: &[KeptMessage]) -> PyResult<Bound<'py, PyList>> {
    let messages = PyList::empty(py);
    for KeptMessage { stamp, payload } in kept {
        let message = Message::from_frame(payload.clone(), None);
        message.stamp(*stamp);
        messages.append(message.into_python(py)?)?;
    }
    Ok(messages)
}

/// The faults that are no errors of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgiven {
    None,
    /// That the layer was closed.
    Closed,
    All,
}

impl Forgiven {
    fn includes(self, fault: &Fault) -> bool {
        match self {
            Self::None => false,
            Self::Closed => fault.kind() == FaultKind::Closed,
            Self::All => true,
        }
    }
}

/// What was done before the answer to it was there. It is confirmed by an answer without a fault, and else dropped.
pub(crate) trait Provisional: Debug + Send + Sync {
    /// The server has done its part.
    fn confirm(self: Box<Self>);
}

/// The answer to what was asked of a server: `await reply` in a task, or `reply.wait()` in any thread, once. It gives a report,
/// which says something if a message was sent.
///
/// What was asked is done whether anybody waits or not, but for a join, which fails if nobody waits until it is done.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Reply {
    pending: Arc<Pending>,
    /// Whether a task is resumed directly: `wake="direct"`.
    direct_wake: bool,
    /// Where the task that waits is parked; made by its first step.
    park: OnceLock<Park>,
    /// What is undone unless there is an answer without a fault, and somebody takes it.
    provisional: Mutex<Option<Box<dyn Provisional>>>,
    /// What is known of the message, if it is the answer to one.
    sent: Sent,
    forgiven: Forgiven,
    /// What the answer says of a history.
    found: OnceLock<Found>,
    /// Who is present, if that was asked for.
    listing: OnceLock<Listing>,
    /// How many members a group has, if that was asked for.
    members: OnceLock<u64>,
}

/// What was asked of the history of a group.
#[derive(Debug)]
struct Found {
    position: Option<Stamp>,
    complete: Option<bool>,
    messages: Vec<KeptMessage>,
}

/// What is known here, or the reply that will have it.
#[derive(IntoPyObject)]
#[expect(clippy::large_enum_variant, reason = "it becomes an object at once")]
pub(crate) enum Known<T> {
    Now(T),
    Soon(Reply),
}

/// Where an answer is put, by the thread that does the input and output.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<ReplyState>);

#[derive(Debug)]
enum ReplyState {
    /// There is no answer yet; the task or thread that waits for it is to be woken.
    Open(Option<Asker>),
    Answered(Answer),
    Taken,
}

impl Default for ReplyState {
    fn default() -> Self {
        Self::Open(None)
    }
}

const TAKEN: &str = "this reply was taken before";

/// Who waits for an answer.
#[derive(Debug)]
enum Asker {
    Task(Py<Reply>),
    Thread(Arc<Parker<()>>),
}

impl Pending {
    /// Puts the answer in, and wakes whoever waits.
    pub(crate) fn answer(&self, answer: Answer, wakes: &mut DetachedWakes) {
        let former = self
            .0
            .with(|state| std::mem::replace(state, ReplyState::Answered(answer)));
        match former {
            ReplyState::Open(Some(Asker::Task(reply))) => wakes.add(reply),
            ReplyState::Open(Some(Asker::Thread(thread))) => thread.wake(),
            ReplyState::Open(None) | ReplyState::Answered(_) | ReplyState::Taken => {}
        }
    }

    /// Takes the answer if it is there; if not, registers the asker for it.
    fn take_or_wait(&self, asker: Asker) -> PyResult<Option<Answer>> {
        // What was not used is dropped without the lock.
        let (answer, unused) = self.0.with(|state| match state {
            ReplyState::Open(place @ None) => {
                *place = Some(asker);
                (Ok(None), None)
            }
            ReplyState::Open(Some(_)) => (
                Err("one task or thread at a time waits for a reply"),
                Some(asker),
            ),
            ReplyState::Taken => (Err(TAKEN), Some(asker)),
            ReplyState::Answered(answer) => {
                let answer = std::mem::take(answer);
                *state = ReplyState::Taken;
                (Ok(Some(answer)), Some(asker))
            }
        });
        drop(unused);
        answer.map_err(PyRuntimeError::new_err)
    }

    /// Takes the answer; if there is none, removes the asker.
    fn take_or_leave(&self) -> Option<Answer> {
        let (answer, asker) = self.0.with(|state| match state {
            ReplyState::Open(asker) => (None, asker.take()),
            ReplyState::Taken => (None, None),
            ReplyState::Answered(answer) => {
                let answer = std::mem::take(answer);
                *state = ReplyState::Taken;
                (Some(answer), None)
            }
        });
        drop(asker);
        answer
    }
}

impl Reply {
    pub(crate) fn new(direct_wake: bool) -> Self {
        Self {
            pending: Arc::default(),
            direct_wake,
            park: OnceLock::new(),
            provisional: Mutex::new(None),
            sent: Sent::default(),
            forgiven: Forgiven::None,
            found: OnceLock::new(),
            listing: OnceLock::new(),
            members: OnceLock::new(),
        }
    }

    /// The same, for a message.
    #[must_use]
    pub(crate) fn with_sent(mut self, sent: Sent) -> Self {
        self.sent = sent;
        self
    }

    /// The same, where these faults are no errors.
    #[must_use]
    pub(crate) fn with_forgiven(mut self, forgiven: Forgiven) -> Self {
        self.forgiven = forgiven;
        self
    }

    /// The same, for what was done for now.
    #[must_use]
    pub(crate) fn with_provisional(mut self, provisional: Box<dyn Provisional>) -> Self {
        self.provisional = Mutex::new(Some(provisional));
        self
    }

    /// What the answer comes to.
    fn report(&self, py: Python<'_>, mut answer: Answer) -> PyResult<SendReport> {
        let forgiven = self.forgiven;
        answer.fault.take_if(|fault| forgiven.includes(fault));
        let provisional = self.provisional.take();
        if answer.fault.is_none()
            && let Some(provisional) = provisional
        {
            provisional.confirm();
        }
        if answer.position.is_some() || answer.complete.is_some() {
            let found = Found {
                position: answer.position,
                complete: answer.complete,
                messages: std::mem::take(&mut answer.messages),
            };
            self.found.get_or_init(|| found);
        }
        if let Some(members) = answer.members {
            self.members.get_or_init(|| members);
        }
        if let Some(listing) = answer.listing.take() {
            self.listing.get_or_init(|| listing);
        }
        self.sent.report(py, &answer)
    }

    /// Where the answer is to be put.
    pub(crate) fn pending(&self) -> Arc<Pending> {
        Arc::clone(&self.pending)
    }

    /// Waits in this thread; None if the time is over first. What was done for now is undone then.
    pub(crate) fn sleep(&self, py: Python<'_>, end: Option<Instant>) -> PyResult<Option<Answer>> {
        let thread = Arc::new(Parker::default());
        let asker = Asker::Thread(Arc::clone(&thread));
        if let Some(answer) = self.pending.take_or_wait(asker)? {
            return Ok(Some(answer));
        }
        let slept = sleep(py, end, |time| thread.sleep(time));
        // Also if the time is over: the answer may have come at the last moment.
        let answer = self.pending.take_or_leave();
        if answer.is_none() {
            drop(self.provisional.take());
        }
        if slept? && answer.is_none() {
            return Err(PyRuntimeError::new_err(TAKEN));
        }
        Ok(answer)
    }

    /// Where a task of the running loop is parked.
    fn park(&self, py: Python<'_>) -> PyResult<&Park> {
        if let Some(park) = self.park.get() {
            return Ok(park);
        }
        let queue = queue_of(&running_loop(py)?)?;
        Ok(self.park.get_or_init(|| Park::new(queue, self.direct_wake)))
    }

    /// Ends the wait of a task, with or without the answer.
    fn release(&self) {
        if let Some(park) = self.park.get() {
            park.spend();
        }
        drop(self.pending.take_or_leave());
        drop(self.provisional.take());
    }
}

impl Wake for Reply {
    fn queue(&self) -> Option<&Py<LoopQueue>> {
        self.park.get().map(Park::queue)
    }

    fn wake(slf: &Bound<'_, Self>, _: &Turn) -> PyResult<()> {
        let reply = slf.get();
        match reply.park.get() {
            // A task that was cancelled meanwhile is not to be resumed. One whose answer was taken elsewhere gets an error.
            Some(park) if !park.is_spent() => park.resume(slf.py(), || false),
            _ => Ok(()),
        }
    }

    fn give_back(&self, _: Python<'_>) {}
}

#[pymethods]
impl Reply {
    fn __await__(slf: Bound<'_, Self>) -> StepsTo<'_, SendReport> {
        StepsTo::new(slf)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, reply) = (slf.py(), slf.get());
        let park = reply.park(py)?;
        // The loop runs here, so the task is parked before it can be woken.
        let asker = Asker::Task(slf.clone().unbind());
        match reply.pending.take_or_wait(asker)? {
            Some(answer) => Err(PyStopIteration::new_err((reply.report(py, answer)?,))),
            None if park.is_spent() => {
                reply.release();
                Err(PyRuntimeError::new_err(
                    "the wait for this reply was ended before",
                ))
            }
            None => park.park(py).inspect_err(|_| reply.release()),
        }
    }

    /// End the wait with an exception.
    #[pyo3(signature = (typ, val=None, tb=None, /))]
    fn throw(
        &self,
        typ: Bound<'_, PyAny>,
        val: Option<Bound<'_, PyAny>>,
        tb: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // An exception brings its traceback along.
        drop(tb);
        self.release();
        Err(PyErr::from_value(val.unwrap_or(typ)))
    }

    /// Where the group stands in whose history something was asked for, once the reply was waited for.
    #[getter]
    fn position(&self) -> Option<String> {
        let stamp = self.found.get()?.position?;
        Some(stamp.token().as_str().to_owned())
    }

    /// Whether all was found that is behind a position, once the reply was waited for.
    #[getter]
    fn complete(&self) -> bool {
        let found = self.found.get();
        found.and_then(|found| found.complete).unwrap_or_default()
    }

    /// The messages that were asked for, once the reply was waited for.
    #[pyo3(signature = () -> "list[dict[str, object]]")]
    fn messages<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let found = self.found.get();
        let kept = found.map_or(&[][..], |found| &found.messages);
        kept_messages(py, kept)
    }

    /// How many members a group has in all processes, if that was asked for, once the reply was waited for.
    #[getter]
    fn members(&self) -> Option<u64> {
        self.members.get().copied()
    }

    /// Who is present, if that was asked for, once the reply was waited for.
    #[pyo3(signature = () -> "tuple[dict[str, list[dict[str, object]]], int, int, int, bool]")]
    fn presence<'py>(&self, py: Python<'py>) -> PyResult<Present<'py>> {
        match self.listing.get() {
            Some(listing) => present(py, listing),
            None => Err(PyRuntimeError::new_err(
                "this reply does not say who is present",
            )),
        }
    }

    /// End the wait.
    fn close(&self) {
        self.release();
    }

    /// Wait for the answer, blocking this thread.
    ///
    /// Args:
    ///     timeout: Seconds to wait at most; None waits for ever, though what a server does not do in time has an answer too.
    ///
    /// Raises:
    ///     ChannelFull: It was a message to a queue that is full.
    ///     TimeoutError: The time is over.
    ///     ValueError: The time is negative or no number.
    ///     LayerUnavailable: The server could not be reached, did not answer in time, or refused.
    ///     LayerClosed: The layer was closed.
    ///     RuntimeError: The reply was taken, or somebody else waits for it.
    #[pyo3(signature = (timeout=None))]
    pub(crate) fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<SendReport> {
        let end = match timeout {
            Some(timeout) => Instant::now().checked_add(seconds(timeout)?),
            None => None,
        };
        match self.sleep(py, end)? {
            Some(answer) => self.report(py, answer),
            None => Err(PyTimeoutError::new_err("there was no answer in time")),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(park) = self.park.get() {
            park.traverse(&visit)?;
        }
        // An object must not be shown more often than it is referred to, so only by the one owner of the reference.
        if Arc::strong_count(&self.pending) == 1
            && let Some(ReplyState::Open(Some(Asker::Task(reply)))) =
                self.pending.0.try_lock().as_deref()
        {
            visit.call(reply)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.release();
    }
}
