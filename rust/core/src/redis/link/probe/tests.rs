use super::*;
use crate::redis::settings::{Protocol, SocketAddress};

fn endpoint() -> Endpoint {
    Endpoint {
        socket: SocketAddress::tcp("asked", 1),
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
