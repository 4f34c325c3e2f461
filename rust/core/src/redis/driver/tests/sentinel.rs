//! Masters that Sentinels name.

use super::*;
use crate::redis::settings::Server;

/// Settings of a layer whose master is known to two Sentinels.
fn behind_sentinels() -> Settings {
    let at = |host: &str| testing::endpoint().at(host, 26379);
    Settings {
        hosts: vec![Server {
            endpoint: testing::endpoint(),
            sentinels: vec![at("one"), at("two")],
            master_name: Some("main".to_owned()),
        }],
        ..settings(Topology::Shards)
    }
}

/// The answers of servers and Sentinels while the master is at this host.
fn answers(master: &'static str) -> impl Fn(&str) -> Option<Reply> + Send + Sync {
    let word = |text: &str| Reply::BulkString(text.as_bytes().to_vec());
    move |words| {
        Some(match words.split(' ').next() {
            Some("SENTINEL") => Reply::Array(vec![word(master), word("6379")]),
            Some("ROLE") => Reply::Array(vec![word("master")]),
            _ => willing(words),
        })
    }
}

impl Layer {
    /// Sends a message; returns the server that got it.
    async fn server_of(&self, ticket: u32) -> String {
        assert_eq!(self.send("work", ticket).await.fault, None);
        self.asked("RPUSH").pop().expect("one was sent")
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_follows_at_once_when_a_sentinel_publishes_another_master() {
    let layer = Layer::with(behind_sentinels(), Box::new(answers("a")));
    layer.connect().await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(layer.server_of(1).await, "a:6379");
    layer.answering(answers("b"));
    layer.push(|| Push::Message {
        topic: b"+switch-master".to_vec(),
        payload: b"main a 6379 b 6379".to_vec(),
    });
    sleep(Duration::from_millis(1)).await;
    assert_eq!(layer.server_of(2).await, "b:6379");
}

#[tokio::test(start_paused = true)]
async fn a_layer_follows_after_some_seconds_when_the_message_is_lost() {
    let layer = Layer::with(behind_sentinels(), Box::new(answers("a")));
    layer.connect().await;
    sleep(Duration::from_secs(2)).await;
    layer.answering(answers("b"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(layer.server_of(1).await, "a:6379", "it asks seldom");
    sleep(Duration::from_secs(6)).await;
    assert_eq!(layer.server_of(2).await, "b:6379");
}

#[tokio::test(start_paused = true)]
async fn the_sentinels_are_asked_every_second_while_a_server_is_unreachable() {
    for (is_gone, asks) in [(false, 1..=2), (true, 9..=11)] {
        let mut settings = behind_sentinels();
        let endpoint = testing::endpoint().at("another", 1);
        let address = endpoint.to_string();
        settings.hosts.push(Server {
            endpoint,
            sentinels: Vec::new(),
            master_name: None,
        });
        let layer = Layer::with(settings, Box::new(answers("a")));
        if is_gone {
            layer.servers.gone.lock().insert(address);
        }
        // Some of them are for one of the servers, and some for the other.
        for queue in 0..10 {
            layer.begin_to_send(&format!("work-{queue}"), queue);
        }
        sleep(Duration::from_secs(2)).await;
        let before = layer.asked("SENTINEL").len();
        sleep(Duration::from_secs(10)).await;
        let asked = layer.asked("SENTINEL").len() - before;
        assert!(asks.contains(&asked), "{asked}");
    }
}
