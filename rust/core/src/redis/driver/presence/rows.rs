//! What a hash holds.

use std::collections::HashMap;

use crate::presence::{ForeignEntry, Owner};
use crate::redis::driver::context::Context;
use crate::redis::driver::presence_then::PresenceThen;
use crate::redis::driver::refusals::{NO_NAME, Origin};
use crate::redis::driver::reply::{bytes, words};
use crate::redis::driver::request::{Request, Then};
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::wire::keys::{ProcessId, process_of};
use crate::redis::wire::presence::{self, Field, NoRow, Row};

/// The request for a hash.
pub(super) fn request<H: Host>(cx: &Context<H>, group: &str, then: PresenceThen) -> Request {
    let key = cx.keys.presence(group);
    let command = Command::new("HGETALL").text(&key);
    let then = Then::Presence(then);
    Request::new(group, &key, vec![command], cx.until(), then).safe()
}

/// How many members each process has, with the version of that.
pub(super) type Members = HashMap<ProcessId, (u64, u64)>;

/// The entries of a hash, and how many members each process has. What is neither is refused.
pub(super) fn rows<H: Host>(
    cx: &mut Context<H>,
    group: &str,
    replies: Vec<Reply>,
) -> (Vec<Row>, Members) {
    let key = cx.keys.presence(group);
    let (mut rows, mut counts) = (Vec::new(), HashMap::new());
    let mut words = words(replies).into_iter();
    while let (Some(field), Some(value)) = (words.next(), words.next()) {
        let (Some(field), Some(value)) = (bytes(field), bytes(value)) else {
            continue;
        };
        let from = Origin::at(&key);
        match presence::field(&key, field, value, cx.settings.crypt.as_deref()) {
            Ok(Field::Count {
                owner,
                version,
                members,
            }) => drop(counts.insert(owner, (version, members))),
            // Whoever can write to the server can write any names there.
            Ok(Field::Entry(row)) if process_of(&row.channel) == Some(row.owner) => rows.push(row),
            Ok(_) | Err(NoRow::Content) => cx.refuse_content(from, NO_NAME, ""),
            Err(NoRow::Malformed(malformed)) => cx.refusals.refuse(&cx.shared, from, malformed),
        }
    }
    (rows, counts)
}

/// An entry of another process, as the tables have it.
pub(super) fn foreign(row: Row, owner: Owner) -> ForeignEntry {
    ForeignEntry {
        owner,
        channel: row.channel.into(),
        key: row.key.into(),
        meta: row.meta[..].into(),
        version: row.version,
    }
}
