use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::history::{Histories, HistoryRules};
use crate::memory::MemoryEngine;
use crate::redis::driver::history::Pushed;
use crate::redis::driver::history_then::Wanted;
use crate::redis::driver::testing::{World, context, settings};
use crate::redis::settings::{Settings, Topology};
use crate::redis::wire::envelope::{self, Draft, Header, OutgoingBody};

const EPOCH: u64 = 7;
const SIZE: u64 = 10;
/// The number of the last entry.
const LAST: u64 = 30;
/// `{"type": "x"}`
const PAYLOAD: &[u8] = b"\x81\xa4type\xa1x";
/// What two messages and their group count.
const LITTLE: usize = 450;

fn draft(number: u64) -> Draft {
    let header = Header {
        sequence: number,
        ..Header::default()
    };
    let (exclude, payload) = (&[][..], PAYLOAD);
    let body = OutgoingBody::Kept { exclude, payload };
    let mut draft = envelope::encode(&header, body, None).expect("it fits");
    draft.epoch(EPOCH);
    draft
}

fn row(number: u64) -> Row {
    let id = EntryId {
        epoch: EPOCH,
        number,
    };
    let value = draft(number).bytes().to_vec();
    Row { id, value }
}

fn behind(number: u64) -> Since {
    Since::Position(Some(row(number).position()))
}

/// The answer of a server for the entries from one on.
fn reply(from: u64) -> Reply {
    let text = |bytes: Vec<u8>| Reply::BulkString(bytes);
    let entry = |number| {
        let Row { id, value } = row(number);
        let fields = vec![text(b"e".to_vec()), text(value)];
        Reply::Array(vec![
            text(id.to_string().into_bytes()),
            Reply::Array(fields),
        ])
    };
    // The server has one that has not come yet.
    let from = from.max(LAST + 2 - SIZE);
    Reply::Array((from..=LAST + 1).map(entry).collect())
}

struct Layer {
    cx: Context<World>,
    history: History,
    tickets: u32,
}

impl Layer {
    /// One that listens to a group and has had its last message.
    fn new(history_bytes: usize) -> Self {
        let rules = HistoryRules::default();
        let size = usize::try_from(SIZE).expect("it is small");
        let rules = rules.with_rule("room", size, Duration::from_secs(60));
        let mut cx = context(Settings {
            history: rules.clone(),
            ..settings(Topology::Shards)
        });
        let local = MemoryEngine::new(Config::default(), ManualClock::default());
        let histories = Histories::new(rules, history_bytes, 1);
        cx.local = Arc::new(local.with_histories(histories));
        let mut history = History::default();
        history.subscribed(&mut cx, "room");
        let (group, reading) = ("room".to_owned(), 1);
        let newest = Reply::Array(match reply(LAST) {
            Reply::Array(entries) => entries.into_iter().take(1).collect(),
            _ => Vec::new(),
        });
        let then = HistoryThen::Read { group, reading };
        history.answered(&mut cx, then, vec![newest], bytes::Bytes::new());
        history.settled(&mut cx, vec![("room".to_owned(), reading)], true);
        cx.requests.clear();
        Self {
            cx,
            history,
            tickets: 0,
        }
    }

    /// Somebody goes on, in a channel of the name of the ticket.
    fn resume(&mut self, since: Since) -> u32 {
        self.tickets += 1;
        let call = self.cx.call(1, Some(self.tickets));
        let channel = format!("c{}", self.tickets);
        let until = self.cx.until();
        let resume = Resume::new(call, Some((channel, since, Arc::default())), until);
        self.history.resume(&mut self.cx, "room", resume);
        self.tickets
    }

    fn asked(&mut self) -> Vec<String> {
        let requests = self.cx.requests.drain(..);
        requests.flat_map(|request| request.to_strings()).collect()
    }

    /// The server answers for the entries from one on.
    fn answer(&mut self, from: u64) {
        let mark = ("room".to_owned(), 1);
        let (cx, history) = (&mut self.cx, &mut self.history);
        history.loaded(cx, &mark, from, vec![reply(from)]);
    }

    /// Whether those who were answered were told that it is complete, and what they got.
    fn told(&mut self) -> Vec<(u32, Option<bool>, usize)> {
        let answers = self.cx.calls.take_answers();
        let told = answers.into_iter().map(|(ticket, answer)| {
            let depth = self.cx.local.depth(&format!("c{ticket}"));
            (ticket, answer.complete, depth)
        });
        told.collect()
    }
}

fn words(from: u64) -> Vec<String> {
    let count = LAST - from + 1;
    vec![format!(
        "XRANGE t:h:{{t:g:room}} {EPOCH}-{from} + COUNT {count}"
    )]
}

#[test]
fn as_much_is_read_as_the_oldest_of_those_that_wait_has_missed() {
    let mut layer = Layer::new(1 << 20);
    let first = layer.resume(behind(28));
    assert_eq!(layer.asked(), words(28));
    let others = [27, 25, 23].map(|number| layer.resume(behind(number)));
    assert_eq!(layer.asked(), [""; 0], "one answer is waited for");
    layer.answer(28);
    assert_eq!(layer.told(), [(first, Some(true), 2)]);
    // All that there may be, so that nobody has to ask again.
    assert_eq!(layer.asked(), words(LAST - SIZE));
    layer.answer(LAST - SIZE);
    let expected = others.into_iter().zip([3, 5, 7]);
    let expected: Vec<_> = expected
        .map(|(ticket, count)| (ticket, Some(true), count))
        .collect();
    assert_eq!(layer.told(), expected);
    let next = layer.resume(behind(22));
    let newest = layer.resume(Since::Newest(50));
    assert_eq!(layer.asked(), [""; 0]);
    assert_eq!(
        layer.told(),
        [(next, Some(true), 8), (newest, Some(true), 9)]
    );
}

#[test]
fn what_was_read_is_given_also_if_there_is_no_room_to_keep_it() {
    let mut layer = Layer::new(LITTLE);
    for number in [22, 26, 22] {
        let ticket = layer.resume(behind(number));
        let count = usize::try_from(LAST - number).expect("it is small");
        assert_eq!(layer.asked(), words(number));
        layer.answer(number);
        assert_eq!(layer.told(), [(ticket, Some(true), count)]);
    }
    let newest = layer.resume(Since::Newest(4));
    assert_eq!(layer.asked(), words(26));
    layer.answer(26);
    assert_eq!(layer.told(), [(newest, Some(true), 4)]);
}

#[test]
fn nothing_is_read_for_what_the_server_cannot_have() {
    for since in [
        Since::Position(None),
        Since::Position(Some(Position {
            epoch: EPOCH - 1,
            ..row(28).position()
        })),
        behind(LAST - SIZE - 1),
    ] {
        let mut layer = Layer::new(1 << 20);
        let ticket = layer.resume(since);
        assert_eq!(layer.asked(), [""; 0]);
        assert_eq!(layer.told(), [(ticket, Some(false), 0)]);
    }
}

#[test]
fn it_is_found_out_once_whether_a_newer_stream_was_begun() {
    let newer = Since::Position(Some(Position {
        epoch: EPOCH + 1,
        ..row(28).position()
    }));
    let mut layer = Layer::new(1 << 20);
    let ticket = layer.resume(newer);
    let asked = layer.asked();
    let key = "t:h:{t:g:room}";
    assert_eq!(
        asked,
        [
            format!("XRANGE {key} {EPOCH}-{LAST} +"),
            format!("XREVRANGE {key} + - COUNT 1")
        ]
    );
    assert_eq!(layer.told(), []);
    let (group, reading) = ("room".to_owned(), 2);
    let then = HistoryThen::Read { group, reading };
    let (cx, history) = (&mut layer.cx, &mut layer.history);
    history.answered(
        cx,
        then,
        vec![reply(LAST), reply(LAST + 1)],
        bytes::Bytes::new(),
    );
    history.settled(cx, vec![("room".to_owned(), reading)], true);
    assert_eq!(layer.asked(), [""; 0]);
    assert_eq!(layer.told(), [(ticket, Some(false), 0)]);
}

#[test]
fn a_forged_position_is_read_for_once() {
    let forged = Since::Position(Some(Position {
        print: 1,
        ..row(25).position()
    }));
    let mut layer = Layer::new(1 << 20);
    for asked in [words(25), Vec::new(), Vec::new()] {
        let ticket = layer.resume(forged);
        assert_eq!(layer.asked(), asked);
        if !asked.is_empty() {
            layer.answer(25);
        }
        assert_eq!(layer.told(), [(ticket, Some(false), 0)]);
    }
}

#[test]
fn what_is_not_there_any_more_is_not_complete() {
    let mut layer = Layer::new(1 << 20);
    for asked in [words(21), Vec::new()] {
        let ticket = layer.resume(behind(21));
        assert_eq!(layer.asked(), asked);
        if !asked.is_empty() {
            layer.answer(21);
        }
        assert_eq!(layer.told(), [(ticket, Some(false), 0)]);
    }
}

#[test]
fn who_waits_for_the_answer_is_waited_for() {
    let mut layer = Layer::new(1 << 20);
    assert!(!layer.history.is_awaited("room"));
    layer.resume(behind(25));
    assert!(layer.history.is_awaited("room"));
    layer.answer(25);
    assert!(!layer.history.is_awaited("room"));
}

#[test]
fn where_a_group_is_needs_no_command_where_all_of_it_is_heard() {
    let mut layer = Layer::new(1 << 20);
    let position = |layer: &mut Layer| {
        let call = layer.cx.call(1, Some(9));
        let (cx, history) = (&mut layer.cx, &mut layer.history);
        history.look(cx, "room", Wanted::Position, call);
        let told = cx.calls.take_answers().into_iter().next();
        told.and_then(|(_, answer)| answer.position)
    };
    let newest = "XREVRANGE t:h:{t:g:room} + - COUNT 1".to_owned();
    let asks = |layer: &mut Layer| layer.asked().contains(&newest);
    assert_eq!(position(&mut layer), None, "it is not subscribed to");
    assert!(asks(&mut layer));
    let topic = layer.cx.keys.group("room");
    layer.cx.shared.topics.lock().insert(topic);
    let here = Stamp::new("room", row(LAST).position());
    assert_eq!(position(&mut layer), Some(here));
    assert!(!asks(&mut layer));
    // This process has sent one that has not come back yet.
    let call = layer.cx.call(1, None);
    let (cx, history) = (&mut layer.cx, &mut layer.history);
    history.send(cx, "room", draft(LAST + 1), call);
    cx.requests.clear();
    assert_eq!(position(&mut layer), None, "it is not written yet");
    let (cx, history) = (&mut layer.cx, &mut layer.history);
    let Reply::Array(entries) = reply(LAST) else {
        panic!("it is a list")
    };
    let newest = Reply::Array(vec![Reply::Array(entries.into_iter().skip(1).collect())]);
    let group = "room".to_owned();
    let then = HistoryThen::Newest { group };
    history.answered(cx, then, vec![newest], bytes::Bytes::new());
    layer.cx.requests.clear();
    assert_eq!(position(&mut layer), None, "it may be behind");
    assert!(asks(&mut layer));
}

#[test]
fn what_comes_when_nobody_listens_any_more_leaves_nothing_behind() {
    let mut layer = Layer::new(1 << 20);
    let (cx, history) = (&mut layer.cx, &mut layer.history);
    history.forget(cx, "room");
    let pushed = Pushed {
        epoch: EPOCH,
        identity: row(LAST + 1).identity().expect("it is a message"),
        exclude: Vec::new(),
        payload: PAYLOAD.to_vec().into(),
        stale: false,
    };
    history.pushed(cx, "room", pushed);
    assert!(!history.heals("room"));
    assert_eq!(layer.asked(), [""; 0]);
}
