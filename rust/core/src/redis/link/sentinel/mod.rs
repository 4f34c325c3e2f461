//! The Sentinels, which name the masters. All layers of a process share them.
//!
//! A process has two connections to a Sentinel, however many layers follow a master there: one on which it asks, and one on
//! which the Sentinel publishes that a master changes. Each layer looks up its master once a second. Most of these look-ups
//! take the answer that there is, which is good for some seconds while the Sentinel publishes, and for less than one
//! otherwise. Whatever the Sentinel publishes about a master ends that, and wakes the layers that follow the master: the
//! first one asks, and the others take the answer that it gets.
//!
//! A message of the Sentinel may be lost. Then the next look-up that asks finds the new master. Its answer is published here
//! in the same way, so that all layers follow as soon as one has found out.
//!
//! Sentinels do not all know of a new master at once. So the one that published it is asked before all others, by those who look
//! it up and by those who connect.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::answer::Answer;
use self::subscription::{News, follow};
use super::command::Command;
use super::in_time::{PROBE_TIMEOUT, in_time};
use super::refusal::{Refusal, Reply, text};
use super::transport::{Link, Transport};
use crate::redis::fault::{Fault, FaultKind};
use crate::redis::settings::{Endpoint, Server};
use crate::sync::Mutex;

mod answer;
mod subscription;

pub(crate) use answer::Address;

/// The Sentinels that the layers of a process use. One that no layer uses any more is forgotten, with its connections.
#[derive(Debug, Default)]
pub(crate) struct Sentinels(Mutex<Vec<Weak<Sentinel>>>);

impl Sentinels {
    /// The master of a server that is behind Sentinels. Called by a task of the runtime.
    pub(crate) fn master(&self, transport: &Arc<dyn Transport>, server: &Server) -> Option<Master> {
        if server.sentinels.is_empty() {
            return None;
        }
        let sentinels = server.sentinels.iter();
        Some(Master {
            sentinels: sentinels.map(|at| self.at(transport, at)).collect(),
            name: server.master_name.clone().unwrap_or_default(),
        })
    }

    fn at(&self, transport: &Arc<dyn Transport>, endpoint: &Endpoint) -> Arc<Sentinel> {
        let mut sentinels = self.0.lock();
        let living: Vec<Arc<Sentinel>> = sentinels.iter().filter_map(Weak::upgrade).collect();
        let known = living.iter().find(|known| known.endpoint.is_same(endpoint));
        let sentinel = known.map_or_else(|| Sentinel::new(transport, endpoint), Arc::clone);
        sentinels.retain(|sentinel| sentinel.strong_count() > 0);
        if known.is_none() {
            sentinels.push(Arc::downgrade(&sentinel));
        }
        drop(sentinels);
        // One of them may have no other user any more.
        drop(living);
        sentinel
    }
}

/// A master, and the Sentinels that know it, in the order in which they were given.
#[derive(Debug)]
pub(crate) struct Master {
    sentinels: Vec<Arc<Sentinel>>,
    name: String,
}

impl Master {
    /// Its Sentinels in the order in which they are asked: the one that has published a new master last, and so on, then those that
    /// have published none, as they were given.
    pub(crate) fn sentinels(&self) -> Vec<&Sentinel> {
        let mut sentinels: Vec<&Sentinel> = self.sentinels.iter().map(Arc::as_ref).collect();
        sentinels.sort_by_cached_key(|sentinel| {
            let known = sentinel.known(&self.name);
            Reverse(*known.published.lock())
        });
        sentinels
    }

    /// Its name at the Sentinels.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The time of the latest news of it, whichever Sentinel had that.
    pub(crate) fn latest_news(&self) -> Option<Instant> {
        let sentinels = self.sentinels.iter();
        let news = sentinels.map(|sentinel| *sentinel.known(&self.name).news.borrow());
        news.max()
    }

    /// What changes whenever one of the Sentinels has news of it.
    pub(crate) fn news(&self) -> Vec<watch::Receiver<Instant>> {
        let sentinels = self.sentinels.iter();
        let news = |sentinel: &Arc<Sentinel>| sentinel.known(&self.name).news.subscribe();
        sentinels.map(news).collect()
    }
}

pub(crate) struct Sentinel {
    endpoint: Endpoint,
    transport: Arc<dyn Transport>,
    /// The connection on which it is asked. It is kept as long as the Sentinel answers and does not refuse.
    link: Mutex<Option<Arc<dyn Link>>>,
    /// Held by whoever makes that connection: why the last attempt failed, and when.
    attempt: AsyncMutex<Option<(Instant, Fault)>>,
    /// What is known of each master, by its name. There are as many as the settings of the layers name.
    masters: Mutex<HashMap<String, Arc<Known>>>,
    /// Whether all that it publishes comes.
    publishes: AtomicBool,
    subscription: AbortHandle,
}

/// What is known of a master.
struct Known {
    answer: Mutex<Option<Answer>>,
    /// Held by whoever asks because the answer is too old.
    asking: AsyncMutex<()>,
    /// The time of the latest news: answers from before are no longer good.
    news: watch::Sender<Instant>,
    /// When the Sentinel has published last that there is a new one.
    published: Mutex<Option<Instant>>,
}

impl Known {
    fn new() -> Self {
        Self {
            answer: Mutex::default(),
            asking: AsyncMutex::default(),
            news: watch::Sender::new(Instant::now()),
            published: Mutex::default(),
        }
    }

    /// The newest answer, if it is good for who asks for none from before `since`.
    fn good(&self, since: Instant) -> Option<Result<Address, Fault>> {
        let answer = self.answer.lock();
        let good = answer.as_ref()?.good(since, Instant::now())?;
        Some(good.clone())
    }
}

impl Sentinel {
    fn new(transport: &Arc<dyn Transport>, endpoint: &Endpoint) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| {
            let me = me.clone();
            let tell = move |news| {
                if let Some(sentinel) = me.upgrade() {
                    sentinel.hear(news);
                }
            };
            let following = follow(Arc::clone(transport), endpoint.clone(), tell);
            Self {
                endpoint: endpoint.clone(),
                transport: Arc::clone(transport),
                link: Mutex::default(),
                attempt: AsyncMutex::default(),
                masters: Mutex::default(),
                publishes: AtomicBool::new(false),
                subscription: tokio::spawn(following).abort_handle(),
            }
        })
    }

    fn hear(&self, news: News) {
        match news {
            News::Subscribed => {
                self.publishes.store(true, Ordering::Relaxed);
                // What it published before may have been missed.
                let masters: Vec<_> = self.masters.lock().values().cloned().collect();
                for known in masters {
                    known.news.send_replace(Instant::now());
                }
            }
            News::Lost => self.publishes.store(false, Ordering::Relaxed),
            News::Switched(name) => {
                let known = self.masters.lock().get(&name).cloned();
                if let Some(known) = known {
                    let now = Instant::now();
                    *known.published.lock() = Some(now);
                    known.news.send_replace(now);
                }
            }
        }
    }

    fn known(&self, name: &str) -> Arc<Known> {
        let mut masters = self.masters.lock();
        if let Some(known) = masters.get(name) {
            return Arc::clone(known);
        }
        let known = Arc::new(Known::new());
        masters.insert(name.to_owned(), Arc::clone(&known));
        known
    }

    /// Where a master is, from the newest answer if that is good, else asked: it is not good if it was asked for before the
    /// latest news. `calm` is whether all servers of the caller are reachable.
    pub(crate) async fn look_up(
        &self,
        name: &str,
        timeout: Duration,
        news: Option<Instant>,
        calm: bool,
    ) -> Result<Address, Fault> {
        let known = self.known(name);
        let calm = calm && self.publishes.load(Ordering::Relaxed);
        let since = answer::since(Instant::now(), news, calm);
        if let Some(answer) = known.good(since) {
            return answer;
        }
        let _asking = known.asking.lock().await;
        match known.good(since) {
            Some(answer) => answer,
            None => self.ask(name, timeout).await,
        }
    }

    /// Where a master is, asked now.
    pub(crate) async fn ask(&self, name: &str, timeout: Duration) -> Result<Address, Fault> {
        let (known, asked) = (self.known(name), Instant::now());
        // There are others to ask: one that is silent must not keep everything waiting.
        let address = self.address(name, timeout.min(PROBE_TIMEOUT)).await;
        let newest = Answer::new(asked, Instant::now(), address.clone());
        let has_moved = answer::replace(&mut known.answer.lock(), newest);
        if has_moved {
            known.news.send_replace(asked);
        }
        address
    }

    async fn address(&self, name: &str, timeout: Duration) -> Result<Address, Fault> {
        let sentinel = &self.endpoint;
        let ask = Command::new("SENTINEL")
            .word("GET-MASTER-ADDR-BY-NAME")
            .text(name);
        let replies = self.request(timeout, &[&ask]).await?;
        if let Some(refusal) = replies.first().and_then(Refusal::of) {
            if refusal.is_unknown_command() {
                let text = format!(
                    "{sentinel} is a server and no Sentinel: give it without 'sentinels', or give the address of a Sentinel, whose \
                     port is 26379 unless it was changed"
                );
                return Err(Fault::new(FaultKind::Refused, text));
            }
            return Err(refusal.into_fault());
        }
        let address = match replies.first() {
            Some(Reply::Array(words)) => {
                let host = words.first().and_then(text);
                let port = words
                    .get(1)
                    .and_then(text)
                    .and_then(|port| port.parse().ok());
                host.zip(port)
            }
            _ => None,
        };
        address.ok_or_else(|| {
            Fault::new(
                FaultKind::Unreachable,
                format!("the Sentinel {sentinel} knows no master '{name}'"),
            )
        })
    }

    /// Asks on the connection that there is, which several may do at once; without one, or if that was lost, on a new one.
    async fn request(&self, timeout: Duration, commands: &[&Command]) -> Result<Vec<Reply>, Fault> {
        let kept = self.link.lock().clone();
        if let Some(link) = kept {
            let asked = self.request_on(&link, timeout, commands).await;
            // A silent one gets no second attempt. One that refuses may have other users since the connection was made.
            match asked {
                Ok(replies) if !is_refused(&replies) => return Ok(replies),
                Err(fault) if fault.kind() == FaultKind::Timeout => {
                    let text = format!("{} did not answer in time", self.endpoint);
                    return Err(Fault::new(FaultKind::Timeout, text));
                }
                Ok(_) | Err(_) => {}
            }
        }
        let link = self.connect(timeout).await?;
        self.request_on(&link, timeout, commands).await
    }

    async fn request_on(
        &self,
        link: &Arc<dyn Link>,
        timeout: Duration,
        commands: &[&Command],
    ) -> Result<Vec<Reply>, Fault> {
        let asked = in_time(timeout, link.request(commands)).await;
        if !asked.as_ref().is_ok_and(|replies| !is_refused(replies)) {
            let lost = self.forget(link);
            drop(lost);
        }
        asked
    }

    /// The connection on which it is asked, made if there is none. Those who wait for an attempt share its outcome.
    async fn connect(&self, timeout: Duration) -> Result<Arc<dyn Link>, Fault> {
        let began = Instant::now();
        let mut attempt = self.attempt.lock().await;
        let made = self.link.lock().clone();
        if let Some(link) = made {
            return Ok(link);
        }
        if let Some((failed, fault)) = &*attempt
            && *failed >= began
        {
            return Err(fault.clone());
        }
        match self.transport.open(&self.endpoint, timeout, None).await {
            Ok(link) => {
                *self.link.lock() = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(fault) => {
                *attempt = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    /// Removes a connection, unless another has taken its place.
    #[must_use = "it is dropped by the caller, without the lock"]
    fn forget(&self, link: &Arc<dyn Link>) -> Option<Arc<dyn Link>> {
        self.link.lock().take_if(|kept| Arc::ptr_eq(kept, link))
    }
}

fn is_refused(replies: &[Reply]) -> bool {
    replies.first().and_then(Refusal::of).is_some()
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.subscription.abort();
    }
}

impl std::fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sentinel")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
