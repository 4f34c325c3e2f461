//! What every engine of headrace promises. The suite in `tests/contract` holds each of them to it.
//!
//! **Channels.** A channel is a name. It exists while it has messages, waiters, memberships or holders, and costs nothing
//! otherwise. Messages come out in the order in which they went in; each goes to exactly one receiver; receivers
//! that wait are served in the order in which they came.
//!
//! **Full.** A mailbox holds as many messages as its capacity, and behind the first as many bytes as its capacity in bytes;
//! expired ones do not count. It always takes one message, whatever its size. A send beyond that
//! gives the message back to the caller. A `group_send` never fails for it: it passes the member by, and counts that. A
//! channel whose owner chose so drops older messages for the new one instead ([`Overflow`](crate::Overflow)).
//!
//! **Late.** A message that nobody took before its deadline is not delivered. It is dropped when it is met, or by
//! a sweep that looks only at mailboxes whose time has come; no operation walks all channels.
//!
//! **Cancelled.** A receive either took its message or left it where it was. A message that had been handed to
//! a receiver which then left returns to its place, in front of younger ones, or to the next waiter.
//!
//! **Groups.** A membership lasts from `group_add` until `group_discard`, until its channel is closed or flushed, or until
//! `group_expiry` after the latest `group_add`; of a channel that somebody holds it does not expire. Adding twice is adding
//! once. A group without members is gone.
//!
//! **Kept.** The newest messages of a group with a history are kept beside its members ([`history`](crate::history)). A channel
//! that is added with a position gets every message behind it, once and in order, before those that are sent later; or the
//! answer that not all are there, and none of them. What is replayed counts as sent, and does not count against the capacity.
//!
//! **Present.** Who is present in a group is kept beside its members ([`presence`](crate::presence)), and ends with the membership.
//! What changes is told to the members as messages, gathered for a while; a list and the diffs behind it have no hole.
//!
//! **Flushed.** Messages, memberships and histories are gone when `flush` returns. Receivers that waited go on waiting.
//!
//! **Closed.** Every operation but `flush` and `close` is refused, and all waiters are returned for the caller to wake.
//!
//! **Counted.** At any moment `sent = delivered + depth + dropped_expired + dropped_replaced + dropped_other`, and what a
//! full mailbox refused is in `dropped_full`. Nothing is lost silently.

/// A reading of one engine, in messages unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Channels that have messages, waiters, memberships or holders.
    pub channels: usize,
    /// Groups with members.
    pub groups: usize,
    /// Memberships of channels in groups.
    pub memberships: usize,
    /// Receivers that wait.
    pub waiters: usize,
    /// Messages in mailboxes.
    pub depth: usize,
    /// Their bytes. One that waits in several mailboxes counts in each.
    pub bytes: usize,
    /// Accepted: queued or handed to a waiter. Each member of a fan-out counts.
    pub sent: u64,
    /// Given to a receiver for good.
    pub delivered: u64,
    /// Returned by receivers that were cancelled; they were delivered later, or are still there.
    pub returned: u64,
    /// Refused by full mailboxes.
    pub dropped_full: u64,
    /// Not taken in time.
    pub dropped_expired: u64,
    /// Given up for newer ones by channels whose owner wants that.
    pub dropped_replaced: u64,
    /// How often a mailbox was full by its bytes, with room for another message otherwise. What was dropped then is in
    /// `dropped_full` or `dropped_replaced`.
    pub full_by_bytes: u64,
    /// Dropped by `flush`, `close` or the closing of their channel.
    pub dropped_other: u64,
    /// Messages that are kept in the histories of groups.
    pub history_messages: usize,
    /// What those count against the bound of bytes.
    pub history_bytes: usize,
    /// Groups whose history was dropped because all together were over that bound.
    pub history_evicted: u64,
    /// Entries of those who are present in groups, with those whose leave is not told yet.
    pub presence_entries: usize,
    /// Diffs of who is present that were told.
    pub presence_diffs: u64,
    /// Those of them that had counts alone, because the list was too long.
    pub presence_hidden: u64,
    /// Changes of other processes that were dropped because a later one was there.
    pub presence_outdated: u64,
}

/// A reading of one channel. The counters begin anew when a channel that was gone comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Messages in its mailbox.
    pub depth: usize,
    /// How many fit.
    pub capacity: usize,
    /// The bytes of those messages.
    pub bytes: usize,
    /// How many bytes fit behind the first message.
    pub capacity_bytes: usize,
    /// Receivers that wait.
    pub waiters: usize,
    /// Groups that it is in.
    pub groups: usize,
    /// Messages given to its receivers.
    pub delivered: u64,
    /// Messages refused because it was full.
    pub dropped_full: u64,
    /// Messages that nobody took in time.
    pub dropped_expired: u64,
    /// Messages given up for newer ones.
    pub dropped_replaced: u64,
    /// How often it was full by its bytes.
    pub full_by_bytes: u64,
}

/// A reading of one group. The counters begin anew when a group that was gone comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Its channels.
    pub members: usize,
    /// How often it was sent to.
    pub sends: u64,
    /// Copies that reached a mailbox or a waiting receiver.
    pub delivered: u64,
    /// Copies that full mailboxes refused.
    pub dropped_full: u64,
}
