//! What a reading of the members brings, and the removal of those that have ended.

use std::mem;

use super::Members;
use super::flush::MARGIN;
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
        let renewed = self.take_renewed(cx, &read);
        for (group, channel, end) in &renewed {
            read.set(group, channel, *end, now);
        }
        // Nothing is built or dropped under the lock, for which callers wait.
        let former = mem::replace(&mut *cx.shared.plain.lock(), read);
        drop(former);
        self.read = true;
        self.loaded(cx);
        for held in mem::take(&mut self.held) {
            self.resume(cx, queues, held);
        }
        for (group, channel, end) in renewed {
            let lasts = end.saturating_sub(now);
            self.change(cx, (group, channel), Some(lasts), None);
        }
        self.remove(cx, ended);
    }

    /// Removes memberships that have ended from the hash.
    ///
    /// No command removes a field only if it still has its value, and there are no scripts. So one that is renewed in the same moment
    /// may go too. Who renews it announces that before its call is over: so the hash is read once more when all such calls are, and
    /// what was announced and is missing is put back.
    fn remove<H: Host>(&mut self, cx: &mut Context<H>, ended: Vec<(String, String)>) {
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
        self.removed.extend(ended);
        let until = cx.until() + cx.settings.send_timeout;
        self.removed_until = Some(until);
        self.read_at(until);
    }

    /// The memberships that this process has removed, that were announced since, and that the hash does not have.
    fn take_renewed<H: Host>(&mut self, cx: &Context<H>, read: &PlainMembers) -> Vec<Membership> {
        let now = cx.shared.now();
        let known = cx.shared.plain.lock();
        let renewed = |(group, channel): &(String, String)| {
            let end = known.deadline(group, channel).filter(|end| *end > now)?;
            let is_missing = !read.holds(group, channel, now);
            is_missing.then(|| (group.clone(), channel.clone(), end))
        };
        let renewed = self.removed.iter().filter_map(renewed).collect();
        drop(known);
        if self.removed_until.is_some_and(|until| until <= cx.now) {
            self.removed = Vec::new();
            self.removed_until = None;
        }
        renewed
    }
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
        } else if end.saturating_add(MARGIN) < now {
            // Not at once: most that are renewed are renewed soon.
            ended.push((group.to_owned(), channel.to_owned()));
        }
    }
    (lasting, ended)
}
