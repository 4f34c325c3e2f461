//! What callers want of a stream: to go on behind a position, to know where it is now, and to see its newest messages.
//!
//! Who goes on gets what is held here, if that is all behind the position. Only if it is not the server is asked, for the whole
//! stream, and what it answers is held here: so of many that come back at once the first asks, and the others do not.

use std::sync::atomic::Ordering;

use super::History;
use super::listening::opened;
use super::resume::Resume;
use super::rows::{Row, rows};
use crate::history::{Position, Stamp};
use crate::redis::driver::context::Context;
use crate::redis::driver::history_then::{HistoryThen, Mark};
use crate::redis::driver::request::{Request, Then};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};

/// How often the whole stream is read for one that goes on, before it is told that what it wants is not complete.
const TRIES: u8 = 3;

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
        let Some(heard) = self.listening.get_mut(group) else {
            return;
        };
        if heard.resumes.is_empty() || heard.loading || heard.last().is_none() {
            return;
        }
        let is_whole = self.listening.is_whole(cx, group);
        let Some(heard) = self.listening.get_mut(group) else {
            return;
        };
        let mut to_load = Vec::new();
        for mut resume in std::mem::take(&mut heard.resumes) {
            if resume.cancelled.load(Ordering::SeqCst) {
                cx.calls.done(resume.call);
                continue;
            }
            let may_have_more = resume.tries < TRIES && !is_whole;
            let Resume {
                call,
                ref channel,
                since,
                ..
            } = resume;
            let Some(since) = since else {
                cx.calls.done(call);
                continue;
            };
            let is_wanted = || !resume.cancelled.load(Ordering::SeqCst);
            let joined = |is_new| {
                if is_new {
                    cx.joins.made(group, channel);
                }
            };
            let terms = (is_wanted, joined);
            match cx
                .local
                .group_resume(group, channel, since, may_have_more, terms)
            {
                Ok(Some(resumed)) => {
                    cx.hand_offs.extend(resumed.hand_offs);
                    let complete = resumed.complete;
                    cx.calls
                        .complete_part(call, |answer| answer.complete = Some(complete));
                }
                Ok(None) if !is_wanted() => cx.calls.done(call),
                Ok(None) => {
                    resume.tries += 1;
                    to_load.push(resume);
                }
                Err(_) => {
                    let fault = Fault::new(FaultKind::Closed, "the layer was closed");
                    cx.calls.fail(call, fault);
                }
            }
        }
        if to_load.is_empty() {
            return;
        }
        if let Some(heard) = self.listening.get_mut(group) {
            heard.resumes = to_load;
            heard.loading = true;
            self.load(cx, group);
        }
    }

    /// Reads the whole stream.
    fn load<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        let key = cx.keys.history(group);
        let command = Command::new("XRANGE").text(&key).word("-").word("+");
        let then = HistoryThen::Loaded {
            group: group.to_owned(),
            reading: self.listening.reading_of(group),
        };
        let request = Request::new(group, &key, vec![command], cx.until(), Then::History(then));
        cx.submit(request.safe());
    }

    /// The whole stream was read: what the members have had is held here.
    pub(super) fn loaded<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (group, reading): &Mark,
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
        let topic = cx.keys.group(group);
        let mut kept: Vec<(Position, Option<H::Message>)> = Vec::with_capacity(all.len());
        for row in all {
            let position = row.position();
            let is_head = row.value.is_empty();
            let content = (!is_head).then(|| opened(cx, &topic, row)).flatten();
            let stamp = Stamp::new(group, position);
            let message =
                content.and_then(|(_, payload, from)| cx.message_at(payload, from, stamp));
            kept.push((position, message));
        }
        cx.local.history_load(group, kept);
        self.listening.note_loaded(cx, group);
        self.serve(cx, group);
    }

    /// The whole stream cannot be read.
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
