//! The tables of all groups, which are in the engine of the mailboxes.

use crate::clock::Moment;
use crate::presence::Presences;
use crate::redis::driver::context::Context;
use crate::redis::host::Host;

/// Does something with the tables, if any group has a presence.
pub(super) fn tables<H: Host, R: Default>(
    cx: &Context<H>,
    work: impl FnOnce(&mut Presences, Moment) -> R,
) -> R {
    cx.local.presences(work).unwrap_or_default()
}
