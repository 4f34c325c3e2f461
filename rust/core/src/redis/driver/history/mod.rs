//! The histories of groups: each is a stream on the server of its group.
//!
//! `sending` adds messages to the streams, by the transaction that publishes them. `listening` counts those that come, and reads what is
//! missing: how it decides is in `listener`. `resuming` answers who wants to go on behind a position. What the members of this
//! process have had is also held here, within the bounds of the settings, by the engine of the mailboxes.

use bytes::Bytes;

use self::limits::limits;
use self::listening::Listening;
use self::sending::Sending;
use super::calls::CallId;
use super::context::Context;
use super::history_then::{HistoryThen, Mark, Wanted};
use crate::history::Position;
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::Reply;
use crate::redis::wire::envelope::Draft;

mod beside;
mod limits;
mod listener;
mod listening;
mod loaded;
mod looking;
mod past;
mod resume;
mod resuming;
mod rows;
mod sending;

pub(super) use beside::Unkept;
pub(super) use limits::keeps;
pub(super) use listener::Pushed;
pub(super) use resume::Resume;

#[derive(Debug, Default)]
pub(super) struct History {
    sending: Sending,
    listening: Listening,
}

impl History {
    /// Adds a message to the stream of its group, unless it is not to be kept, and publishes it.
    pub(super) fn send<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        draft: Draft,
        call: CallId,
    ) {
        self.sending.send(cx, group, draft, call);
    }

    /// Whether messages wait to be written.
    pub(super) fn has_waiting(&self) -> bool {
        self.sending.has_waiting()
    }

    /// Whether somebody waits for an answer that may come late.
    pub(super) fn is_waiting(&self) -> bool {
        self.listening.has_waiting() || self.listening.has_again()
    }

    /// A message of a group that keeps its history here was published; false if it is not kept here.
    pub(super) fn pushed<H: Host>(&mut self, cx: &mut Context<H>, group: &str, pushed: Pushed) {
        self.listening.pushed(cx, group, pushed);
        self.serve(cx, group);
    }

    /// A message of a group that keeps its history was published, and is not kept.
    pub(super) fn unkept<H: Host>(&mut self, cx: &mut Context<H>, group: &str, unkept: Unkept) {
        self.listening.unkept(cx, group, unkept);
    }

    /// The topic of a group is subscribed to from now on.
    pub(super) fn subscribed<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        if limits(cx, group).is_some() {
            self.listening.subscribed(cx, group);
        }
    }

    /// Whether a group reads what it missed, and reports what it cannot.
    pub(super) fn heals(&self, group: &str) -> bool {
        self.listening.heals(group)
    }

    /// Whether somebody waits to go on in a group.
    pub(super) fn is_awaited(&self, group: &str) -> bool {
        self.listening.is_awaited(group)
    }

    /// Tells a caller what it wants to know. The server is asked only if that is not known here.
    pub(super) fn look<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        wanted: Wanted,
        call: CallId,
    ) {
        let here = self.here(cx, group);
        match here.and_then(|here| looking::known(cx, group, wanted, here)) {
            Some((position, messages)) => cx.calls.complete_part(call, |answer| {
                answer.position = Some(position);
                answer.complete = messages.is_some().then_some(true);
                answer.messages = messages.unwrap_or_default();
            }),
            None => looking::ask(cx, group, wanted, call),
        }
    }

    /// Where a group is, if this process hears of its messages, and has heard of those that it has sent itself.
    fn here<H: Host>(&mut self, cx: &Context<H>, group: &str) -> Option<Position> {
        let last = self.listening.get_mut(group)?.last()?;
        let hears = cx.shared.topics.lock().contains(&cx.keys.group(group));
        (hears && !self.sending.is_ahead(group, last.id)).then(|| last.position())
    }

    /// A group is not subscribed to any more.
    pub(super) fn forget<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        if self.listening.heals(group) {
            let resumes = self.listening.forget(cx, group);
            let fault = cx.servers.unreachable();
            Listening::fail(cx, resumes, &fault);
        }
    }

    /// Takes the readings that are to be settled.
    pub(super) fn take_unsettled(&mut self) -> Vec<Mark> {
        self.listening.take_unsettled()
    }

    /// All that was published before the answers to these readings has come, or, if that is not certain, may not have.
    pub(super) fn settled<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        marks: Vec<Mark>,
        certain: bool,
    ) {
        for mark in marks {
            let group = mark.0.clone();
            if self.listening.settled(cx, mark, certain) {
                self.serve(cx, &group);
            }
        }
    }

    /// A connection for requests was made.
    pub(super) fn writer_opened(&mut self) {
        self.sending.forget_epochs();
    }

    /// What is done once a second.
    pub(super) fn look_after<H: Host>(&mut self, cx: &mut Context<H>) {
        self.sending.look_after(cx);
        self.listening.look_after(cx);
        self.listening.shrink_if_sparse();
    }

    /// Everything is removed: what is held here as well.
    pub(super) fn flushed<H: Host>(&mut self, cx: &mut Context<H>) {
        self.sending.forget_epochs();
        self.listening.flushed(cx);
    }

    pub(super) fn answered<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        then: HistoryThen,
        replies: Vec<Reply>,
        carried: Bytes,
    ) {
        match then {
            HistoryThen::Written { .. } => self.sending.written(cx, then, replies, carried),
            HistoryThen::Newest { group } => self.sending.chosen(cx, &group, replies),
            HistoryThen::Read { group, reading } => {
                self.listening.answered(cx, (group, reading), replies);
            }
            HistoryThen::Begun { group, reading } => {
                self.listening.begun((group, reading), replies);
            }
            HistoryThen::Loaded {
                group,
                reading,
                from,
            } => self.loaded(cx, &(group, reading), from, replies),
            HistoryThen::Looked { .. } => looking::looked(cx, then, replies),
        }
    }

    /// It was not done. Gives the call that fails.
    pub(super) fn failed<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        then: HistoryThen,
        fault: &Fault,
    ) -> Option<CallId> {
        match then {
            HistoryThen::Written { group, call, .. } => {
                self.sending.not_written(&group, cx.now);
                return Some(call);
            }
            HistoryThen::Newest { group } => self.sending.not_chosen(cx, &group, fault),
            HistoryThen::Read { group, reading } | HistoryThen::Begun { group, reading } => {
                let resumes = self.listening.unread(cx, &(group, reading), fault);
                Listening::fail(cx, resumes, fault);
            }
            HistoryThen::Loaded { group, .. } => self.not_loaded(cx, &group, fault),
            HistoryThen::Looked { call, .. } => return Some(call),
        }
        None
    }
}
