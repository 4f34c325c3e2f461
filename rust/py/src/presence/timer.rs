//! When who is present is told, by a thread that sleeps until then.
//!
//! A layer has its thread from the first channel that is present until the layer is gone. With a clock that is moved by hand, it has
//! none: whoever moves the clock does what has become due.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use bytes::Bytes;
use headrace_core::HandOff;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::config::ManualClock;
use crate::event_loop::DetachedWakes;
use crate::message::Message;
use crate::receiver::{self, Engine, call_alarms, deliver, deliver_detached};

/// What tells the groups of a layer who is present.
#[derive(Debug)]
pub(crate) struct Timer {
    started: OnceLock<()>,
}

impl Timer {
    /// A timer that is not running; or one that follows a clock which is moved by hand.
    pub(crate) fn new(engine: &Arc<Engine>, clock: Option<&ManualClock>) -> Self {
        let started = OnceLock::new();
        if let Some(clock) = clock {
            let engine = Arc::downgrade(engine);
            clock.follow(move |py| follow(py, &engine));
            started.get_or_init(|| ());
        }
        Self { started }
    }

    /// Starts the thread, if it does not run yet.
    pub(crate) fn start(&self, engine: &Arc<Engine>) -> PyResult<()> {
        if self.started.get().is_some() {
            return Ok(());
        }
        let (bell, rung) = sync_channel(1);
        let weak = Arc::downgrade(engine);
        let thread = thread::Builder::new().name("headrace-presence".to_owned());
        let spawned = thread.spawn(move || run(&weak, &rung));
        spawned.map_err(|error| {
            PyOSError::new_err(format!(
                "no thread could be started to tell who is present: {error}"
            ))
        })?;
        // If another thread was quicker, its bell stays, and the thread that was started here ends at once.
        engine.on_presence_due(move || {
            // One that was rung and not heard yet is enough.
            let _ = bell.try_send(());
        });
        self.started.get_or_init(|| ());
        Ok(())
    }
}

/// Sleeps and tells by turns. The bell is gone with the engine.
fn run(engine: &Weak<Engine>, rung: &Receiver<()>) {
    while let Some(engine) = engine.upgrade() {
        let due = engine.presence_due();
        let left = due.map(|due| due.since(engine.now()));
        if left.is_some_and(|left| left.is_zero()) {
            deliver_detached(&engine, tell(&engine), DetachedWakes::default());
        }
        release(engine);
        let heard = match left {
            Some(left) if left.is_zero() => continue,
            Some(left) => rung.recv_timeout(left),
            None => rung.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if heard == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Lets an engine go. The last one refers to objects of Python, which this thread would leak.
fn release(engine: Arc<Engine>) {
    if let Some(last) = Arc::into_inner(engine) {
        Python::try_attach(|_| drop(last));
    }
}

fn follow(py: Python<'_>, engine: &Weak<Engine>) -> PyResult<bool> {
    let Some(engine) = engine.upgrade() else {
        return Ok(false);
    };
    deliver(py, &engine, tell(&engine))?;
    call_alarms(py, &engine)?;
    Ok(true)
}

fn tell(engine: &Engine) -> Vec<HandOff<Message, receiver::Receiver>> {
    engine.presence_tell(|event, kind| Message::from_frame(Bytes::from(event), Some(kind)))
}
