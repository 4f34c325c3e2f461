use std::sync::atomic::AtomicUsize;

use super::super::probe;
use super::super::transport::{BoxFuture, Change, Push, PushSink};
use super::*;
use crate::redis::settings::{Certificates, Protocol, SocketAddress, Tls};

/// A Sentinel without a socket. Its connections may break after their first answer.
#[derive(Default)]
struct Fake {
    /// Who connected to ask, and to subscribe.
    connections: AtomicUsize,
    subscribers: AtomicUsize,
    asked: AtomicUsize,
    breaks: AtomicBool,
    refusing: AtomicBool,
    port: Mutex<u16>,
    /// The Sentinels that name this port instead, by their hosts.
    other_ports: Mutex<HashMap<String, u16>>,
    sinks: Mutex<Vec<(String, PushSink)>>,
}

struct FakeTransport(Arc<Fake>);

struct FakeLink {
    fake: Arc<Fake>,
    host: String,
    answers: AtomicUsize,
    pushes: Option<PushSink>,
}

impl Fake {
    fn publish(&self, topic: &str, payload: &str) {
        self.publish_at("sentinel", topic, payload);
    }

    /// What the Sentinel at this host publishes.
    fn publish_at(&self, host: &str, topic: &str, payload: &str) {
        for (_, sink) in self.sinks.lock().iter().filter(|(at, _)| at == host) {
            sink(Push::Message {
                topic: topic.as_bytes().to_vec(),
                payload: payload.as_bytes().to_vec(),
            });
        }
    }

    /// How often it was asked since this was last called.
    fn take_asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

impl Transport for FakeTransport {
    fn open(
        &self,
        endpoint: &Endpoint,
        _timeout: Duration,
        pushes: Option<PushSink>,
    ) -> BoxFuture<Result<Arc<dyn Link>, Fault>> {
        let fake = Arc::clone(&self.0);
        let count = match pushes {
            Some(_) => &fake.subscribers,
            None => &fake.connections,
        };
        count.fetch_add(1, Ordering::SeqCst);
        let breaks = fake.breaks.load(Ordering::SeqCst);
        let answers = AtomicUsize::new(if breaks { 1 } else { usize::MAX });
        let host = endpoint.socket.host().unwrap_or_default().to_owned();
        Box::pin(async move {
            // As any connection, it takes some time.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if fake.refusing.load(Ordering::SeqCst) {
                return Err(Fault::new(FaultKind::Unreachable, "nobody is there"));
            }
            let sink = pushes.clone().map(|sink| (host.clone(), sink));
            fake.sinks.lock().extend(sink);
            let link = FakeLink {
                fake,
                host,
                answers,
                pushes,
            };
            Ok(Arc::new(link) as Arc<dyn Link>)
        })
    }
}

impl Link for FakeLink {
    fn request(&self, _commands: &[&Command]) -> BoxFuture<Result<Vec<Reply>, Fault>> {
        self.fake.asked.fetch_add(1, Ordering::SeqCst);
        let left = |left: usize| left.checked_sub(1);
        let left = self
            .answers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        let word = |text: &str| Reply::BulkString(text.as_bytes().to_vec());
        let other = self.fake.other_ports.lock().get(&self.host).copied();
        let port = other.unwrap_or(*self.fake.port.lock()).to_string();
        let master = Reply::Array(vec![word("master"), word(&port)]);
        let lost = |_| Fault::new(FaultKind::Lost, "the connection was lost");
        Box::pin(async move {
            // Others may ask before the answer has come.
            tokio::time::sleep(Duration::from_millis(1)).await;
            left.map(|_| vec![master]).map_err(lost)
        })
    }

    fn change(&self, changes: &[Change], _sharded: bool) -> BoxFuture<Vec<(usize, Refusal)>> {
        for change in changes {
            if let Some(pushes) = &self.pushes {
                let topic = change.topic.clone().into_bytes();
                pushes(Push::Subscribed { topic });
            }
        }
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

fn endpoint(host: &str) -> Endpoint {
    Endpoint {
        socket: SocketAddress::tcp(host, 26379),
        username: None,
        password: None,
        credentials: None,
        database: 0,
        tls: None,
        protocol: Protocol::Newest,
    }
}

fn server(name: &str) -> Server {
    Server {
        endpoint: endpoint(""),
        sentinels: vec![endpoint("sentinel")],
        master_name: Some(name.to_owned()),
    }
}

/// The layers of one process.
struct Process {
    fake: Arc<Fake>,
    transport: Arc<dyn Transport>,
    sentinels: Sentinels,
}

impl Process {
    fn new() -> Self {
        let fake = Arc::new(Fake::default());
        Self {
            transport: Arc::new(FakeTransport(Arc::clone(&fake))),
            fake,
            sentinels: Sentinels::default(),
        }
    }

    /// The master as a layer follows it.
    fn follow(&self, name: &str) -> Master {
        let master = self.sentinels.master(&self.transport, &server(name));
        master.expect("it is behind Sentinels")
    }
}

async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// What a layer does once a second.
async fn look_up(master: &Master) -> Result<u16, Fault> {
    let (sentinel, news) = (master.sentinels()[0], master.latest_news());
    let address = sentinel.look_up(master.name(), PROBE_TIMEOUT, news, true);
    Ok(address.await?.1)
}

/// What many layers do in the same moment.
async fn look_up_all(masters: &[Master]) -> Vec<Result<u16, Fault>> {
    futures_util::future::join_all(masters.iter().map(look_up)).await
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_made_again() {
    for (breaks, connections) in [(false, 1), (true, 10)] {
        let process = Process::new();
        process.fake.breaks.store(breaks, Ordering::SeqCst);
        let master = process.follow("main");
        for _ in 0..10 {
            let asked = master.sentinels()[0].ask("main", PROBE_TIMEOUT).await;
            asked.expect("it answers");
        }
        let made = process.fake.connections.load(Ordering::SeqCst);
        assert_eq!(made, connections);
    }
}

#[tokio::test(start_paused = true)]
async fn many_layers_cost_a_sentinel_no_more_than_one() {
    for layers in [1, 16] {
        let process = Process::new();
        let masters: Vec<Master> = (0..layers).map(|_| process.follow("main")).collect();
        pass(Duration::from_secs(1)).await;
        for _ in 0..60 {
            for found in look_up_all(&masters).await {
                assert_eq!(found, Ok(0));
            }
            pass(Duration::from_secs(1)).await;
        }
        let asked = process.fake.take_asked();
        assert!((10..=12).contains(&asked), "{asked} in a minute");
        assert_eq!(process.fake.connections.load(Ordering::SeqCst), 1);
        assert_eq!(process.fake.subscribers.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_wakes_those_who_follow_the_master_and_one_of_them_asks() {
    let process = Process::new();
    let masters = [process.follow("main"), process.follow("main")];
    let other = process.follow("other");
    pass(Duration::from_secs(1)).await;
    look_up_all(&masters).await;
    let mut news: Vec<_> = masters.iter().flat_map(Master::news).collect();
    let mut of_other = other.news();
    process.fake.take_asked();
    *process.fake.port.lock() = 1;
    process
        .fake
        .publish("+switch-master", "main 10.0.0.1 0 10.0.0.2 1");
    let began = Instant::now();
    for news in &mut news {
        news.changed().await.expect("the Sentinel is there");
    }
    assert_eq!(look_up_all(&masters).await, [Ok(1), Ok(1)]);
    assert!(began.elapsed() < Duration::from_millis(10));
    assert_eq!(process.fake.take_asked(), 1);
    assert!(!of_other[0].has_changed().expect("it is there"));
    process
        .fake
        .publish("+failover-state-reconf-slaves", "master other 10.0.0.1 0");
    of_other[0].changed().await.expect("the Sentinel is there");
}

#[tokio::test(start_paused = true)]
async fn the_sentinel_that_has_published_another_master_is_asked_first() {
    let process = Process::new();
    let server = Server {
        sentinels: ["one", "two", "three"].map(endpoint).to_vec(),
        ..server("main")
    };
    let master = process.sentinels.master(&process.transport, &server);
    let master = master.expect("it is behind Sentinels");
    pass(Duration::from_secs(1)).await;
    let (to, at) = (&*process.transport, &server.endpoint);
    let opened = probe::open(to, at, Some(&master), PROBE_TIMEOUT, None).await;
    let address = opened.expect("it answers").address;
    assert_eq!(address, Some(("master".to_owned(), 0)));
    let known: Vec<Address> = address.into_iter().collect();
    process
        .fake
        .other_ports
        .lock()
        .insert("three".to_owned(), 1);
    let mut news = master.news();
    process
        .fake
        .publish_at("three", "+switch-master", "main 10.0.0.1 0 10.0.0.2 1");
    news[2].changed().await.expect("the Sentinel is there");
    let found = probe::successor(to, at, &master, &known, PROBE_TIMEOUT, true).await;
    let new = Some(("master".to_owned(), 1));
    assert_eq!(found, new);
    let opened = probe::open(to, at, Some(&master), PROBE_TIMEOUT, None).await;
    assert_eq!(opened.expect("it answers").address, new);
    let order = master.sentinels();
    let order = order.iter().map(|sentinel| sentinel.endpoint.socket.host());
    assert!(order.eq([Some("three"), Some("one"), Some("two")]));
}

#[tokio::test(start_paused = true)]
async fn a_master_whose_message_was_lost_is_found_by_one_layer_for_all() {
    let process = Process::new();
    let masters = [process.follow("main"), process.follow("main")];
    pass(Duration::from_secs(1)).await;
    look_up_all(&masters).await;
    *process.fake.port.lock() = 1;
    let mut news = masters[1].news();
    let began = Instant::now();
    while look_up(&masters[0]).await != Ok(1) {
        pass(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() <= Duration::from_secs(6));
    assert!(news[0].has_changed().expect("the Sentinel is there"));
    news[0].borrow_and_update();
    assert_eq!(look_up(&masters[1]).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_sentinel_that_publishes_nothing_is_asked_every_second() {
    let process = Process::new();
    let master = process.follow("main");
    pass(Duration::from_secs(1)).await;
    look_up(&master).await.expect("it answers");
    process.fake.refusing.store(true, Ordering::SeqCst);
    for (_, sink) in process.fake.sinks.lock().iter() {
        sink(Push::Lost);
    }
    process.fake.take_asked();
    for _ in 0..10 {
        pass(Duration::from_secs(1)).await;
        look_up(&master).await.expect("it answers");
    }
    assert_eq!(process.fake.take_asked(), 10);
    // What it published meanwhile may be missing.
    let mut news = master.news();
    let before = process.fake.subscribers.load(Ordering::SeqCst);
    process.fake.refusing.store(false, Ordering::SeqCst);
    news[0].changed().await.expect("it subscribes again");
    assert!(process.fake.subscribers.load(Ordering::SeqCst) > before);
    look_up(&master).await.expect("it answers");
    assert_eq!(process.fake.take_asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_connection_share_its_failure() {
    let process = Process::new();
    process.fake.refusing.store(true, Ordering::SeqCst);
    let masters: Vec<Master> = (0..16).map(|_| process.follow("main")).collect();
    let asking = masters
        .iter()
        .map(|master| master.sentinels()[0].ask("main", PROBE_TIMEOUT));
    let asked = futures_util::future::join_all(asking).await;
    assert!(asked.iter().all(Result::is_err));
    assert_eq!(process.fake.connections.load(Ordering::SeqCst), 1);
    assert!(look_up_all(&masters).await.iter().all(Result::is_err));
    assert_eq!(process.fake.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn the_subscription_ends_with_its_last_user() {
    let process = Process::new();
    let (first, last) = (process.follow("main"), process.follow("other"));
    pass(Duration::from_secs(1)).await;
    drop(first);
    let (_, sink) = process.fake.sinks.lock().pop().expect("it subscribes");
    assert_eq!(Arc::strong_count(&sink), 2, "the connection has the other");
    drop(last);
    pass(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&sink), 1);
    drop(process.follow("main"));
    assert_eq!(
        process.sentinels.0.lock().len(),
        1,
        "the former is forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sentinel_is_shared_by_those_who_log_in_alike() {
    let process = Process::new();
    let at = |endpoint: &Endpoint| process.sentinels.at(&process.transport, endpoint);
    let plain = at(&endpoint("sentinel"));
    assert!(Arc::ptr_eq(&plain, &at(&endpoint("sentinel"))));
    let with_password = Endpoint {
        password: Some("secret".to_owned()),
        ..endpoint("sentinel")
    };
    let encrypted = |authorities: &[u8]| Endpoint {
        tls: Some(Tls {
            verify: true,
            verify_hostname: true,
            certificates: Certificates {
                authorities: Some(authorities.to_vec()),
                identity: None,
            },
            source: None,
        }),
        ..endpoint("sentinel")
    };
    let others = [
        endpoint("another"),
        with_password,
        encrypted(b"one"),
        encrypted(b"two"),
    ];
    let made: Vec<_> = others.iter().map(at).collect();
    for (endpoint, sentinel) in others.iter().zip(&made) {
        assert!(Arc::ptr_eq(sentinel, &at(endpoint)));
    }
    assert_eq!(process.sentinels.0.lock().len(), 5);
}
