//! What callers want of a stream: to go on behind a position, to know where it is now, and to see its newest messages.
//!
//! Who goes on gets what is held here, if that is all behind the position. Only if it is not the server is asked, for what is behind
//! the oldest position of those that wait. They get what it answers, and it is held here, as far as there is room: so of many that come
//! back at once the first asks, and the others do not.

use std::sync::atomic::Ordering;

use super::History;
use super::limits::limits;
use super::listener::Last;
use super::listening::opened;
use super::past::Past;
use super::resume::Resume;
use super::rows::{Row, newest_rows, rows};
use crate::history::{Position, Since, Stamp};
use crate::memory::Missed;
use crate::redis::driver::context::Context;
use crate::redis::driver::history_then::{HistoryThen, Mark};
use crate::redis::driver::request::{Request, Then};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::wire::history::EntryId;

/// How often the stream is read for one that goes on, before it is told that what it wants is not complete.
const TRIES: u8 = 3;

/// Whether somebody was in a group for longer than this process knows of, or in a stream that was begun later. Epochs grow with the time.
fn is_ahead(since: Since, last: Last) -> bool {
    let known = (last.id.epoch, last.id.number);
    matches!(since, Since::Position(Some(position)) if (position.epoch, position.number) > known)
}

impl History {
    /// Makes a channel a member of a group that is subscribed to, or is going to be, and gives it what is behind a position.
    pub(in crate::redis::driver) fn resume<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        resume: Resume,
    ) {
        self.listening.add_waiting(group, resume);
        self.listening.read_again(cx, group);
        self.serve(cx, group);
    }

    /// Goes on with those that wait to go on.
    pub(super) fn serve<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        self.serve_with(cx, group, None);
    }

    /// The same, where a part of the stream was read.
    fn serve_with<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        past: Option<&Past<H::Message>>,
    ) {
        let Some(heard) = self.listening.get_mut(group) else {
            return;
        };
        let Some(last) = heard.last().filter(|_| !heard.loading) else {
            return;
        };
        let loaded = heard.loaded;
        let size = limits(cx, group).map_or(0, |limits| limits.size);
        let (mut left, mut from, mut doubts) = (Vec::new(), None, false);
        for mut resume in std::mem::take(&mut heard.resumes) {
            let call = resume.call;
            let is_wanted = || !resume.cancelled.load(Ordering::SeqCst);
            let Some(since) = resume.since.filter(|_| is_wanted()) else {
                cx.calls.done(call);
                continue;
            };
            if resume.tries == 0 && is_ahead(since, last) {
                // The messages up to there may be on their way here: what is read over the same connection comes behind them.
                resume.tries += 1;
                doubts = true;
                left.push(resume);
                continue;
            }
            let held = cx.local.history_extent(group);
            let lacks = loaded.lacks(held, size, last, since);
            let found = past
                .and_then(|past| past.behind(since, lacks.unwrap_or(u64::MAX), last.position()));
            let covers = |number| past.is_some_and(|past| past.covers(number));
            let may_ask = |number: &u64| !covers(*number) || is_ahead(since, last);
            let asks = lacks.filter(|number| resume.tries < TRIES && may_ask(number));
            let missed = match found.filter(|_| lacks.is_some()) {
                Some(found) => Missed::Read(found),
                None => Missed::Kept {
                    since,
                    may_have_more: asks.is_some(),
                },
            };
            let joined = |is_new| {
                if is_new {
                    cx.joins.made(group, &resume.channel);
                }
            };
            let terms = (is_wanted, joined);
            match cx.local.group_resume(group, &resume.channel, missed, terms) {
                Ok(Some(resumed)) => {
                    cx.hand_offs.extend(resumed.hand_offs);
                    let complete = resumed.complete;
                    cx.calls
                        .complete_part(call, |answer| answer.complete = Some(complete));
                }
                Ok(None) if !is_wanted() => cx.calls.done(call),
                Ok(None) => {
                    from = from.into_iter().chain(asks).min();
                    resume.tries += 1;
                    left.push(resume);
                }
                Err(_) => {
                    let fault = Fault::new(FaultKind::Closed, "the layer was closed");
                    cx.calls.fail(call, fault);
                }
            }
        }
        if let Some(heard) = self.listening.get_mut(group) {
            heard.resumes = left;
            heard.loading = from.is_some();
        }
        if let Some(from) = from {
            self.load(cx, group, last, from);
        }
        if doubts {
            self.listening.doubt(cx, group);
        }
    }

    /// Reads the entries from this number on up to the last one.
    fn load<H: Host>(&mut self, cx: &mut Context<H>, group: &str, last: Last, from: u64) {
        // If more is asked for than was read before, and there was room for that, nothing is asked for any more after this.
        let held = cx.local.history_extent(group);
        let heard = self.listening.heard(group);
        let size = limits(cx, group).map_or(0, |limits| limits.size) as u64;
        let from = match held.and_then(|held| heard.loaded.from(held)) {
            Some(_) => from.min(last.id.number.saturating_sub(size)),
            None => from,
        };
        let first = EntryId {
            number: from,
            ..last.id
        };
        let count = last.id.number.saturating_sub(from).saturating_add(1);
        let key = cx.keys.history(group);
        let command = Command::new("XRANGE").text(&key).text(first.to_string());
        let command = command.word("+").word("COUNT").number(count);
        let then = HistoryThen::Loaded {
            group: group.to_owned(),
            reading: self.listening.reading_of(group),
            from,
        };
        let request = Request::new(group, &key, vec![command], cx.until(), Then::History(then));
        cx.submit(request.safe());
    }

    /// A part of the stream was read: those who wait get what they missed of it, and it is held here.
    pub(super) fn loaded<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (group, reading): &Mark,
        from: u64,
        replies: Vec<Reply>,
    ) {
        let current = self.listening.reading_of(group) == *reading;
        let Some(heard) = self.listening.get_mut(group) else {
            return;
        };
        heard.loading = false;
        let last = heard.last().filter(|_| current);
        let Some(last) = last else {
            // It is read again once it is known where this process stands.
            return self.serve(cx, group);
        };
        let mut all: Vec<Row> = replies.into_iter().next().map(rows).unwrap_or_default();
        let is_last = |row: &Row| row.id == last.id && row.print() == last.print;
        let Some(at) = all.iter().position(is_last) else {
            self.listening.doubt(cx, group);
            return;
        };
        all.truncate(at + 1);
        let all = newest_rows(all, limits(cx, group).map_or(0, |limits| limits.size));
        let mut entries: Vec<(Position, Option<H::Message>)> = Vec::with_capacity(all.len());
        let topic = cx.keys.group(group);
        for row in all {
            let position = row.position();
            let is_head = row.value.is_empty();
            let content = (!is_head).then(|| opened(cx, &topic, row)).flatten();
            let stamp = Stamp::new(group, position);
            let message =
                content.and_then(|(_, payload, from)| cx.message_at(payload, from, stamp));
            entries.push((position, message));
        }
        let past = Past::new(from, &entries);
        let held = cx.local.history_extent(group);
        let is_held = held.is_some_and(|held| {
            let oldest = past.oldest();
            held.epoch == last.id.epoch && oldest.is_none_or(|oldest| held.oldest <= oldest)
        });
        if !is_held {
            cx.local.history_load(group, entries);
        }
        let held = cx.local.history_extent(group);
        let loaded = &mut self.listening.heard(group).loaded;
        loaded.note(held, from, past.oldest());
        self.serve_with(cx, group, Some(&past));
    }

    /// The stream cannot be read.
    pub(super) fn not_loaded<H: Host>(&mut self, cx: &mut Context<H>, group: &str, fault: &Fault) {
        if let Some(heard) = self.listening.get_mut(group) {
            heard.loading = false;
            for resume in std::mem::take(&mut heard.resumes) {
                cx.calls.fail(resume.call, fault.clone());
            }
        }
    }

    /// Gives up those that have waited too long to go on.
    pub(in crate::redis::driver) fn give_up_late<H: Host>(&mut self, cx: &mut Context<H>) {
        self.listening.read_due(cx);
        for late in self.listening.take_late(cx.now) {
            let fault = cx.servers.unreachable();
            cx.calls.fail(late.call, fault);
        }
    }
}

#[cfg(test)]
mod tests;
