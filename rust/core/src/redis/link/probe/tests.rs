use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::transport::{BoxFuture, Change};
use super::*;
use crate::redis::settings::Protocol;

fn endpoint() -> Endpoint {
    Endpoint {
        host: "asked".to_owned(),
        port: 1,
        path: None,
        username: None,
        password: None,
        credentials: None,
        database: 0,
        tls: None,
        protocol: Protocol::Newest,
    }
}

fn range(first: i64, last: i64, host: &str, port: i64) -> Reply {
    let master = Reply::Array(vec![
        Reply::BulkString(host.as_bytes().to_vec()),
        Reply::Int(port),
        Reply::BulkString(b"id".to_vec()),
    ]);
    Reply::Array(vec![Reply::Int(first), Reply::Int(last), master])
}

#[test]
fn the_map_is_read_in_the_order_of_slots() {
    let reply = Reply::Array(vec![
        range(8192, 16383, "b", 7001),
        range(0, 8191, "", 7000),
        Reply::Nil,
        range(5, 70_000, "nonsense", 7002),
    ]);
    let expected = vec![
        SlotRange {
            first: 0,
            last: 8191,
            host: "asked".to_owned(),
            port: 7000,
        },
        SlotRange {
            first: 8192,
            last: 16383,
            host: "b".to_owned(),
            port: 7001,
        },
    ];
    assert_eq!(slots(Some(&reply), &endpoint()), expected);
    assert_eq!(slots(Some(&Reply::Nil), &endpoint()), Vec::new());
    assert_eq!(slots(None, &endpoint()), Vec::new());
}

#[test]
fn only_a_server_that_reports_otherwise_is_no_master() {
    let role = |role: &str| Reply::Array(vec![Reply::BulkString(role.as_bytes().to_vec())]);
    assert!(is_master(Some(&role("master"))));
    assert!(!is_master(Some(&role("slave"))));
    assert!(is_master(Some(&Reply::Nil)));
    assert!(is_master(None));
}

/// A Sentinel that names the master, and counts who connects. Its connections may break after their first answer.
#[derive(Clone, Default)]
struct Sentinel {
    connections: Arc<AtomicUsize>,
    breaks: bool,
}

struct SentinelLink {
    answers: AtomicUsize,
}

impl Transport for Sentinel {
    fn open(
        &self,
        _endpoint: &Endpoint,
        _timeout: Duration,
        _pushes: Option<PushSink>,
    ) -> BoxFuture<Result<Arc<dyn Link>, Fault>> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let answers = AtomicUsize::new(if self.breaks { 1 } else { usize::MAX });
        Box::pin(async move { Ok(Arc::new(SentinelLink { answers }) as Arc<dyn Link>) })
    }
}

impl Link for SentinelLink {
    fn request(&self, _commands: &[Command]) -> BoxFuture<Result<Vec<Reply>, Fault>> {
        let left = |left: usize| left.checked_sub(1);
        let answers = &self.answers;
        let left = answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        let word = |text: &str| Reply::BulkString(text.as_bytes().to_vec());
        let master = Reply::Array(vec![word("master"), word("6379")]);
        let lost = |_| Fault::new(FaultKind::Lost, "the connection was lost");
        Box::pin(async move {
            // Others may ask before the answer has come.
            tokio::task::yield_now().await;
            left.map(|_| vec![master]).map_err(lost)
        })
    }

    fn change(&self, _changes: &[Change], _sharded: bool) -> BoxFuture<Vec<(usize, Refusal)>> {
        Box::pin(async { Vec::new() })
    }

    fn ping(&self) -> BoxFuture<bool> {
        Box::pin(async { true })
    }

    fn can_shard(&self) -> bool {
        false
    }

    fn ended(&self) -> Option<BoxFuture<()>> {
        None
    }
}

fn behind_a_sentinel() -> Server {
    Server {
        endpoint: endpoint(),
        sentinels: vec![endpoint()],
        master_name: Some("mymaster".to_owned()),
    }
}

/// How many connections are made to ask ten times for a master that stays.
async fn connections(breaks: bool) -> usize {
    let sentinel = Sentinel {
        breaks,
        ..Sentinel::default()
    };
    let server = behind_a_sentinel();
    let (kept, known) = (Sentinels::default(), [("master".to_owned(), 6379)]);
    for _ in 0..10 {
        let found = successor(&sentinel, &kept, &server, &known, PROBE_TIMEOUT).await;
        assert_eq!(found, None);
    }
    sentinel.connections.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_sentinel_is_asked_again_and_again_on_one_connection() {
    assert_eq!(connections(false).await, 1);
    assert_eq!(connections(true).await, 10, "none is asked that is lost");
}

#[tokio::test]
async fn a_sentinel_of_several_servers_is_asked_for_all_on_one_connection() {
    let (sentinel, server, kept) = (
        Sentinel::default(),
        behind_a_sentinel(),
        Sentinels::default(),
    );
    let known = [("master".to_owned(), 6379)];
    let ask = || successor(&sentinel, &kept, &server, &known, PROBE_TIMEOUT);
    assert_eq!(ask().await, None);
    assert_eq!(tokio::join!(ask(), ask(), ask()), (None, None, None));
    assert_eq!(sentinel.connections.load(Ordering::SeqCst), 1);
}
