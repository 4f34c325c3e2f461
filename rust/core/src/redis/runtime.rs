//! The thread that does the input and output of all layers of a process.

use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::link::sentinel::Sentinels;

/// One thread with one tokio runtime, and what its layers share. The thread ends when this is dropped. A process that was
/// forked starts another.
pub struct Runtime {
    handle: Handle,
    sentinels: Arc<Sentinels>,
    /// Dropped to end the thread.
    _stop: oneshot::Sender<()>,
}

impl Runtime {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread, or none of what a runtime needs.
    pub fn start() -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        thread::Builder::new()
            .name("headrace-io".to_owned())
            .spawn(move || {
                let runtime = match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let _ = ready.send(Ok(runtime.handle().clone()));
                // The other half is dropped to end the thread: then this returns an error.
                let _ = runtime.block_on(stopped);
                // Not joined: a thread that looks up a name may take its time.
                runtime.shutdown_background();
            })?;
        let handle = started
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
        Ok(Self {
            handle,
            sentinels: Arc::default(),
            _stop: stop,
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn sentinels(&self) -> &Arc<Sentinels> {
        &self.sentinels
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}
