//! Why a stream to a server became no connection, in words: its answer to the login, or that it speaks another protocol.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::dial::{SPEAKS_TLS, in_words, rustls_error, speaks_tls, tls_in_words};
use super::refusal::Refusal;
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::settings::{Endpoint, SocketAddress};

/// Why a server cannot be used, after `HELLO` was sent.
pub(super) async fn failed(endpoint: &Endpoint, error: &RedisError) -> Fault {
    let refusal = refusal(error);
    let refused = error.kind() == ErrorKind::AuthenticationFailed || error.code().is_some();
    let kind = if refused && !refusal.passes() {
        FaultKind::Refused
    } else {
        FaultKind::Unreachable
    };
    let text = match error.kind() {
        ErrorKind::AuthenticationFailed => {
            "the server refuses the user or the password: correct 'username' and 'password'".to_owned()
        }
        ErrorKind::Io | ErrorKind::Parse => no_answer(endpoint, error).await,
        ErrorKind::RESP3NotSupported => {
            "the server does not speak RESP3, which 'protocol' asks for: leave it out, or set it to 2"
                .to_owned()
        }
        _ if endpoint.database != 0 && is_about_database(&refusal.detail) => {
            no_database(endpoint.database, &refusal.detail)
        }
        _ if error.code().is_some() => refusal.into_fault().to_string(),
        _ => format!("the server could not be greeted ({})", error.category()),
    };
    Fault::new(kind, format!("{endpoint}: {text}"))
}

pub(super) fn refusal(error: &RedisError) -> Refusal {
    Refusal {
        code: error.code().unwrap_or_default().to_owned(),
        detail: error.detail().unwrap_or_default().to_owned(),
    }
}

async fn no_answer(endpoint: &Endpoint, error: &RedisError) -> String {
    let io = io_error(error);
    if let Some(error) = io.and_then(rustls_error) {
        return tls_in_words(error);
    }
    if let (None, SocketAddress::Tcp { host, port }) = (&endpoint.tls, &endpoint.socket)
        && speaks_tls(host, *port).await
    {
        return SPEAKS_TLS.to_owned();
    }
    match io {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => format!(
            "the connection was lost before the server answered: {}",
            in_words(error)
        ),
        Some(_) => {
            "the server closed the connection before it answered: its log says why; 'maxclients' may be reached".to_owned()
        }
        None => "what answers there does not speak the protocol of Redis: is it the right port?".to_owned(),
    }
}

/// The error of input or output that redis-rs keeps in its own.
fn io_error(error: &RedisError) -> Option<&io::Error> {
    let kept: &Arc<dyn std::error::Error + Send + Sync> = error.source()?.downcast_ref()?;
    kept.downcast_ref()
}

fn is_about_database(detail: &str) -> bool {
    let detail = detail.to_ascii_lowercase();
    detail.contains("db index") || detail.contains("select")
}

fn no_database(number: i64, detail: &str) -> String {
    if detail.contains("cluster") {
        return format!(
            "the server is part of a cluster, which has database 0 alone: leave the number {number} out, and give each project a \
             'prefix' of its own"
        );
    }
    if detail.to_ascii_lowercase().contains("db index") {
        return format!(
            "the server has no database {number} ('databases' in its configuration, in a cluster of Valkey 'cluster-databases', \
             says how many it has, 0 is the first): use a lower number"
        );
    }
    format!(
        "the server does not give database {number} ({detail}): leave the number out, and give each project a 'prefix'"
    )
}
