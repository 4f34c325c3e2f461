//! Finds out where to connect, and connects: to a server, to the master that the Sentinels name, and to a server that
//! knows the map of a cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::command::Command;
use super::in_time::in_time;
use super::refusal::{Refusal, Reply, text};
use super::sentinel::{Address, Master};
use super::server_clock::Reading;
use super::transport::{Link, PushSink, Transport};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::settings::Endpoint;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The reply to a look at the map.
#[derive(Debug)]
pub(crate) enum MapReply {
    NoCluster,
    Slots(Vec<SlotRange>),
}

/// An open connection.
pub(crate) struct Opened {
    pub(crate) link: Arc<dyn Link>,
    /// Where to, if a Sentinel named the address.
    pub(crate) address: Option<Address>,
    /// What time it is there, if that was asked and answered.
    pub(crate) time: Option<Reading>,
}

/// Opens a connection to a server, or to the master that the Sentinels name.
pub(crate) async fn open(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    master: Option<&Master>,
    timeout: Duration,
    pushes: Option<PushSink>,
) -> Result<Opened, Fault> {
    let Some(master) = master else {
        let link = transport.open(endpoint, timeout, pushes).await?;
        return Ok(Opened {
            link,
            address: None,
            time: None,
        });
    };
    let mut last = None;
    for sentinel in master.sentinels() {
        let opened = match sentinel.ask(master.name(), timeout).await {
            Ok(address) => {
                let endpoint = endpoint.at(&address.0, address.1);
                let opening = open_master(transport, &endpoint, timeout, pushes.clone()).await;
                opening.map(|link| Opened {
                    link,
                    address: Some(address),
                    time: None,
                })
            }
            Err(fault) => Err(fault),
        };
        match opened {
            Ok(opened) => return Ok(opened),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(FaultKind::Unreachable, "no Sentinel is given")))
}

/// The address of the master that the Sentinels name, if the connections go elsewhere. A master that was replaced may not
/// know that for seconds, and loses what is written to it until then. `calm` is whether all servers are reachable.
pub(crate) async fn successor(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    master: &Master,
    known: &[Address],
    timeout: Duration,
    calm: bool,
) -> Option<Address> {
    let news = master.latest_news();
    for sentinel in master.sentinels() {
        let looking = sentinel.look_up(master.name(), timeout, news, calm);
        let Ok(address) = looking.await else {
            continue;
        };
        if known.iter().all(|known| *known == address) {
            return None;
        }
        // The Sentinel may be out of date, so the new master has to confirm its role.
        let endpoint = endpoint.at(&address.0, address.1);
        if open_master(transport, &endpoint, timeout, None)
            .await
            .is_ok()
        {
            return Some(address);
        }
    }
    None
}

/// A Sentinel may not have noticed yet that its master is none any more.
async fn open_master(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    timeout: Duration,
    pushes: Option<PushSink>,
) -> Result<Arc<dyn Link>, Fault> {
    let asks = pushes.is_none();
    let link = transport.open(endpoint, timeout, pushes).await?;
    if asks {
        let replies = in_time(timeout, link.request(&[&Command::new("ROLE")])).await?;
        if !is_master(replies.first()) {
            let text = format!("{endpoint} is no master yet, or no longer");
            return Err(Fault::new(FaultKind::Unreachable, text));
        }
    }
    Ok(link)
}

/// The role that a server reports. One that reports none counts as a master.
fn is_master(reply: Option<&Reply>) -> bool {
    role(reply).is_none_or(|role| role == "master")
}

fn role(reply: Option<&Reply>) -> Option<String> {
    match reply {
        Some(Reply::Array(words)) => words.first().and_then(text),
        _ => None,
    }
}

/// Opens a connection for requests. It is not usable before the time of the server is known.
pub(crate) async fn open_writer(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    master: Option<&Master>,
    timeout: Duration,
) -> Result<Opened, Fault> {
    let opened = open(transport, endpoint, master, timeout, None).await?;
    let time = time_at(&*opened.link, timeout).await?;
    if time.is_none() {
        // A Sentinel does not answer `TIME`, nor does a server whose user may not run it.
        refuse_sentinel(&*opened.link, endpoint, timeout).await?;
    }
    Ok(Opened { time, ..opened })
}

async fn refuse_sentinel(
    link: &dyn Link,
    endpoint: &Endpoint,
    timeout: Duration,
) -> Result<(), Fault> {
    let replies = in_time(timeout, link.request(&[&Command::new("ROLE")])).await?;
    if role(replies.first()).as_deref() != Some("sentinel") {
        return Ok(());
    }
    let text = format!(
        "{endpoint} is a Sentinel, which keeps no messages: give it in 'sentinels', with the 'master_name', or give the server"
    );
    Err(Fault::new(FaultKind::Refused, text))
}

/// What time it is at a server; none if it refuses: the user may not be allowed to ask.
pub(crate) async fn time_at(link: &dyn Link, timeout: Duration) -> Result<Option<Reading>, Fault> {
    let asked = Instant::now();
    let replies = in_time(timeout, link.request(&[&Command::new("TIME")])).await?;
    Ok(Reading::new(asked, Instant::now(), replies.first()))
}

/// Asks one server after the other for the map, until one knows.
pub(crate) async fn look(
    transport: Arc<dyn Transport>,
    candidates: Vec<Endpoint>,
    timeout: Duration,
    must_be_cluster: bool,
) -> Result<MapReply, Fault> {
    let mut last = None;
    for endpoint in candidates {
        match look_at(&*transport, &endpoint, timeout, must_be_cluster).await {
            Ok(found) => return Ok(found),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(FaultKind::Unreachable, "no server is given")))
}

async fn look_at(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    timeout: Duration,
    must_be_cluster: bool,
) -> Result<MapReply, Fault> {
    let link = transport.open(endpoint, timeout, None).await?;
    let ask = Command::new("CLUSTER").word("SLOTS");
    let replies = in_time(timeout, link.request(&[&ask])).await?;
    if let Some(refusal) = replies.first().and_then(Refusal::of) {
        if must_be_cluster || refusal.passes() {
            return Err(refusal.into_fault());
        }
        return Ok(MapReply::NoCluster);
    }
    let slots = slots(replies.first(), endpoint);
    if slots.is_empty() {
        let text = format!("{endpoint} knows of no server that has slots");
        return Err(Fault::new(FaultKind::Unreachable, text));
    }
    Ok(MapReply::Slots(slots))
}

/// Reads the answer to `CLUSTER SLOTS`; a master without a name is the one that was asked.
fn slots(reply: Option<&Reply>, asked: &Endpoint) -> Vec<SlotRange> {
    let Some(Reply::Array(ranges)) = reply else {
        return Vec::new();
    };
    let range = |reply: &Reply| {
        let Reply::Array(words) = reply else {
            return None;
        };
        let number = |word: Option<&Reply>| match word {
            Some(Reply::Int(number)) => u16::try_from(*number).ok(),
            _ => None,
        };
        let Some(Reply::Array(master)) = words.get(2) else {
            return None;
        };
        let host = master
            .first()
            .and_then(text)
            .filter(|host| !host.is_empty() && host != "?");
        Some(SlotRange {
            first: number(words.first())?,
            last: number(words.get(1))?,
            host: host.unwrap_or_else(|| asked.socket.host().unwrap_or_default().to_owned()),
            port: number(master.get(1))?,
        })
    };
    let mut slots: Vec<SlotRange> = ranges.iter().filter_map(range).collect();
    slots.sort_by_key(|range| range.first);
    slots
}

#[cfg(test)]
mod tests;
