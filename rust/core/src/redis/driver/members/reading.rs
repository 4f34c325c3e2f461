//! What a reading of the members brings, and the removal of those that have ended.

use std::mem;

use super::Members;
use crate::name::{check_channel, check_group};
use crate::redis::driver::context::Context;
use crate::redis::driver::queues::Queues;
use crate::redis::driver::refusals::{NO_NAME, Origin};
use crate::redis::driver::reply::{text, words};
use crate::redis::driver::request::{Request, Then};
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::plain::PlainMembers;
use crate::redis::wire::keys::{member_field, membership_of, process_of};
use crate::redis::wire::membership::{self, NoMembership};

/// How many milliseconds a membership stays in the hash behind its end. Most that are renewed after it are renewed soon.
const KEPT: u64 = 60 * 60 * 1000;

/// A group, a channel, and when that is over.
type Membership = (String, String, u64);

impl Members {
    /// The members were read: the copy is what the hash says, and what was announced since that was asked for.
    pub(crate) fn read<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        queues: &mut Queues,
        replies: Vec<Reply>,
    ) {
        let now = cx.shared.now();
        let (lasting, mut ended) = memberships(cx, replies);
        let mut read: PlainMembers = lasting.into_iter().collect();
        for (group, channel, end) in &self.since {
            read.set(group, channel, *end, now);
        }
        ended.retain(|(group, channel)| !read.holds(group, channel, now));
        // Callers wait for the lock: the table is built before it is taken, and the former one is dropped behind it.
        let former = mem::replace(&mut *cx.shared.plain.lock(), read);
        drop(former);
        self.read = true;
        self.loaded(cx);
        for held in mem::take(&mut self.held) {
            self.resume(cx, queues, held);
        }
        remove(cx, &ended);
    }
}

/// Removes memberships that ended long ago from the hash.
///
/// No command removes a field only if it still has its value, and there are no scripts: one that is renewed in the same moment goes
/// too. Nobody renews a membership that long after its end, but a process that was stopped meanwhile.
fn remove<H: Host>(cx: &mut Context<H>, ended: &[(String, String)]) {
    if ended.is_empty() {
        return;
    }
    let key = cx.keys.members();
    let command = Command::new("HDEL").text(&key);
    let fields = ended
        .iter()
        .map(|(group, channel)| member_field(group, channel));
    let command = fields.fold(command, Command::text);
    cx.submit(Request::new("", &key, vec![command], cx.until(), Then::Ignored).safe());
}

/// What the hash says: the memberships that last, each with its end, and those that ended a while ago.
fn memberships<H: Host>(
    cx: &mut Context<H>,
    replies: Vec<Reply>,
) -> (Vec<Membership>, Vec<(String, String)>) {
    let (now, key) = (cx.shared.now(), cx.keys.members());
    let (mut lasting, mut ended) = (Vec::new(), Vec::new());
    let mut words = words(replies).into_iter();
    while let (Some(field), Some(value)) = (words.next(), words.next()) {
        let (Some(field), Some(value)) = (text(field), text(value)) else {
            continue;
        };
        let Some((group, channel)) = membership_of(&field) else {
            continue;
        };
        // Whoever can write to the server can write any names there.
        let valid = check_group(group).is_ok() && check_channel(channel).is_ok();
        if !valid || process_of(channel).is_some() {
            cx.refuse_content(Origin::at(&key), NO_NAME, "");
            continue;
        }
        let crypt = cx.settings.crypt.as_deref();
        let end = match membership::end(&key, &field, &value, crypt) {
            Ok(end) => end,
            Err(NoMembership::Malformed) => continue,
            Err(NoMembership::Unauthenticated) => {
                let refusals = &mut cx.refusals;
                refusals.refuse_member(&cx.shared, &key, group, channel);
                continue;
            }
        };
        if end > now {
            lasting.push((group.to_owned(), channel.to_owned(), end));
        } else if end.saturating_add(KEPT) < now {
            ended.push((group.to_owned(), channel.to_owned()));
        }
    }
    (lasting, ended)
}
