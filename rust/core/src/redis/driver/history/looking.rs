//! What callers ask of a stream: where it is now, and what it holds.

use bytes::Bytes;

use super::limits::limits;
use super::listening::{begin, opened};
use super::rows::{Row, done, rows};
use super::sending::{index, newest, newest_command, newest_of, no_answer};
use crate::history::{Position, Since, Stamp, Stamped};
use crate::redis::driver::calls::CallId;
use crate::redis::driver::context::Context;
use crate::redis::driver::history_then::{HistoryThen, Wanted};
use crate::redis::driver::request::{Request, Then};
use crate::redis::fault::Fault;
use crate::redis::host::{Host, KeptMessage};
use crate::redis::link::{Command, Refusal, Reply};

/// What a caller wants to know of a group that is there now, if that is held here: a position, and messages if those are wanted.
pub(super) fn known<H: Host>(
    cx: &Context<H>,
    group: &str,
    wanted: Wanted,
    here: Position,
) -> Option<(Stamp, Option<Vec<KeptMessage>>)> {
    let Wanted::Messages { since, limit } = wanted else {
        return Some((Stamp::new(group, here), None));
    };
    let held = cx.local.history_extent(group)?;
    let (since, least) = match since {
        Since::Position(_) => (since, 0),
        Since::Newest(count) => (Since::Newest(count.min(limit)), count.min(limit)),
    };
    let found = cx.local.group_history(group, since, limit).ok()??;
    if held.epoch != here.epoch || !found.complete || found.messages.len() < least {
        return None;
    }
    let kept = found.messages.iter().map(|message| {
        let payload = cx.host.payload(message)?;
        Some(KeptMessage {
            stamp: message.stamped()?,
            payload: Bytes::copy_from_slice(payload),
        })
    });
    Some((found.position, Some(kept.collect::<Option<_>>()?)))
}

/// Asks the server for what a caller wants to know.
pub(super) fn ask<H: Host>(cx: &mut Context<H>, group: &str, wanted: Wanted, call: CallId) {
    let then = HistoryThen::Looked {
        group: group.to_owned(),
        call,
        wanted,
        begun: false,
    };
    let Wanted::Messages { since, limit } = wanted else {
        let request = newest(cx, group, then);
        cx.submit(request);
        return;
    };
    let key = cx.keys.history(group);
    let size = limits(cx, group).map_or(0, |limits| limits.size);
    let command = match since {
        // Behind what is no position there is nothing; where the stream is now is told all the same.
        Since::Position(None) => newest_words(&key, 1),
        Since::Newest(count) => newest_words(&key, count.min(limit).min(size)),
        Since::Position(Some(position)) => {
            let from = format!("{}-{}", position.epoch, position.number);
            let range = Command::new("XRANGE").text(&key).text(from).word("+");
            range.word("COUNT").number(limit.saturating_add(1))
        }
    };
    // The last answer says whether there is a stream.
    let commands = vec![command, newest_command(&key)];
    let request = Request::new(group, &key, commands, cx.until(), Then::History(then));
    cx.submit(request.atomic().safe());
}

/// The server has answered that.
pub(super) fn looked<H: Host>(cx: &mut Context<H>, then: HistoryThen, replies: Vec<Reply>) {
    let HistoryThen::Looked {
        group,
        call,
        wanted,
        begun,
    } = then
    else {
        return;
    };
    let mut answers = done(replies);
    let newest = answers.pop().and_then(|reply| newest_of(vec![reply]));
    let Some(newest) = newest else {
        if begun {
            cx.calls.fail(call, not_begun(&answers));
            return;
        }
        let then = HistoryThen::Looked {
            group: group.clone(),
            call,
            wanted,
            begun: true,
        };
        let request = begin(cx, &group, None, then);
        cx.submit(request);
        index(cx, &group);
        return;
    };
    let here = newest.position();
    let Wanted::Messages { since, limit } = wanted else {
        let stamp = Stamp::new(&group, here);
        cx.calls
            .complete_part(call, |answer| answer.position = Some(stamp));
        return;
    };
    // One that was begun just now holds nothing but its head.
    let found = if begun { None } else { answers.pop() };
    let found = found.map(rows).unwrap_or_default();
    let (messages, position) = match since {
        Since::Newest(_) => {
            let newest: Vec<Row> = found.into_iter().rev().take(limit).collect();
            (taken(cx, &group, None, newest).0, Some(here))
        }
        Since::Position(known) => {
            let first = found.first().map(Row::position);
            let limits = limits(cx, &group).unwrap_or_default();
            let known = known.filter(|known| first == Some(*known));
            let known = known.filter(|known| limits.keep(*known, here));
            let behind: Vec<Row> = found.into_iter().skip(1).take(limit).collect();
            let last = behind.last().map_or(known, |row| Some(row.position()));
            match known.map(|known| taken(cx, &group, Some(known), behind)) {
                Some((messages, true)) => (messages, last),
                // What is behind the position cannot all be told.
                Some((_, false)) | None => (Vec::new(), None),
            }
        }
    };
    cx.calls.complete_part(call, |answer| {
        answer.position = Some(Stamp::new(&group, position.unwrap_or(here)));
        answer.complete = Some(position.is_some());
        answer.messages = messages;
    });
}

/// The messages of these entries, which come behind that position, and whether they are all: if one of them is missing or is no message
/// of this layer, those behind it.
fn taken<H: Host>(
    cx: &mut Context<H>,
    group: &str,
    mut before: Option<Position>,
    found: Vec<Row>,
) -> (Vec<KeptMessage>, bool) {
    let topic = cx.keys.group(group);
    let mut messages = Vec::with_capacity(found.len());
    let mut all = true;
    for row in found {
        let position = row.position();
        let follows = before.is_none_or(|before: Position| {
            before.epoch != position.epoch || before.number.checked_add(1) == Some(position.number)
        });
        before = Some(position);
        if !follows {
            (all, messages) = (false, Vec::new());
        }
        if row.value.is_empty() {
            continue;
        }
        match opened(cx, &topic, row) {
            Some((_, payload, from)) if cx.is_message(&payload, from) => {
                messages.push(KeptMessage {
                    stamp: Stamp::new(group, position),
                    payload: payload.into_bytes(),
                });
            }
            _ => (all, messages) = (false, Vec::new()),
        }
    }
    (messages, all)
}

/// Why there is no stream where one was to be made.
pub(super) fn not_begun(answers: &[Reply]) -> Fault {
    let refusal = answers.iter().find_map(Refusal::of);
    refusal.map_or_else(no_answer, Refusal::into_fault)
}

/// The newest entries, so many; at least one.
fn newest_words(key: &str, count: usize) -> Command {
    let range = Command::new("XREVRANGE").text(key).word("+").word("-");
    range.word("COUNT").number(count.max(1))
}

#[cfg(test)]
mod tests;
