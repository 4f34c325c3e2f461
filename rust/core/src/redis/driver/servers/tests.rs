use std::time::Duration;

use super::*;
use crate::redis::driver::testing::{SilentLink, refused, settings};
use crate::redis::link::Command;
use crate::redis::settings::Topology;

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

/// Opens the connections that are due; returns the one for requests.
fn connect(servers: &mut Servers, now: Instant) -> LinkId {
    let mut writer = None;
    for dial in servers.due(now) {
        let opened = Opened {
            link: Arc::new(SilentLink),
            address: None,
            time: None,
        };
        servers.opened(&dial.id, Ok(opened), now);
        if dial.id.role == Role::Writer {
            writer = Some(dial.id);
        }
    }
    writer.expect("it is due")
}

fn outcomes(servers: &mut Servers) -> Vec<ServerOutcome> {
    std::iter::from_fn(|| servers.next_outcome()).collect()
}

/// Writes the requests that wait, and answers them.
fn answer(servers: &mut Servers, now: Instant, reply: &Reply) {
    for pipeline in servers.pipelines(now, 0) {
        let replies = vec![reply.clone(); pipeline.commands().len()];
        let (requests, bytes) = (pipeline.requests, pipeline.bytes);
        servers.replied(&pipeline.id, requests, bytes, Ok(replies), now);
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
    assert!(matches!(outcomes.as_slice(), [ServerOutcome::Answered(..)]));
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
    assert!(matches!(outcomes.as_slice(), [ServerOutcome::Failed(..)]));
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
fn a_lost_connection_is_made_again_and_events_of_the_old_one_are_ignored() {
    let now = Instant::now();
    let mut servers = servers(now);
    servers.submit(request(now), now);
    let writer = connect(&mut servers, now);
    let fault = Fault::new(FaultKind::Lost, "lost");
    servers.lose(&writer, &fault, now);
    assert!(!servers.are_open() && servers.has_lost_one());
    assert!(!servers.is_current(&writer));
    let due = servers.due(now + Duration::from_secs(1));
    assert!(matches!(due.as_slice(), [dial] if dial.id.role == Role::Writer));
}

#[test]
fn a_server_that_refuses_at_once_fails_what_waits_for_it() {
    let now = Instant::now();
    let mut servers = servers(now);
    servers.submit(request(now), now);
    let mut due = servers.due(now).into_iter().map(|dial| dial.id);
    let writer = due.find(|id| id.role == Role::Writer).expect("it is due");
    let fault = Fault::new(FaultKind::Refused, "wrong password");
    servers.opened(&writer, Err(fault.clone()), now);
    servers.give_up_late(now);
    let outcomes = outcomes(&mut servers);
    let [
        ServerOutcome::NotReached(_),
        ServerOutcome::Failed(_, failed),
    ] = outcomes.as_slice()
    else {
        panic!("{} outcomes", outcomes.len());
    };
    assert_eq!(*failed, fault);
    assert_eq!(servers.all_unreachable(now), Some(fault));
}
