//! The answers of a server, and the meaning of its errors.

use redis::Value;

use crate::redis::fault::{Fault, FaultKind};

/// An answer of a server.
pub(crate) type Reply = Value;

/// The text of an answer that is one.
pub(super) fn text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Reply::SimpleString(text) | Reply::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// A server's error.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn of(reply: &Reply) -> Option<Self> {
        match reply {
            Value::ServerError(error) => Some(Self {
                code: error.code().to_owned(),
                detail: error.details().unwrap_or_default().to_owned(),
            }),
            _ => None,
        }
    }

    /// The slot and the server of a redirection: `MOVED slot host:port`, and `ASK` alike.
    pub(crate) fn elsewhere(&self) -> Option<(u16, String, u16)> {
        if self.code != "MOVED" && self.code != "ASK" {
            return None;
        }
        let (slot, address) = self.detail.split_once(' ')?;
        let (host, port) = address.rsplit_once(':')?;
        Some((slot.parse().ok()?, host.to_owned(), port.parse().ok()?))
    }

    /// Whether to retry in a while: nothing was done, and the refusal is temporary.
    pub(crate) fn passes(&self) -> bool {
        matches!(
            self.code.as_str(),
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "READONLY" | "MASTERDOWN"
        )
    }

    pub(crate) fn is_unknown_command(&self) -> bool {
        unknown_command(&self.code, &self.detail).is_some()
    }

    pub(crate) fn into_fault(self) -> Fault {
        let Self { code, detail } = self;
        // The right to end a transaction is missing.
        let (code, detail) = match detail.split_once("because of: NOPERM ") {
            Some((_, why)) if code == "EXECABORT" => ("NOPERM".to_owned(), why.to_owned()),
            _ => (code, detail),
        };
        if let Some(name) = unknown_command(&code, &detail) {
            return Fault::new(FaultKind::Lacking, no_such_command(name));
        }
        if detail.starts_with("Invalid stream ID") {
            let text = "the server does not number the entries of a stream: Redis 7.0 and newer and any Valkey do, and 'history' needs that";
            return Fault::new(FaultKind::Lacking, text);
        }
        let kind = match code.as_str() {
            "NOPERM" => FaultKind::Lacking,
            _ => FaultKind::Refused,
        };
        let advice = match code.as_str() {
            "NOPERM" => {
                ": the user's ACL has to allow it; docs/how-to/redis.md lists what is needed"
            }
            "NOAUTH" | "WRONGPASS" => ": give a username and a password",
            "OOM" => ": the server's memory is full",
            _ => "",
        };
        let text = format!("the server refused: {code} {detail}{advice}");
        Fault::new(kind, text)
    }
}

/// The command that a server reports as unknown. The rest of its text holds parts of messages.
fn unknown_command<'a>(code: &str, detail: &'a str) -> Option<&'a str> {
    let detail = detail
        .strip_prefix("unknown command")
        .filter(|_| code == "ERR")?;
    detail.split(['\'', '`']).nth(1)
}

fn no_such_command(name: &str) -> String {
    let since = match name {
        "HELLO" => "6.0",
        "LMOVE" => "6.2",
        "SPUBLISH" | "SSUBSCRIBE" | "SUNSUBSCRIBE" => "7.0",
        _ => {
            return format!(
                "the server has no command {name}: it may have been renamed or taken away"
            );
        }
    };
    format!(
        "the server has no command {name}: Redis {since} and newer and any Valkey have it, unless it was renamed or taken away"
    )
}
