use std::time::Duration;

use super::*;
use crate::history::HistoryRules;
use crate::redis::driver::testing::{World, context, settings};
use crate::redis::host::Answer;
use crate::redis::settings::{Settings, Topology};
use crate::redis::wire::envelope::{self, Header, OutgoingBody};
use crate::redis::wire::history::EntryId;

const EPOCH: u64 = 7;
/// `{"type": "x"}`
const PAYLOAD: &[u8] = b"\x81\xa4type\xa1x";

fn envelope(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        sequence,
        ..Header::default()
    };
    let exclude = &[];
    let body = OutgoingBody::Kept { exclude, payload };
    let mut draft = envelope::encode(&header, body, None).expect("it fits");
    draft.epoch(EPOCH);
    draft.bytes().to_vec()
}

fn row(number: u64, value: Vec<u8>) -> Row {
    let id = EntryId {
        epoch: EPOCH,
        number,
    };
    Row { id, value }
}

/// A stream with five messages behind its head. That of number 3 is another one.
fn stream(third: Option<Vec<u8>>) -> Vec<Row> {
    let good = (1..=5).map(|number| row(number, envelope(number, PAYLOAD)));
    let head = [row(0, Vec::new())];
    let mut stream: Vec<Row> = head.into_iter().chain(good).collect();
    match third {
        Some(value) => stream[3] = row(3, value),
        None => drop(stream.remove(3)),
    }
    stream
}

fn reply(rows: impl Iterator<Item = Row>) -> Reply {
    let text = |bytes: Vec<u8>| Reply::BulkString(bytes);
    let entry = |row: Row| {
        let fields = vec![text(b"e".to_vec()), text(row.value)];
        Reply::Array(vec![
            text(row.id.to_string().into_bytes()),
            Reply::Array(fields),
        ])
    };
    Reply::Array(rows.map(entry).collect())
}

/// What a caller is told of a stream.
fn ask(stream: &[Row], since: Since, limit: usize) -> Answer {
    let history = HistoryRules::default().with_rule("room", 100, Duration::from_secs(60));
    let mut cx: Context<World> = context(Settings {
        history,
        max_message_bytes: 64,
        ..settings(Topology::Shards)
    });
    let call = cx.call(1, Some(1));
    let then = HistoryThen::Looked {
        group: "room".to_owned(),
        call,
        wanted: Wanted::Messages { since, limit },
        begun: false,
    };
    let found: Vec<Row> = match since {
        Since::Position(position) => {
            let number = position.map_or(0, |position| position.number);
            let behind = stream.iter().filter(|row| row.id.number >= number);
            behind.take(limit + 1).cloned().collect()
        }
        Since::Newest(count) => stream
            .iter()
            .rev()
            .take(count.min(limit))
            .cloned()
            .collect(),
    };
    let newest = stream.last().cloned();
    let done = vec![reply(found.into_iter()), reply(newest.into_iter())];
    looked(&mut cx, then, vec![Reply::Array(done)]);
    let answers = cx.calls.take_answers();
    answers.into_iter().next().expect("it is done").1
}

fn numbers(answer: &Answer) -> Vec<u64> {
    let messages = answer.messages.iter();
    messages
        .map(|message| message.stamp.position.number)
        .collect()
}

fn place(answer: &Answer) -> Option<Position> {
    answer.position.map(|stamp| stamp.position)
}

#[test]
fn what_cannot_be_opened_is_not_passed_over() {
    let missing = [
        None,
        Some(b"nonsense".to_vec()),
        Some(envelope(3, b"no message")),
        Some(envelope(3, &[PAYLOAD, &[0; 100]].concat())),
    ];
    for third in missing {
        let stream = stream(third);
        let here = Some(stream[stream.len() - 1].position());
        let behind = |row: &Row| Since::Position(Some(row.position()));
        for known in &stream[1..3] {
            let answer = ask(&stream, behind(known), 10);
            assert_eq!((answer.complete, numbers(&answer)), (Some(false), vec![]));
            assert_eq!(place(&answer), here);
        }
        let part = ask(&stream, behind(&stream[0]), 2);
        assert_eq!((part.complete, numbers(&part)), (Some(true), vec![1, 2]));
        assert_eq!(place(&part), Some(stream[2].position()));
        let newest = ask(&stream, Since::Newest(10), 10);
        assert_eq!(
            (newest.complete, numbers(&newest)),
            (Some(true), vec![4, 5])
        );
        assert_eq!(place(&newest), here);
    }
}

#[test]
fn all_behind_a_position_is_told_in_parts() {
    let stream = stream(Some(envelope(3, PAYLOAD)));
    for (from, limit, expected) in [(0, 10, 1..6), (2, 2, 3..5), (5, 3, 6..6)] {
        let since = Since::Position(Some(stream[from].position()));
        let answer = ask(&stream, since, limit);
        assert_eq!(answer.complete, Some(true));
        assert_eq!(numbers(&answer), expected.clone().collect::<Vec<_>>());
        let last = from + expected.count();
        assert_eq!(place(&answer), Some(stream[last].position()));
    }
    let answer = ask(&stream, Since::Position(None), 10);
    assert_eq!((answer.complete, numbers(&answer)), (Some(false), vec![]));
}
