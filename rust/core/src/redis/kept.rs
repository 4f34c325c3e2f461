//! How callers use the histories of groups: they go on behind a position, and ask where a group is and what it held lately.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::driver::{Ask, Wanted};
use super::engine::{Location, Progress, RedisEngine};
use super::host::Host;
use super::joins::Join;
use crate::error::Error;
use crate::history::Since;
use crate::name::{check_channel, check_group};

/// A join with a position that waits for its answer. One that is dropped, and was not confirmed, has failed: it leaves no membership
/// behind that it made.
pub struct Resuming<H: Host> {
    /// Taken when it ends.
    join: Option<Join<H>>,
    cancelled: Arc<AtomicBool>,
}

impl<H: Host> Resuming<H> {
    /// It is done.
    pub fn confirm(mut self) {
        if let Some(join) = self.join.take() {
            join.confirm();
        }
    }
}

impl<H: Host> Drop for Resuming<H> {
    fn drop(&mut self) {
        if let Some(join) = self.join.take() {
            // The driver looks at this under the lock under which the join ends: either it makes no membership, or that ends here.
            self.cancelled.store(true, Ordering::SeqCst);
            drop(join);
        }
    }
}

impl<H: Host> fmt::Debug for Resuming<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resuming").field(&self.join).finish()
    }
}

impl<H: Host> RedisEngine<H> {
    /// Whether a group has a history.
    pub fn keeps(&self, group: &str) -> bool {
        !self.settings.history.is_empty() && self.settings.history.limits_of(group).is_some()
    }

    /// Puts a channel in a group that has a history, with what is behind a position before what comes from now on. The answer says
    /// whether that is complete.
    ///
    /// The caller keeps what this returns until the ticket is answered, and confirms it if there was no fault. A channel of
    /// another process, or a queue, gets nothing of what is behind the position, and the answer does not say that it is complete.
    ///
    /// # Errors
    /// A name is invalid, or the layer is closed.
    pub fn group_add_since(
        &self,
        group: &str,
        channel: &str,
        since: Since,
        expiry: Duration,
        ticket: H::Ticket,
    ) -> Result<Resuming<H>, Error> {
        check_group(group)?;
        check_channel(channel)?;
        self.check_open()?;
        let cancelled: Arc<AtomicBool> = Arc::default();
        if self.location(channel) != Location::Here {
            let join = match self.group_add(group, channel, expiry, ticket)? {
                Progress::Asked(join) => join,
                // Only a channel of this process is done at once.
                Progress::Done(_) => Join::elsewhere(),
            };
            let join = Some(join);
            return Ok(Resuming { join, cancelled });
        }
        let join = self.joins.expect(&self.local, group, channel);
        let resuming = Resuming {
            join: Some(join),
            cancelled: Arc::clone(&cancelled),
        };
        self.ask(Ask::Resume {
            group: group.to_owned(),
            channel: channel.to_owned(),
            since,
            cancelled,
            ticket,
        });
        Ok(resuming)
    }

    /// Asks where a group is now that has a history.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn group_position(&self, group: &str, ticket: H::Ticket) -> Result<(), Error> {
        self.look_at_history(group, Wanted::Position, ticket)
    }

    /// Asks for the oldest `limit` messages of a group behind a position, or for the newest.
    ///
    /// # Errors
    /// The name is invalid, or the layer is closed.
    pub fn group_history(
        &self,
        group: &str,
        since: Since,
        limit: usize,
        ticket: H::Ticket,
    ) -> Result<(), Error> {
        self.look_at_history(group, Wanted::Messages { since, limit }, ticket)
    }

    fn look_at_history(&self, group: &str, wanted: Wanted, ticket: H::Ticket) -> Result<(), Error> {
        check_group(group)?;
        self.check_open()?;
        self.ask(Ask::Look {
            group: group.to_owned(),
            wanted,
            ticket,
        });
        Ok(())
    }
}
