//! Listens to what a Sentinel publishes about its masters.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;

use super::super::backoff::Backoff;
use super::super::in_time::PROBE_TIMEOUT;
use super::super::transport::{Change, Link, Push, Transport};
use crate::redis::random;
use crate::redis::settings::Endpoint;

/// What is published when a Sentinel names another master from now on.
const SWITCHED: &str = "+switch-master";
/// What is published by the Sentinel that replaces a master, as soon as it names the new one. The message above may come
/// minutes later, when all other replicas follow that.
const PROMOTED: &str = "+failover-state-reconf-slaves";

/// The longest wait between two attempts to subscribe; each is drawn from zero to that, or to less at first. Until then the
/// Sentinel is asked.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long to wait after the Sentinel has refused: its user may be allowed to ask alone.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// How long the subscription may be silent until the Sentinel is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);

/// What the subscription says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// From now on, what the Sentinel publishes comes.
    Subscribed,
    /// It does not come any more.
    Lost,
    /// The Sentinel names another master of this name.
    Switched(String),
}

/// Why there is no subscription any more.
enum End {
    Lost,
    Refused,
}

/// The name of the master that a message is about.
fn subject(topic: &[u8], payload: &[u8]) -> Option<String> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    let name = if topic == SWITCHED.as_bytes() {
        // The name, then both addresses.
        words.next()
    } else if topic == PROMOTED.as_bytes() {
        // "master", the name, and the address.
        words.nth(1)
    } else {
        None
    };
    name.map(str::to_owned)
}

/// Subscribes, again and again, and tells what comes. It ends when it is aborted.
pub(super) async fn follow(
    transport: Arc<dyn Transport>,
    sentinel: Endpoint,
    tell: impl Fn(News) + Send + 'static,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let end = listen(&*transport, &sentinel, &tell, &mut backoff).await;
        tell(News::Lost);
        let wait = match end {
            End::Lost => backoff.next(random::fraction()),
            End::Refused => REFUSED_WAIT,
        };
        tokio::time::sleep(wait).await;
    }
}

async fn listen(
    transport: &dyn Transport,
    sentinel: &Endpoint,
    tell: &(impl Fn(News) + Send),
    backoff: &mut Backoff,
) -> End {
    let (sink, mut pushes) = unbounded_channel();
    let sink = Arc::new(move |push| {
        let _ = sink.send(push);
    });
    let opening = transport.open(sentinel, PROBE_TIMEOUT, Some(sink));
    let Ok(link) = opening.await else {
        return End::Lost;
    };
    let changes = [SWITCHED, PROMOTED].map(Change::join);
    let subscribing = link.change(&changes, false);
    match tokio::time::timeout(PROBE_TIMEOUT, subscribing).await {
        Ok(refused) if refused.is_empty() => {}
        // With RESP 2 a lost connection looks like a refusal without a code.
        Ok(refused) if refused.iter().all(|(_, why)| !why.code.is_empty()) => return End::Refused,
        Ok(_) | Err(_) => return End::Lost,
    }
    let mut confirmed = 0;
    loop {
        match tokio::time::timeout(SILENCE, pushes.recv()).await {
            Ok(Some(Push::Subscribed { .. })) => {
                confirmed += 1;
                if confirmed == changes.len() {
                    backoff.reset();
                    tell(News::Subscribed);
                }
            }
            Ok(Some(Push::Message { topic, payload })) => {
                if let Some(name) = subject(&topic, &payload) {
                    tell(News::Switched(name));
                }
            }
            Ok(Some(Push::Unsubscribed { .. } | Push::Lost) | None) => return End::Lost,
            Err(_silent) if is_there(&*link).await => {}
            Err(_silent) => return End::Lost,
        }
    }
}

async fn is_there(link: &dyn Link) -> bool {
    let answered = tokio::time::timeout(PROBE_TIMEOUT, link.ping()).await;
    answered.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_master() {
        let subject = |topic: &str, payload: &str| subject(topic.as_bytes(), payload.as_bytes());
        let main = Some("main".to_owned());
        assert_eq!(
            subject("+switch-master", "main 10.0.0.1 6379 10.0.0.2 6380"),
            main
        );
        assert_eq!(
            subject("+failover-state-reconf-slaves", "master main 10.0.0.1 6379"),
            main
        );
        assert_eq!(subject("+sdown", "master main 10.0.0.1 6379"), None);
        assert_eq!(subject("+failover-state-reconf-slaves", "master"), None);
        assert_eq!(super::subject(b"+switch-master", b"\xff 10.0.0.1"), None);
    }
}
