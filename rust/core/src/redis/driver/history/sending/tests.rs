use super::*;
use crate::history::HistoryRules;
use crate::redis::driver::testing::{World, context, refused, settings};
use crate::redis::settings::{Settings, Topology};
use crate::redis::wire::envelope::{self, Header, OutgoingBody};

const TTL: u64 = 100;

fn parts() -> (Context<World>, Sending) {
    let rules = HistoryRules::default();
    let history = rules.with_rule("room*", 5, Duration::from_secs(TTL));
    let settings = Settings {
        history,
        ..settings(Topology::Shards)
    };
    (context(settings), Sending::default())
}

fn draft(sequence: u64) -> Draft {
    let header = Header {
        sequence,
        ..Header::default()
    };
    let body = OutgoingBody::Kept {
        exclude: &[],
        payload: b"\x80",
    };
    envelope::encode(&header, body, None).expect("it fits")
}

/// Sends a message, and gives the call that waits for it.
fn send(cx: &mut Context<World>, sending: &mut Sending, sequence: u64, ticket: u32) {
    let call = cx.call(1, Some(ticket));
    sending.send(cx, "room", draft(sequence), call);
    cx.calls.done(call);
}

/// The commands that were submitted, without the envelopes.
fn asked(cx: &mut Context<World>) -> Vec<String> {
    let requests: Vec<Request> = cx.requests.drain(..).collect();
    let words = requests.iter().flat_map(Request::to_strings);
    words
        .filter_map(|words| {
            let shown = words.split(" e ").next().unwrap_or_default().to_owned();
            (!shown.starts_with("PUBLISH")).then_some(shown)
        })
        .collect()
}

fn text(text: &str) -> Reply {
    Reply::BulkString(text.as_bytes().to_vec())
}

fn transaction(done: Vec<Reply>) -> Vec<Reply> {
    vec![Reply::Okay, Reply::Array(done)]
}

/// The answer to the question for the newest entry.
fn newest(id: Option<&str>) -> Vec<Reply> {
    let entry = id.map(|id| {
        let fields = Reply::Array(vec![text("e"), text("")]);
        Reply::Array(vec![text(id), fields])
    });
    transaction(vec![Reply::Array(entry.into_iter().collect())])
}

/// What follows when a message of this epoch was written.
fn written(call: CallId, epoch: u64, sequence: u64, now: Instant) -> HistoryThen {
    let draft = draft(sequence);
    HistoryThen::Written {
        group: "room".to_owned(),
        epoch,
        call,
        at: now,
        until: now + Duration::from_secs(5),
        identity: Identity::of(draft.bytes()),
        digest: None,
    }
}

fn answer(
    cx: &mut Context<World>,
    sending: &mut Sending,
    sequence: u64,
    ticket: u32,
    added: Reply,
) {
    let call = cx.call(1, Some(ticket));
    let epoch = sending.streams["room"].latest.unwrap_or_default();
    let then = written(call, epoch, sequence, cx.now);
    let carried = draft(sequence).into_bytes();
    let replies = transaction(vec![added, Reply::Int(2)]);
    sending.written(cx, then, replies, carried);
}

#[test]
fn a_sender_goes_on_in_the_epoch_that_is_there() {
    let (mut cx, mut sending) = parts();
    send(&mut cx, &mut sending, 1, 1);
    send(&mut cx, &mut sending, 2, 2);
    assert_eq!(asked(&mut cx), ["XREVRANGE t:h:{t:g:room} + - COUNT 1"]);
    assert!(sending.has_waiting());
    sending.chosen(&mut cx, "room", newest(Some("7-3")));
    let asked = asked(&mut cx);
    let add = "XADD t:h:{t:g:room} NOMKSTREAM MAXLEN ~ 5 7-*";
    assert_eq!(asked[0], add);
    assert_eq!(asked[1], "EXPIRE t:h:{t:g:room} 151");
    assert!(asked[2].starts_with("SADD t:i:") && asked[2].ends_with(" :room"));
    assert_eq!(asked[4..], [add]);
    assert!(!sending.has_waiting());
}

#[test]
fn the_first_message_of_a_stream_creates_it_and_the_next_ones_do_not() {
    let (mut cx, mut sending) = parts();
    for sequence in [1, 2] {
        send(&mut cx, &mut sending, sequence, 1);
    }
    asked(&mut cx);
    sending.chosen(&mut cx, "room", newest(None));
    let adds: Vec<String> = asked(&mut cx);
    let adds: Vec<&String> = adds
        .iter()
        .filter(|words| words.starts_with("XADD"))
        .collect();
    assert!(!adds[0].contains("NOMKSTREAM"));
    assert!(adds[1].contains("NOMKSTREAM"));
    let epoch = sending.streams["room"].epoch.expect("it is chosen");
    assert!(
        adds.iter()
            .all(|words| words.ends_with(&format!(" {epoch}-*")))
    );
}

#[test]
fn an_answer_says_where_the_message_stands() {
    let (mut cx, mut sending) = parts();
    send(&mut cx, &mut sending, 1, 1);
    sending.chosen(&mut cx, "room", newest(Some("7-3")));
    cx.requests.clear();
    answer(&mut cx, &mut sending, 1, 9, text("7-4"));
    let answers = cx.calls.take_answers();
    let (_, told) = answers.first().expect("it is done");
    let print = Identity::of(draft(1).bytes()).map(Identity::print);
    let position = Position {
        epoch: 7,
        number: 4,
        print: print.expect("it has a header"),
    };
    assert_eq!(told.position, Some(Stamp::new("room", position)));
    assert_eq!((told.receivers, told.fault.is_none()), (2, true));
    assert!(cx.requests.is_empty());
}

#[test]
fn what_was_not_kept_is_written_again_behind_what_waits_in_the_order_of_its_numbers() {
    for added in [
        Reply::Nil,
        refused("ERR The ID specified in XADD is equal or smaller than the target stream top item"),
    ] {
        let (mut cx, mut sending) = parts();
        for sequence in [1, 2] {
            send(&mut cx, &mut sending, sequence, 1);
        }
        sending.chosen(&mut cx, "room", newest(Some("7-3")));
        asked(&mut cx);
        answer(&mut cx, &mut sending, 1, 9, added.clone());
        send(&mut cx, &mut sending, 3, 1);
        answer(&mut cx, &mut sending, 2, 9, added);
        assert_eq!(asked(&mut cx), ["XREVRANGE t:h:{t:g:room} + - COUNT 1"]);
        assert!(cx.calls.take_answers().is_empty());
        sending.chosen(&mut cx, "room", newest(Some("8-0")));
        let carried: Vec<u64> = cx
            .requests
            .iter()
            .filter_map(|request| Some(Identity::of(&request.carried())?.sequence))
            .collect();
        assert_eq!(carried, [1, 2, 3]);
    }
}

#[test]
fn an_epoch_is_left_whose_numbers_were_there_before() {
    let (mut cx, mut sending) = parts();
    send(&mut cx, &mut sending, 1, 1);
    sending.chosen(&mut cx, "room", newest(Some("7-3")));
    answer(&mut cx, &mut sending, 1, 9, text("7-4"));
    // Another stream has taken the place of that one, and was written to in its epoch.
    answer(&mut cx, &mut sending, 2, 9, text("7-2"));
    cx.requests.clear();
    send(&mut cx, &mut sending, 3, 1);
    assert_eq!(asked(&mut cx), ["XREVRANGE t:h:{t:g:room} + - COUNT 1"]);
    sending.chosen(&mut cx, "room", newest(Some("7-2")));
    let add = asked(&mut cx).into_iter().next().expect("it is written");
    assert!(
        !add.contains("NOMKSTREAM") && !add.contains(" 7-*"),
        "{add}"
    );
}

#[test]
fn what_is_known_of_a_stream_ends_with_the_connection_and_with_its_time() {
    for by_time in [false, true] {
        let (mut cx, mut sending) = parts();
        send(&mut cx, &mut sending, 1, 1);
        sending.chosen(&mut cx, "room", newest(Some("7-3")));
        cx.requests.clear();
        send(&mut cx, &mut sending, 2, 1);
        assert_eq!(asked(&mut cx).len(), 1, "the end was set a moment ago");
        if by_time {
            cx.now += Duration::from_secs(TTL);
        } else {
            sending.forget_epochs();
        }
        send(&mut cx, &mut sending, 3, 1);
        assert_eq!(asked(&mut cx), ["XREVRANGE t:h:{t:g:room} + - COUNT 1"]);
    }
}

#[test]
fn a_refusal_is_told_and_nothing_is_written_again() {
    let (mut cx, mut sending) = parts();
    send(&mut cx, &mut sending, 1, 1);
    let fault = Fault::new(FaultKind::Lacking, "it has no streams");
    sending.not_chosen(&mut cx, "room", &fault);
    let told = |cx: &mut Context<World>| {
        let answers = cx.calls.take_answers();
        answers
            .into_iter()
            .filter_map(|(_, answer)| answer.fault)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&mut cx), [fault]);
    for added in [refused("WRONGTYPE not a stream"), Reply::Int(5)] {
        answer(&mut cx, &mut sending, 1, 9, added);
        assert_eq!(told(&mut cx).len(), 1);
    }
    assert_eq!(cx.shared.stats().unsent, 3);
    assert!(!sending.has_waiting());
}

#[test]
fn streams_that_are_not_written_to_are_forgotten() {
    let (mut cx, mut sending) = parts();
    send(&mut cx, &mut sending, 1, 1);
    cx.now += Duration::from_secs(TTL);
    sending.look_after(&cx);
    assert_eq!(sending.streams.len(), 1, "a message waits");
    sending.chosen(&mut cx, "room", newest(Some("7-3")));
    sending.look_after(&cx);
    assert_eq!(sending.streams.len(), 0);
}

/// Where the commands go that publish, in their order.
fn published(cx: &mut Context<World>) -> Vec<&'static str> {
    let kinds = cx.requests.drain(..).filter_map(|request| {
        let words = request.to_strings();
        let has = |name| words.iter().any(|words| words.starts_with(name));
        match (has("XADD"), has("PUBLISH")) {
            (true, _) => Some("kept"),
            (false, true) => Some("alone"),
            (false, false) => None,
        }
    });
    kinds.collect()
}

fn close(cx: &mut Context<World>, sending: &mut Sending, sequence: u64, ticket: u32) {
    let header = Header {
        sequence,
        ..Header::default()
    };
    let (exclude, payload): (&[&str], &[u8]) = (&[], b"\x80");
    let body = OutgoingBody::Group { exclude, payload };
    let draft = envelope::encode(&header, body, None).expect("it fits");
    let call = cx.call(1, Some(ticket));
    sending.send(cx, "room", draft, call);
    cx.calls.done(call);
}

#[test]
fn what_is_not_kept_does_not_overtake_what_waits_and_asks_for_nothing() {
    let (mut cx, mut sending) = parts();
    close(&mut cx, &mut sending, 1, 1);
    assert_eq!(published(&mut cx), ["alone"]);
    send(&mut cx, &mut sending, 2, 2);
    close(&mut cx, &mut sending, 3, 3);
    send(&mut cx, &mut sending, 4, 4);
    assert_eq!(published(&mut cx), [""; 0]);
    sending.chosen(&mut cx, "room", newest(Some("7-3")));
    assert_eq!(published(&mut cx), ["kept", "alone", "kept"]);
    close(&mut cx, &mut sending, 5, 5);
    assert_eq!(published(&mut cx), ["alone"]);
    assert!(!sending.has_waiting());
}

#[test]
fn what_is_not_kept_is_published_where_nothing_can_be_kept() {
    let (mut cx, mut sending) = parts();
    send(&mut cx, &mut sending, 1, 1);
    close(&mut cx, &mut sending, 2, 2);
    let fault = Fault::new(FaultKind::Lacking, "it has no streams");
    sending.not_chosen(&mut cx, "room", &fault);
    assert_eq!(published(&mut cx), ["alone"]);
    let failed: Vec<u32> = cx
        .calls
        .take_answers()
        .iter()
        .map(|(ticket, _)| *ticket)
        .collect();
    assert_eq!(failed, [1]);
    assert!(!sending.has_waiting());
}
