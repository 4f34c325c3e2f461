//! Who is there: the entries of a group, and what its members are told of them.
//!
//! An *entry* is a channel under a *key*, with a meta: a user's key has one entry for each of the user's tabs. A [`Table`] holds the
//! entries of one group, and [`Presences`] all tables of a layer. This part does no input or output, reads no clock and
//! knows no lock: whoever has it says what time it is.
//!
//! **Told.** What changes is gathered for `interval` and told as one [`Diff`]. A list is what has been told: the list of a
//! version and all later diffs together are the list of the last one, whatever the order in which they are read. So a change
//! is in no list before it is in a diff.
//!
//! **Quiet.** An entry that leaves is told when `linger` is over, or not at all if its key has returned by then. A new entry takes
//! the place of one that left: with the same meta that is no event, with another one the old leaves and the new joins. What
//! comes and goes within `interval` is no event.
//!
//! **One writer.** The process that has the channel writes its entry, and gives each change a version. The last version of that
//! process wins; an older one is dropped and counted. The entries of a process that died leave together.
//!
//! **Bounds.** A list that has more than `max` entries is told as counts alone. When it has become short enough again, it is told
//! whole.

mod diff;
mod msgpack;
mod presences;
mod rules;
mod table;

pub use diff::{Counts, Diff, KeyDiff, Scope, Turn};
pub use presences::{Listing, OwnChange, PresenceStats, Presences};
pub use rules::{PresenceRule, PresenceRules};
pub use table::{Arrival, ForeignEntry, Owner, Table};
