//! The groups that keep their history and that this process listens to: it reads what it missed, and carries out what each
//! [`Listener`] decides.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::beside::{Turn, Unkept, in_turn};
use super::limits::limits;
use super::listener::{Answer, Last, Listener, Pushed, Step};
use super::loaded::Loaded;
use super::resume::Resume;
use super::rows::{Row, done, newest_rows, rows};
use super::sending::{index, milliseconds, newest_command, newest_of};
use crate::redis::driver::context::Context;
use crate::redis::driver::history_then::{HistoryThen, Mark};
use crate::redis::driver::refusals::{MISPLACED, Origin};
use crate::redis::driver::request::{Request, Then};
use crate::redis::fault::Fault;
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::meter::count;
use crate::redis::notice::Notice;
use crate::redis::random;
use crate::redis::wire::envelope::{self, Body};
use crate::redis::wire::history::{FIELD, new_epoch};
use crate::shrink::Shrink;

/// How long it is tried to read what may be missing, at least: messages that come meanwhile are held.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Listening {
    groups: HashMap<String, Heard>,
    /// Readings that are answered, and not settled.
    unsettled: Vec<Mark>,
    /// The groups in which somebody waits to go on, or did a moment ago.
    awaited: HashSet<String>,
    /// Groups whose entries are to be read again, and when.
    again: Vec<(Instant, String)>,
    /// Numbers the readings.
    readings: u64,
}

/// A group that is listened to.
#[derive(Debug, Default)]
pub(super) struct Heard {
    listener: Listener,
    /// The number of the latest reading: the answers to earlier ones are ignored.
    reading: u64,
    /// Until when it is tried again.
    until: Option<Instant>,
    /// What was read for those who go on.
    pub(super) loaded: Loaded,
    pub(super) loading: bool,
    /// Who waits to go on behind a position.
    pub(super) resumes: Vec<Resume>,
    /// What is not kept, and waits for what is read.
    beside: Vec<Unkept>,
}

impl Heard {
    /// The last entry, if nothing is known to be missing.
    pub(super) fn last(&self) -> Option<Last> {
        self.listener.last()
    }
}

impl Listening {
    pub(super) fn get_mut(&mut self, group: &str) -> Option<&mut Heard> {
        self.groups.get_mut(group)
    }

    /// The number of the latest reading of a group.
    pub(super) fn reading_of(&self, group: &str) -> u64 {
        self.groups.get(group).map_or(0, |heard| heard.reading)
    }

    /// Reads again what could not be read.
    pub(super) fn look_after<H: Host>(&mut self, cx: &mut Context<H>) {
        let unread = |heard: &Heard| heard.listener.is_unreadable();
        let unread = self.groups.iter().filter(|(_, heard)| unread(heard));
        let unread: Vec<String> = unread.map(|(group, _)| group.clone()).collect();
        for group in unread {
            self.read_again(cx, &group);
        }
    }

    /// Everything was removed: no position is that of anything that is kept.
    pub(super) fn flushed<H: Host>(&mut self, cx: &mut Context<H>) {
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        for group in groups {
            cx.local.history_forget(&group);
            let heard = self.heard(&group);
            heard.loaded = Loaded::default();
            self.release(cx, &group, Listener::reset);
        }
    }

    /// The record of a group, made if there is none.
    pub(super) fn heard(&mut self, group: &str) -> &mut Heard {
        self.groups.entry(group.to_owned()).or_default()
    }

    /// Whether what a group missed is read, and reported if it cannot be.
    pub(super) fn heals(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub(super) fn subscribed<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        let steps = self.heard(group).listener.subscribed();
        self.carry_out(cx, group, steps);
    }

    /// The group is not listened to any more. Gives who waited.
    pub(super) fn forget<H: Host>(&mut self, cx: &Context<H>, group: &str) -> Vec<Resume> {
        cx.local.history_forget(group);
        let heard = self.groups.remove(group);
        self.groups.shrink_if_sparse();
        heard.map(|heard| heard.resumes).unwrap_or_default()
    }

    pub(super) fn pushed<H: Host>(&mut self, cx: &mut Context<H>, group: &str, pushed: Pushed) {
        // Without a record the group is not listened to any more, or not yet again.
        if let Some(heard) = self.groups.get_mut(group) {
            let steps = heard.listener.pushed(pushed);
            self.carry_out(cx, group, steps);
        }
    }

    /// A message that is not kept comes behind those that are held.
    pub(super) fn unkept<H: Host>(&mut self, cx: &mut Context<H>, group: &str, unkept: Unkept) {
        if let Some(heard) = self.groups.get_mut(group) {
            heard.listener.note_unkept(unkept.identity);
            if heard.listener.is_reading() {
                heard.beside.push(unkept);
                return;
            }
        }
        give_unkept(cx, group, unkept);
    }

    /// Carries out what becomes of the messages that were held, and gives those that are not kept in their turn.
    fn release<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        group: &str,
        decide: impl FnOnce(&mut Listener) -> Vec<Step>,
    ) {
        let heard = self.heard(group);
        let steps = decide(&mut heard.listener);
        let is_reading = heard.listener.is_reading();
        for turn in in_turn(&mut heard.beside, steps, is_reading) {
            match turn {
                Turn::Steps(steps) => self.carry_out(cx, group, steps),
                Turn::Give(unkept) => give_unkept(cx, group, unkept),
            }
        }
    }

    /// Where this process stands is not in the stream: it finds out where it does.
    pub(super) fn doubt<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        let steps = self.heard(group).listener.doubt();
        self.carry_out(cx, group, steps);
    }

    /// Reads again where that failed, or where nothing was read yet.
    pub(super) fn read_again<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        let Some(heard) = self.groups.get_mut(group) else {
            return;
        };
        if heard.last().is_none() && !heard.listener.is_reading() {
            let topic = cx.keys.group(group);
            if cx.shared.topics.lock().contains(&topic) {
                self.doubt(cx, group);
            }
        }
    }

    fn carry_out<H: Host>(&mut self, cx: &mut Context<H>, group: &str, steps: Vec<Step>) {
        let topic = cx.keys.group(group);
        for step in steps {
            match step {
                Step::Give(pushed, at) => {
                    let from = Origin::of(pushed.identity.sender, &topic);
                    let Pushed {
                        exclude, payload, ..
                    } = pushed;
                    let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
                    let at = at.map(Last::position);
                    cx.deliver_kept(group, payload, &exclude, from, at);
                }
                Step::GiveRow(row) => give_row(cx, group, &topic, row),
                Step::Skip(at) => cx.local.history_restart(group, at.position()),
                Step::Gap(missed) => {
                    count(&cx.shared.unhealed, 1);
                    cx.report_gap(std::slice::from_ref(&topic), missed);
                }
                Step::Read => {
                    let patience = cx.settings.send_timeout.max(PATIENCE);
                    self.heard(group).until = Some(cx.now + patience);
                    self.read(cx, group);
                }
                Step::Refuse(_) => {
                    count(&cx.shared.meter.late, 1);
                    cx.shared.notices.push_once(Notice::Late);
                }
            }
        }
    }

    fn next_reading(&mut self, group: &str) -> u64 {
        self.readings += 1;
        let reading = self.readings;
        self.heard(group).reading = reading;
        reading
    }

    fn is_current(&self, group: &str, reading: u64) -> bool {
        let heard = self.groups.get(group);
        heard.is_some_and(|heard| heard.reading == reading && heard.listener.is_reading())
    }

    /// Reads the entries behind the last one, and the newest one.
    fn read<H: Host>(&mut self, cx: &mut Context<H>, group: &str) {
        let reading = self.next_reading(group);
        let key = cx.keys.history(group);
        let from = self.heard(group).listener.read_from();
        let behind = from.map(|last| {
            let range = Command::new("XRANGE").text(&key);
            range.text(last.id.to_string()).word("+")
        });
        let commands: Vec<Command> = behind.into_iter().chain([newest_command(&key)]).collect();
        let group = group.to_owned();
        let then = Then::History(HistoryThen::Read {
            group: group.clone(),
            reading,
        });
        cx.submit(Request::new(&group, &key, commands, cx.until(), then).safe());
    }

    pub(super) fn answered<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (group, reading): Mark,
        mut replies: Vec<Reply>,
    ) {
        if !self.is_current(&group, reading) {
            return;
        }
        let newest = replies.pop().and_then(|reply| newest_of(vec![reply]));
        let size = limits(cx, &group).map_or(0, |limits| limits.size);
        let behind = replies.pop().map(rows).unwrap_or_default();
        let behind = newest_rows(behind, size);
        if newest.is_none() {
            let then = HistoryThen::Begun {
                group: group.clone(),
                reading,
            };
            let last = self.heard(&group).listener.read_from();
            let request = begin(cx, &group, last.map(|last| last.id.epoch), then);
            cx.submit(request);
            index(cx, &group);
            return;
        }
        self.was_read(
            (group, reading),
            Answer {
                rows: behind,
                newest,
                anew: false,
            },
        );
    }

    /// A stream that was not there has a head now, or what others have written meanwhile.
    pub(super) fn begun(&mut self, mark: Mark, replies: Vec<Reply>) {
        if self.is_current(&mark.0, mark.1) {
            let last = done(replies).pop();
            let mut rows = last.map(rows).unwrap_or_default();
            rows.reverse();
            let newest = rows.last().cloned();
            self.was_read(
                mark,
                Answer {
                    rows,
                    newest,
                    anew: true,
                },
            );
        }
    }

    fn was_read(&mut self, (group, reading): Mark, answer: Answer) {
        let heard = self.groups.get_mut(&group);
        if heard.is_some_and(|heard| heard.listener.answered(answer)) {
            self.unsettled.push((group, reading));
        }
    }

    /// The entries cannot be read now: that is tried again, if it may help. Gives who waited for them in vain.
    pub(super) fn unread<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        (group, reading): &Mark,
        fault: &Fault,
    ) -> Vec<Resume> {
        if !self.is_current(group, *reading) {
            return Vec::new();
        }
        let until = self.heard(group).until;
        if fault.may_pass() && until.is_some_and(|until| cx.now < until) {
            self.again.push((cx.now + AGAIN, group.clone()));
            return Vec::new();
        }
        self.release(cx, group, Listener::unread);
        cx.local.history_forget(group);
        let heard = self.groups.get_mut(group);
        heard.map_or_else(Vec::new, |heard| std::mem::take(&mut heard.resumes))
    }

    /// Reads again what could not be read a moment ago.
    pub(super) fn read_due<H: Host>(&mut self, cx: &mut Context<H>) {
        for (at, group) in std::mem::take(&mut self.again) {
            if cx.now < at {
                self.again.push((at, group));
            } else if self
                .groups
                .get(&group)
                .is_some_and(|heard| heard.listener.is_reading())
            {
                self.read(cx, &group);
            }
        }
    }

    /// Whether something is to be read again.
    pub(super) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes the readings that are answered: they are to be settled.
    pub(super) fn take_unsettled(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.unsettled)
    }

    /// All that was published before the answer to a reading has come, or it is not known whether it has. Returns whether the group
    /// may be gone on with.
    pub(super) fn settled<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        mark: Mark,
        certain: bool,
    ) -> bool {
        let (group, reading) = &mark;
        if !self.is_current(group, *reading) {
            return false;
        }
        if !certain {
            self.unsettled.push(mark);
            return false;
        }
        let group = mark.0;
        let heard = self.heard(&group);
        heard.loaded = Loaded::default();
        self.release(cx, &group, Listener::settled);
        true
    }

    pub(super) fn shrink_if_sparse(&mut self) {
        self.groups.shrink_if_sparse();
    }

    /// Notes somebody who waits to go on.
    pub(super) fn add_waiting(&mut self, group: &str, resume: Resume) {
        self.heard(group).resumes.push(resume);
        self.awaited.insert(group.to_owned());
    }

    /// Takes those that have waited too long to go on.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Resume> {
        let (groups, mut late) = (&mut self.groups, Vec::new());
        self.awaited.retain(|group| {
            let Some(heard) = groups.get_mut(group) else {
                return false;
            };
            late.extend(heard.resumes.extract_if(.., |resume| resume.until <= now));
            !heard.resumes.is_empty()
        });
        late
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Whether somebody waits to go on in a group.
    pub(super) fn is_awaited(&self, group: &str) -> bool {
        let heard = self.groups.get(group);
        heard.is_some_and(|heard| !heard.resumes.is_empty())
    }

    /// Why those that wait will wait in vain.
    pub(super) fn fail<H: Host>(cx: &mut Context<H>, resumes: Vec<Resume>, fault: &Fault) {
        for resume in resumes {
            cx.calls.fail(resume.call, fault.clone());
        }
    }
}

fn give_unkept<H: Host>(cx: &mut Context<H>, group: &str, unkept: Unkept) {
    let Unkept {
        identity,
        exclude,
        payload,
    } = unkept;
    let topic = cx.keys.group(group);
    let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
    cx.deliver_to_group(
        group,
        payload,
        &exclude,
        Origin::of(identity.sender, &topic),
    );
}

/// Gives the members an entry that was read.
fn give_row<H: Host>(cx: &mut Context<H>, group: &str, topic: &str, row: Row) {
    let at = Last::of(&row).position();
    match opened(cx, topic, row) {
        Some((exclude, payload, from)) => {
            let exclude: Vec<&str> = exclude.iter().map(String::as_str).collect();
            cx.deliver_kept(group, payload, &exclude, from, Some(at));
        }
        None => cx.local.history_restart(group, at),
    }
}

/// The content of an entry, if it is what was published: authenticated where there are keys, and of the epoch of its id.
pub(super) fn opened<'a, H: Host>(
    cx: &mut Context<H>,
    topic: &'a str,
    row: Row,
) -> Option<(Vec<String>, envelope::Payload, Origin<'a>)> {
    count(&cx.shared.meter.bytes_in, row.value.len() as u64);
    let from = Origin::of(envelope::sender(&row.value), topic);
    match envelope::decode(row.value, topic, cx.settings.crypt.as_deref()) {
        Ok(envelope) => match envelope.body {
            Body::Kept {
                epoch,
                exclude,
                payload,
            } if epoch == row.id.epoch => Some((exclude, payload, from)),
            _ => {
                cx.refuse_content(from, MISPLACED, "");
                None
            }
        },
        Err(malformed) => {
            cx.refusals.refuse(&cx.shared, from, malformed);
            None
        }
    }
}

/// The request that makes a stream with a head, where there was none, and reads all of it, newest first: others may have begun it in
/// this moment. Its epoch is above another one that is known.
pub(super) fn begin<H: Host>(
    cx: &Context<H>,
    group: &str,
    above: Option<u64>,
    then: HistoryThen,
) -> Request {
    let key = cx.keys.history(group);
    let drawn = random::below(1024) as u64;
    let epoch = new_epoch(milliseconds(cx, group), drawn, above);
    let add = Command::new("XADD").text(&key).word("MAXLEN").word("~");
    let limits = limits(cx, group).unwrap_or_default();
    let add = add.number(limits.size).text(format!("{epoch}-*"));
    let add = add.word(FIELD).text("");
    let all = Command::new("XREVRANGE").text(&key).word("+").word("-");
    let commands = vec![add, limits.expire(&key), all];
    let request = Request::new(group, &key, commands, cx.until(), Then::History(then));
    request.atomic()
}
