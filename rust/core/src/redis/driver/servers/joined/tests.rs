use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::redis::driver::calls::Calls;
use crate::redis::driver::request::Then;
use crate::redis::driver::testing::refused;
use crate::redis::link::Command;

/// A transaction of so many commands, for this group.
fn transaction(group: &str, length: usize) -> Request {
    separate(group, length).atomic()
}

fn separate(group: &str, length: usize) -> Request {
    let until = Instant::now() + Duration::from_secs(5);
    let call = Calls::<()>::default().begin(1, until, None);
    let then = Then::HandedBack { call, messages: 1 };
    let commands = (0..length).map(|number| Command::new("XADD").number(number));
    Request::new(group, group, commands.collect(), until, then)
}

fn written(requests: &mut [Request]) -> Vec<String> {
    join(requests);
    let mut commands = Vec::new();
    for request in &*requests {
        request.write(&mut commands);
    }
    commands.iter().map(ToString::to_string).collect()
}

fn done(numbers: &[i64]) -> Reply {
    Reply::Array(numbers.iter().copied().map(Reply::Int).collect())
}

fn queued() -> Reply {
    Reply::SimpleString("QUEUED".to_owned())
}

#[test]
fn transactions_for_one_group_that_follow_each_other_are_written_as_one() {
    let mut requests = [("a", 1), ("a", 2), ("b", 1), ("a", 1)].map(|(g, n)| transaction(g, n));
    let words = written(&mut requests);
    let expected = [
        "MULTI", "XADD 0", "XADD 0", "XADD 1", "EXEC", "MULTI", "XADD 0", "EXEC", "MULTI",
        "XADD 0", "EXEC",
    ];
    assert_eq!(words, expected);
}

#[test]
fn what_is_no_transaction_or_carries_no_message_or_follows_a_redirection_is_written_alone() {
    let begins = |mut requests: [Request; 2]| {
        let words = written(&mut requests);
        words.iter().filter(|word| *word == "MULTI").count()
    };
    assert_eq!(begins([transaction("a", 1), separate("a", 1)]), 1);
    assert_eq!(begins([transaction("a", 1), transaction("a", 1)]), 1);
    for change in [
        |request: &mut Request| request.asking = true,
        |request: &mut Request| request.then = Then::Ignored,
    ] {
        for place in [0, 1] {
            let mut requests = [transaction("a", 1), transaction("a", 1)];
            change(&mut requests[place]);
            assert_eq!(begins(requests), 2);
        }
    }
}

#[test]
fn a_transaction_does_not_become_longer_and_longer() {
    let mut requests: Vec<Request> = (0..=2 * MOST).map(|_| transaction("a", 1)).collect();
    let words = written(&mut requests);
    let lengths = words.split(|word| word == "MULTI").skip(1);
    let lengths: Vec<usize> = lengths.map(|words| words.len() - 1).collect();
    assert_eq!(lengths, [MOST, MOST, 1]);
    // Some of them are written again.
    let mut rest = requests.split_off(2 * MOST - 1);
    assert_eq!(written(&mut rest), ["MULTI", "XADD 0", "XADD 0", "EXEC"]);
}

#[test]
fn each_gets_the_answers_to_its_own_commands() {
    let mut requests = [
        separate("a", 1),
        transaction("a", 1),
        transaction("a", 2),
        transaction("b", 1),
    ];
    join(&mut requests);
    let mut replies = vec![Reply::Int(9), Reply::Okay];
    replies.extend((0..3).map(|_| queued()));
    replies.extend([done(&[1, 2, 3]), Reply::Okay, queued(), done(&[4])]);
    let own = replies_to(&requests, replies);
    assert_eq!(own[0], [Reply::Int(9)]);
    assert_eq!(own[1], [done(&[1])]);
    assert_eq!(own[2], [done(&[2, 3])]);
    assert_eq!(own[3], [Reply::Okay, queued(), done(&[4])]);
}

#[test]
fn what_was_not_done_is_answered_to_all_by_its_cause() {
    let mut requests = [transaction("a", 1), transaction("a", 1)];
    join(&mut requests);
    let cause = refused("OOM command not allowed");
    let abort = refused("EXECABORT Transaction discarded");
    let replies = vec![Reply::Okay, queued(), cause.clone(), abort];
    let own = replies_to(&requests, replies);
    assert_eq!(own, [[cause.clone()], [cause]]);
    let replies = vec![Reply::Okay, queued(), queued(), Reply::Nil];
    assert_eq!(replies_to(&requests, replies), [[Reply::Nil], [Reply::Nil]]);
    // A proxy that does not know transactions has fewer answers.
    let unanswered = replies_to(&requests, Vec::new());
    assert!(unanswered.iter().all(Vec::is_empty) && unanswered.len() == 2);
}
