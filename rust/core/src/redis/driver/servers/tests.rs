use std::time::Duration;

use super::*;
use crate::redis::driver::testing::{refused, settings, SilentLink};
use crate::redis::link::Command;
use crate::redis::settings::Topology;

const SHARD: NodeKey = NodeKey::Shard(0);

fn request(now: Instant) -> Request {
    let until = now + Duration::from_secs(5);
    let then = Then::HandedBack {
        call: crate::redis::driver::calls::Calls::<()>::default().begin(1, until, None),
        messages: 1,
    };
    Request::new(
        "work",
        "t:q:{work}",
        vec![Command::new("PING")],
        until,
        then,
    )
}

fn servers(now: Instant) -> Servers {
    Servers::new(&Arc::new(settings(Topology::Shards)), now)
}

/// Has the connections made that are due; gives the generation of the one that asks.
fn connect(servers: &mut Servers, now: Instant) -> u64 {
    let mut writer = 0;
    for dial in servers.due(now) {
        let opened = Opened {
            link: Arc::new(SilentLink),
            address: None,
            time: None,
        };
        servers.opened(&dial.node, dial.role, Ok(opened), now);
        if dial.role == Role::Writer {
            writer = dial.generation;
        }
    }
    writer
}

fn outcomes(servers: &mut Servers) -> Vec<Outcome> {
    std::iter::from_fn(|| servers.next_outcome()).collect()
}

/// Writes what waits, and has it answered.
fn answer(servers: &mut Servers, now: Instant, reply: &Reply) {
    for pipeline in servers.pipelines(now, 0) {
        let replies = vec![reply.clone(); pipeline.commands.len()];
        let from = (&pipeline.node, pipeline.generation);
        servers.replied(from, pipeline.requests, pipeline.bytes, Ok(replies), now);
    }
}

#[test]
fn a_request_waits_for_a_connection_and_is_answered_once() {
    let now = Instant::now();
    let mut servers = servers(now);
    servers.submit(request(now), now);
    assert!(servers.pipelines(now, 0).is_empty());
    connect(&mut servers, now);
    outcomes(&mut servers);
    assert!(servers.have_waiting() && !servers.have_carried_all());
    answer(&mut servers, now, &Reply::Int(1));
    let outcomes = outcomes(&mut servers);
    assert!(matches!(outcomes.as_slice(), [Outcome::Answered(..)]));
    assert!(!servers.have_waiting() && servers.have_carried_all());
}

#[test]
fn a_request_that_waited_too_long_fails() {
    let now = Instant::now();
    let mut servers = servers(now);
    servers.submit(request(now), now);
    servers.give_up_late(now);
    assert!(outcomes(&mut servers).is_empty());
    servers.give_up_late(now + Duration::from_secs(5));
    let outcomes = outcomes(&mut servers);
    assert!(matches!(outcomes.as_slice(), [Outcome::Failed(..)]));
    assert!(servers.have_carried_all());
}

#[test]
fn what_a_server_cannot_do_just_now_is_asked_again_after_a_while() {
    let now = Instant::now();
    let mut servers = servers(now);
    servers.submit(request(now), now);
    connect(&mut servers, now);
    answer(&mut servers, now, &refused("LOADING the dataset"));
    servers.resubmit_delayed(now);
    assert!(servers.pipelines(now, 0).is_empty(), "it is too early");
    let later = now + Duration::from_millis(50);
    servers.resubmit_delayed(later);
    assert_eq!(servers.pipelines(later, 0).len(), 1);
}

#[test]
fn a_lost_connection_is_made_again_and_what_the_old_one_says_is_not_heard() {
    let now = Instant::now();
    let mut servers = servers(now);
    servers.submit(request(now), now);
    let generation = connect(&mut servers, now);
    let fault = Fault::new(FaultKind::Lost, "lost");
    servers.lose(&SHARD, Role::Writer, generation, &fault, now);
    assert!(!servers.are_open() && servers.has_lost_one());
    assert!(!servers.is_current(&SHARD, Role::Writer, generation));
    let due = servers.due(now + Duration::from_secs(1));
    assert!(matches!(due.as_slice(), [dial] if dial.role == Role::Writer));
}

#[test]
fn a_server_that_refuses_at_once_fails_what_waits_for_it() {
    let now = Instant::now();
    let mut servers = servers(now);
    servers.submit(request(now), now);
    servers.due(now);
    let fault = Fault::new(FaultKind::Refused, "wrong password");
    servers.opened(&SHARD, Role::Writer, Err(fault.clone()), now);
    servers.give_up_late(now);
    let outcomes = outcomes(&mut servers);
    let [Outcome::NotReached(_), Outcome::Failed(_, failed)] = outcomes.as_slice() else {
        panic!("{} outcomes", outcomes.len());
    };
    assert_eq!(*failed, fault);
    assert_eq!(servers.away(now), Some(fault));
}
