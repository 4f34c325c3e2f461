//! What is taken out of queues.

use super::*;
use crate::memory::Received;

impl Layer {
    /// Adds a receiver that waits for a message of a queue.
    async fn wait(&self, channel: &str, waiter: u32) {
        let waiting = self.local.wait(channel, waiter, None);
        assert!(matches!(waiting, Ok(Received::Waiting)));
        let channel = channel.to_owned();
        self.ask(Ask::Want { channel });
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_come_does_not_come_again_from_a_server_that_takes_over_late() {
    let layer = Layer::connected(Topology::Shards, Box::new(|words| Some(willing(words)))).await;
    let held = Arc::new(Mutex::new(vec![entry("work", OTHER, 1)]));
    let queue = Arc::clone(&held);
    layer.answering(move |words| {
        Some(match words.split(' ').next() {
            Some("LMOVE") => queue.lock().pop().map_or(Reply::Nil, Reply::BulkString),
            Some("LLEN") => Reply::Int(0),
            _ => willing(words),
        })
    });
    layer.wait("work", 7).await;
    assert_eq!(*layer.world.received.lock(), [(7, PAYLOAD.to_vec())]);
    // Meanwhile nobody waits, and nothing is there.
    sleep(Duration::from_secs(30)).await;
    // It does not know yet that the first was taken.
    held.lock()
        .extend([entry("work", OTHER, 2), entry("work", OTHER, 1)]);
    layer.wait("work", 8).await;
    layer.wait("work", 9).await;
    let received = layer.world.received.lock().clone();
    assert_eq!(received, [7, 8].map(|waiter| (waiter, PAYLOAD.to_vec())));
}
