//! Deadlines by the clocks of servers.

use super::*;

/// An hour after the epoch, at "seed:1"; the machine that the tests run on is decades ahead.
const HOUR: u64 = 3600;

#[tokio::test(start_paused = true)]
async fn what_is_sent_before_there_is_a_connection_is_dated_by_the_server() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", HOUR);
    layer.send(&format!("specific.{OTHER}!a"), 1).await;
    layer.send("work", 2).await;
    assert_eq!(layer.deadlines("seed:1"), [HOUR + 60, HOUR + 60]);
}

#[tokio::test(start_paused = true)]
async fn each_server_has_a_clock_of_its_own() {
    let mut settings = settings(Topology::Shards);
    let mut second = settings.hosts[0].clone();
    second.endpoint = second.endpoint.at("second", 1);
    settings.hosts.push(second);
    let layer = willing_layer(settings);
    layer.set_clock("seed:1", HOUR);
    layer.set_clock("second:1", 2 * HOUR);
    layer.connect().await;
    for ticket in 0..8 {
        layer.send(&format!("work-{ticket}"), ticket).await;
    }
    for (server, time) in [("seed:1", HOUR), ("second:1", 2 * HOUR)] {
        let deadlines = layer.deadlines(server);
        assert!(!deadlines.is_empty());
        assert!(
            deadlines.iter().all(|deadline| *deadline == time + 60),
            "{deadlines:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_clock_that_is_set_is_followed_and_reported() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", HOUR);
    layer.connect().await;
    layer.set_clock("seed:1", 2 * HOUR);
    sleep(Duration::from_secs(2)).await;
    layer.send("work", 1).await;
    assert_eq!(layer.deadlines("seed:1"), [2 * HOUR + 62]);
    let Some(Notice::ClockSet {
        server,
        milliseconds,
    }) = layer.shared.notices.next(Duration::ZERO)
    else {
        panic!("there was no notice")
    };
    assert_eq!(server, "seed:1");
    // An hour, less what had passed since it connected.
    assert!(
        (3_599_000..3_600_000).contains(&milliseconds),
        "{milliseconds}"
    );
    assert_eq!(layer.shared.notices.next(Duration::ZERO), None);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_late_by_the_clock_of_its_server_alone() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", HOUR);
    layer.connect().await;
    let channel = format!("specific.{ME}!a");
    // The server has sent something within the last second, and what expired in that time may have been sent before.
    sleep(Duration::from_millis(10_900)).await;
    layer.comes(&channel, 1, HOUR + 11).await;
    assert_eq!(
        (layer.local.depth(&channel), layer.shared.stats().late),
        (1, 0)
    );
    sleep(Duration::from_secs(1)).await;
    layer.comes(&channel, 2, HOUR + 11).await;
    layer.comes(&channel, 3, HOUR + 11).await;
    assert_eq!(
        (layer.local.depth(&channel), layer.shared.stats().late),
        (1, 2)
    );
    assert_eq!(
        layer.shared.notices.next(Duration::ZERO),
        Some(Notice::Late)
    );
    assert_eq!(layer.shared.notices.next(Duration::ZERO), None);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_sent_just_now_is_not_late_whatever_a_clock_shows() {
    let layer = willing_layer(settings(Topology::Shards));
    layer.set_clock("seed:1", 2 * HOUR);
    layer.connect().await;
    let channel = format!("specific.{ME}!a");
    sleep(Duration::from_secs(10)).await;
    // Its sender does not know yet that the server's clock was set forward by an hour.
    layer.comes(&channel, 1, HOUR + 70).await;
    assert_eq!(
        (layer.local.depth(&channel), layer.shared.stats().late),
        (1, 0)
    );
}
