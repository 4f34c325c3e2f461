//! What a layer with keys makes of messages that come again, too late, or in another order.

use super::*;
use crate::redis::wire::crypt::Crypt;
use crate::redis::wire::envelope::{Date, OutgoingBody, Seal};

/// The time at the server, in seconds.
const NOW: u64 = 1_000_000;

fn keys() -> Crypt {
    Crypt::new(["a secret"]).expect("there is a secret")
}

/// An entry from another process, with a deadline in seconds.
fn sealed(destination: &str, channel: &str, sequence: u64, deadline: u64) -> Vec<u8> {
    let (keys, header) = (
        keys(),
        Header {
            sender: OTHER,
            sequence,
            deadline: 0,
        },
    );
    let body = OutgoingBody::Direct {
        channel,
        payload: PAYLOAD,
    };
    let seal = Seal {
        crypt: &keys,
        now: 0,
    };
    let mut draft = envelope::encode(&header, body, Some(seal)).expect("it fits");
    let date = Date {
        now: deadline * 1000,
        expiry: 0,
        crypt: Some(&keys),
    };
    draft.date(&date, destination);
    draft.bytes().to_vec()
}

/// A layer that has keys, at a server that answers `TIME`.
async fn connected() -> Layer {
    let settings = Settings {
        crypt: Some(Arc::new(keys())),
        ..settings(Topology::Shards)
    };
    let layer = Layer::with(settings, Box::new(|words| Some(willing(words))));
    layer.set_clock("seed:1", NOW);
    layer.connect().await;
    layer
}

impl Layer {
    async fn comes_sealed(&self, channel: &str, sequence: u64, deadline: u64) {
        let own_topic = self.keys.process(ME);
        let payload = sealed(&own_topic, channel, sequence, deadline);
        self.push(|| Push::Message {
            topic: own_topic.clone().into_bytes(),
            payload: payload.clone(),
        });
        sleep(Duration::from_millis(1)).await;
    }

    fn depth(&self, channel: &str) -> usize {
        self.local.depth(channel)
    }
}

#[tokio::test(start_paused = true)]
async fn an_overtaken_message_is_delivered_once() {
    let layer = connected().await;
    let channel = format!("specific.{ME}!a");
    for (sequence, depth) in [(1, 1), (3, 2), (2, 3), (2, 3), (3, 3), (1, 3), (4, 4)] {
        layer.comes_sealed(&channel, sequence, NOW + 60).await;
        assert_eq!(layer.depth(&channel), depth, "{sequence}");
    }
    let stats = layer.shared.stats();
    assert_eq!((stats.gaps, stats.missed, stats.replayed), (1, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn no_clock_that_was_set_excuses_a_deadline() {
    let layer = connected().await;
    let channel = format!("specific.{ME}!a");
    // Long enough for the server to have answered since: without keys it would count as sent before its clock was set.
    sleep(Duration::from_secs(5)).await;
    for (sequence, deadline) in [(1, 0), (2, 1), (3, NOW), (4, NOW + 4)] {
        layer.comes_sealed(&channel, sequence, deadline).await;
    }
    assert_eq!(layer.depth(&channel), 0);
    assert_eq!(layer.shared.stats().late, 4);
    layer.comes_sealed(&channel, 5, NOW + 60).await;
    assert_eq!(layer.depth(&channel), 1);
    assert_eq!(layer.shared.stats().gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_was_taken_is_refused_after_its_queue_was_forgotten() {
    let layer = connected().await;
    let entry = sealed(&layer.keys.queue("work"), "work", 1, NOW + 600);
    for (ticket, replayed) in [(1, 0), (2, 1)] {
        let given = entry.clone();
        let left = Mutex::new(Some(Reply::BulkString(given)));
        layer.answering(move |words| {
            Some(match words.split(' ').next() {
                Some("LMOVE") => left.lock().take().unwrap_or(Reply::Nil),
                Some("LLEN") => Reply::Int(0),
                _ => willing(words),
            })
        });
        layer.ask(Ask::Fetch {
            channel: "work".to_owned(),
            most: 1,
            patient: false,
            ticket,
        });
        assert_eq!(layer.answer(ticket).await.queued, 1);
        assert_eq!(layer.shared.stats().replayed, replayed);
        assert_eq!(layer.shared.stats().fetched, 1);
        while let Ok(Some(_)) = layer.local.take("work") {}
        // Nobody uses it, so it is forgotten.
        sleep(Duration::from_secs(5)).await;
    }
}
