//! Somebody who waits to go on in a stream.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::time::Instant;

use crate::history::Since;
use crate::redis::driver::calls::CallId;

/// Somebody who wants to go on behind a position.
#[derive(Debug)]
pub(in crate::redis::driver) struct Resume {
    pub(super) call: CallId,
    pub(super) channel: String,
    /// Nothing for one who wants only what comes from now on, and that what is missed can be read later.
    pub(super) since: Option<Since>,
    pub(super) until: Instant,
    /// The caller does not wait any more.
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) tries: u8,
}

impl Resume {
    /// One for a channel, and behind what; or for somebody who joins without a position.
    pub(in crate::redis::driver) fn new(
        call: CallId,
        behind: Option<(String, Since, Arc<AtomicBool>)>,
        until: Instant,
    ) -> Self {
        let (channel, since, cancelled) = match behind {
            Some((channel, since, cancelled)) => (channel, Some(since), cancelled),
            None => (String::new(), None, Arc::default()),
        };
        Self {
            call,
            channel,
            since,
            until,
            cancelled,
            tries: 0,
        }
    }
}
