//! Commands, whose time-dependent words are set when they are written to a server.

use bytes::Bytes;

use crate::redis::wire::envelope::{Date, Draft};
use crate::redis::wire::membership;

/// A century: seconds after which a key ends at the latest, because servers refuse what is far beyond.
const LONGEST: u64 = 100 * 365 * 86_400;

/// One command, word by word.
#[derive(Clone, Debug)]
pub(crate) struct Command(Vec<Word>);

#[derive(Clone, Debug)]
enum Word {
    /// `PUBLISH`, or `SPUBLISH` where topics are sharded.
    Publish {
        sharded: bool,
    },
    Name(&'static str),
    Text(String),
    Bytes(Bytes),
    /// An envelope, whose deadline depends on the server that it is written to, and on the time.
    Envelope(Draft),
    /// The same, in a stream; its destination is the topic on which it is published.
    Kept(Draft, String),
    /// The time so many milliseconds after it is written to the server.
    End(u64),
}

impl Command {
    pub(crate) fn new(name: &'static str) -> Self {
        Self::with_capacity(name, 4)
    }

    /// The same, with room for so many words, which are not moved while they are added.
    pub(crate) fn with_capacity(name: &'static str, words: usize) -> Self {
        let mut command = Self(Vec::with_capacity(words));
        command.0.push(Word::Name(name));
        command
    }

    /// Publishes on a pub/sub channel, sharded or not: that is decided when it is written. The message is to follow.
    pub(crate) fn publish(topic: impl Into<String>) -> Self {
        let mut command = Self(Vec::with_capacity(3));
        command.0.push(Word::Publish { sharded: false });
        command.text(topic)
    }

    /// Sets the expiry of a key: not before so many milliseconds are over, because the server takes whole seconds.
    pub(crate) fn expire(key: impl Into<String>, milliseconds: u64) -> Self {
        let seconds = milliseconds.saturating_add(1000).div_ceil(1000);
        Self::new("EXPIRE").text(key).number(seconds.min(LONGEST))
    }

    /// Says whether topics are sharded, if it publishes.
    pub(crate) fn publish_sharded(&mut self, now: bool) {
        if let Some(Word::Publish { sharded }) = self.0.first_mut() {
            *sharded = now;
        }
    }

    pub(crate) fn is_publish(&self) -> bool {
        matches!(self.0.first(), Some(Word::Publish { .. }))
    }

    pub(crate) fn word(mut self, word: &'static str) -> Self {
        self.0.push(Word::Name(word));
        self
    }

    pub(crate) fn text(mut self, word: impl Into<String>) -> Self {
        self.0.push(Word::Text(word.into()));
        self
    }

    pub(crate) fn number(self, word: impl std::fmt::Display) -> Self {
        self.text(word.to_string())
    }

    pub(crate) fn bytes(mut self, word: Bytes) -> Self {
        self.0.push(Word::Bytes(word));
        self
    }

    pub(crate) fn envelope(mut self, word: Draft) -> Self {
        self.0.push(Word::Envelope(word));
        self
    }

    /// Adds an envelope that goes into a stream, and is published on this topic as well.
    pub(crate) fn kept(mut self, word: Draft, topic: impl Into<String>) -> Self {
        self.0.push(Word::Kept(word, topic.into()));
        self
    }

    /// The envelope that goes into a stream.
    pub(crate) fn kept_bytes(&self) -> Option<Bytes> {
        match self.0.last() {
            Some(Word::Kept(draft, _)) => Some(draft.bytes().clone()),
            _ => None,
        }
    }

    /// Publishes these bytes, if it publishes.
    pub(crate) fn publish_bytes(&mut self, bytes: &Bytes) {
        if let [Word::Publish { .. }, _, Word::Bytes(published)] = self.0.as_mut_slice() {
            published.clone_from(bytes);
        }
    }

    pub(crate) fn end_after(mut self, milliseconds: u64) -> Self {
        self.0.push(Word::End(milliseconds));
        self
    }

    /// Sets what depends on the server and on the time there, which it is now.
    pub(crate) fn date(&mut self, date: &Date<'_>) {
        match self.0.as_mut_slice() {
            [_, Word::Text(destination), Word::Envelope(draft)]
            | [.., Word::Kept(draft, destination)] => draft.date(date, destination),
            [_, Word::Text(key), Word::Text(field), end] => {
                if let Word::End(lasts) = *end {
                    let at = date.now.saturating_add(lasts);
                    let value = membership::value(key, field, at, date.crypt);
                    *end = Word::Bytes(value.into_bytes().into());
                }
            }
            _ => {}
        }
    }

    /// The envelope that it carries, or the value of a membership.
    pub(crate) fn carried(&self) -> Option<&Bytes> {
        self.0.iter().find_map(|word| match word {
            Word::Envelope(envelope) | Word::Kept(envelope, _) => Some(envelope.bytes()),
            Word::Bytes(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// Roughly how many bytes it takes on the wire.
    pub(crate) fn len(&self) -> usize {
        let word = |word: &Word| match word {
            Word::Publish { .. } => 8,
            Word::Name(name) => name.len(),
            Word::Text(text) => text.len(),
            Word::Bytes(bytes) => bytes.len(),
            Word::Envelope(envelope) | Word::Kept(envelope, _) => envelope.len(),
            Word::End(_) => 64,
        };
        self.0.iter().map(|each| word(each) + 8).sum()
    }

    pub(super) fn to_redis(&self) -> redis::Cmd {
        let mut command = redis::Cmd::with_capacity(self.0.len(), self.len());
        for word in &self.0 {
            match word {
                Word::Publish { sharded: false } => command.arg("PUBLISH"),
                Word::Publish { sharded: true } => command.arg("SPUBLISH"),
                Word::Name(name) => command.arg(*name),
                Word::Text(text) => command.arg(text.as_str()),
                Word::Bytes(bytes) => command.arg(&bytes[..]),
                Word::Envelope(envelope) | Word::Kept(envelope, _) => {
                    command.arg(&envelope.bytes()[..])
                }
                Word::End(lasts) => command.arg(lasts),
            };
        }
        command
    }
}

#[cfg(test)]
fn publish(sharded: bool) -> &'static str {
    if sharded { "SPUBLISH" } else { "PUBLISH" }
}

#[cfg(test)]
impl Command {
    /// Its words, as they are written.
    pub(crate) fn words(&self) -> Vec<Vec<u8>> {
        let word = |word: &Word| match word {
            Word::Publish { sharded } => publish(*sharded).as_bytes().to_vec(),
            Word::Name(name) => name.as_bytes().to_vec(),
            Word::Text(text) => text.as_bytes().to_vec(),
            Word::Bytes(bytes) => bytes.to_vec(),
            Word::Envelope(envelope) | Word::Kept(envelope, _) => envelope.bytes().to_vec(),
            Word::End(lasts) => lasts.to_string().into_bytes(),
        };
        self.0.iter().map(word).collect()
    }

    /// The last of its words that are bytes.
    pub(crate) fn last_bytes(&self) -> Vec<u8> {
        let bytes = self.0.iter().rev().find_map(|word| match word {
            Word::Bytes(bytes) => Some(bytes.to_vec()),
            Word::Envelope(envelope) | Word::Kept(envelope, _) => Some(envelope.bytes().to_vec()),
            _ => None,
        });
        bytes.unwrap_or_default()
    }
}

#[cfg(test)]
impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = self
            .0
            .iter()
            .map(|word| match word {
                Word::Publish { sharded } => publish(*sharded).to_owned(),
                Word::Name(name) => (*name).to_owned(),
                Word::Text(text) => text.clone(),
                Word::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Word::Envelope(envelope) | Word::Kept(envelope, _) => {
                    String::from_utf8_lossy(envelope.bytes()).into_owned()
                }
                Word::End(lasts) => lasts.to_string(),
            })
            .collect();
        f.write_str(&words.join(" "))
    }
}
