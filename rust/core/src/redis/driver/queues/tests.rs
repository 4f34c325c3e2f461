use std::time::Duration;

use super::*;
use crate::redis::driver::testing::{World, context, settings};
use crate::redis::settings::Topology;
use crate::redis::wire::crypt::Crypt;
use crate::redis::wire::envelope::{self, Date, Header, OutgoingBody, Seal};

fn parts() -> (Context<World>, Queues) {
    let cx = context(settings(Topology::Shards));
    (cx, Queues::default())
}

fn push(cx: &mut Context<World>, queues: &mut Queues) -> CallId {
    let call = cx.call(0, Some(7));
    queues.push(cx, "work", vec![0; 40].into(), call);
    call
}

/// The first words of what is asked of the servers, one request after the other.
fn asked(cx: &mut Context<World>) -> Vec<Vec<String>> {
    let requests = std::mem::take(&mut cx.requests);
    let words = |command: String| command.split(' ').next().unwrap_or_default().to_owned();
    let request = |request: Request| request.to_strings().into_iter().map(words).collect();
    requests.into_iter().map(request).collect()
}

fn pushed(call: CallId, length: u64) -> Pushed {
    Pushed {
        channel: "work".to_owned(),
        entry: Bytes::new(),
        length,
        call,
        follows: false,
    }
}

#[test]
fn a_message_is_pushed_and_the_bell_rung_and_the_name_of_the_queue_kept_once_an_hour() {
    let (mut cx, mut queues) = parts();
    push(&mut cx, &mut queues);
    let whole = ["RPUSH", "EXPIRE", "PUBLISH"];
    assert_eq!(asked(&mut cx), [&["SADD", "EXPIRE"][..], &whole]);
    push(&mut cx, &mut queues);
    assert_eq!(asked(&mut cx), [whole]);
    queues.index_anew();
    push(&mut cx, &mut queues);
    assert_eq!(asked(&mut cx).len(), 2);
}

#[test]
fn a_sender_whose_own_receiver_waits_takes_the_message_at_once() {
    let (mut cx, mut queues) = parts();
    let _ = cx.local.wait("work", 1, None);
    push(&mut cx, &mut queues);
    let commands = asked(&mut cx).pop().expect("it is pushed");
    assert_eq!(commands, ["RPUSH", "EXPIRE", "PUBLISH", "LMOVE", "EXPIRE"]);
    push(&mut cx, &mut queues);
    let commands = asked(&mut cx).pop().expect("it is pushed");
    assert_eq!(commands.len(), 3, "one receiver takes one message");
}

#[test]
fn a_queue_within_its_capacity_answers_and_a_full_one_is_looked_at() {
    let (mut cx, mut queues) = parts();
    let capacity = i64::try_from(cx.local.capacity_of("work")).expect("it is small");
    for (length, answered) in [(capacity, true), (capacity + 1, false)] {
        let call = push(&mut cx, &mut queues);
        asked(&mut cx);
        let replies = vec![Reply::Int(length), Reply::Int(1), Reply::Int(0)];
        let entry = (pushed(call, 0), Bytes::new());
        queues.queued(&mut cx, entry, replies);
        assert_eq!(cx.calls.take_answers().len(), usize::from(answered));
        let looked = asked(&mut cx) == [["LRANGE", "LRANGE"]];
        assert_eq!(looked, !answered);
    }
}

#[test]
fn an_entry_beyond_the_capacity_is_withdrawn_unless_somebody_took_it() {
    let (mut cx, mut queues) = parts();
    for (removed, full) in [(1, 1), (0, 0)] {
        let call = push(&mut cx, &mut queues);
        asked(&mut cx);
        queues.withdrawn(&mut cx, &pushed(call, 101), &[Reply::Int(removed)]);
        let (_, answer) = cx.calls.take_answers().pop().expect("it is done");
        assert_eq!((answer.full, answer.queued), (full, 1 - full));
    }
}

#[test]
fn what_may_have_been_taken_is_read_back_before_anything_else_is_taken() {
    let (mut cx, mut queues) = parts();
    let _ = cx.local.wait("work", 1, None);
    queues.fetch(&mut cx, "work");
    assert_eq!(asked(&mut cx), [["LMOVE", "EXPIRE", "LLEN"]]);
    queues.fetch_failed("work", 1);
    queues.fetch(&mut cx, "work");
    assert_eq!(asked(&mut cx), [["LRANGE"]]);
    queues.fetch(&mut cx, "work");
    assert_eq!(asked(&mut cx).len(), 0, "it is being read");
    let nothing = vec![Reply::Array(Vec::new())];
    queues.recovered(&mut cx, "work", nothing);
    assert_eq!(asked(&mut cx), [["LMOVE", "EXPIRE", "LLEN"]]);
}

#[test]
fn a_message_is_pushed_in_the_buffer_that_it_was_written_to() {
    let (mut cx, mut queues) = parts();
    let keys = Crypt::new(["a secret"]).expect("there is a secret");
    for crypt in [None, Some(&keys)] {
        let (channel, payload) = ("work", [0; 1000].as_slice());
        let body = OutgoingBody::Direct { channel, payload };
        let seal = crypt.map(|crypt| Seal { crypt, now: 0 });
        let mut draft = envelope::encode(&Header::default(), body, seal).expect("it fits");
        let written = draft.bytes().as_ptr();
        draft.number(1);
        let call = cx.call(0, None);
        queues.push(&mut cx, channel, draft, call);
        let mut request = cx.requests.pop().expect("it is pushed");
        request.date(&Date {
            now: 1,
            expiry: 1,
            crypt,
        });
        assert_eq!(request.carried().as_ptr(), written);
    }
}

#[test]
fn an_entry_that_was_taken_is_removed_by_the_bytes_that_came_in() {
    let (mut cx, mut queues) = parts();
    let entry = vec![0; 1000];
    let came_in = entry.as_ptr();
    let replies = vec![Reply::BulkString(entry)];
    queues.took(&mut cx, "work", 1, replies);
    let removal = cx.requests.pop().expect("it has come");
    assert!(removal.to_strings().concat().starts_with("LREM t:t:"));
    assert_eq!(removal.carried().as_ptr(), came_in);
}

#[test]
fn a_queue_that_nobody_uses_is_forgotten() {
    let (mut cx, mut queues) = parts();
    push(&mut cx, &mut queues);
    queues.audit(&mut cx);
    assert_eq!(queues.queues.len(), 0);
    queues.queue("work").came = Some(cx.now);
    queues.audit(&mut cx);
    assert_eq!(queues.queues.len(), 1, "entries may come twice");
    cx.now += Duration::from_secs(60);
    queues.audit(&mut cx);
    assert_eq!(queues.queues.len(), 0);
}
