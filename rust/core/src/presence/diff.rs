//! What the members of a group are told of who is there.

use std::ops::Range;

use super::msgpack::{array, map, number, text};

/// What changed in the list of a group between two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// Of what it tells.
    pub scope: Scope,
    /// What changed, by key; with [`Scope::Full`] the whole list, with [`Scope::Counts`] nothing.
    pub keys: Vec<KeyDiff>,
    /// How many are there now.
    pub counts: Counts,
    /// The version of the list that it makes.
    pub version: u64,
    /// The version of the list that it follows. Whoever has an older one has missed something.
    pub previous: u64,
}

/// How many are there, as it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys with an entry.
    pub keys: usize,
    /// Entries.
    pub channels: usize,
}

/// Of what a diff tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of what changed.
    Changes,
    /// Of the whole list, which replaces all that was known.
    Full,
    /// Of the counts alone, because the list is too long.
    Counts,
}

/// What changed under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyDiff {
    /// The key.
    pub key: Box<str>,
    /// The metas that joined.
    pub joins: Vec<Box<[u8]>>,
    /// The metas that left.
    pub leaves: Vec<Box<[u8]>>,
    /// Whether its first entry came, or its last one went.
    pub turn: Option<Turn>,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has its first entry.
    Online,
    /// It has lost its last one.
    Offline,
}

impl Scope {
    /// What an event has as its `scope`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Full => "full",
            Self::Counts => "counts",
        }
    }
}

impl Diff {
    /// The message that tells it, in msgpack, and where in that the text of its `type` is.
    pub fn event(&self, kind: &str, group: &str) -> (Vec<u8>, Range<usize>) {
        let mut bytes = Vec::with_capacity(256);
        map(&mut bytes, 11);
        text(&mut bytes, "type");
        text(&mut bytes, kind);
        let kind = bytes.len() - kind.len()..bytes.len();
        text(&mut bytes, "group");
        text(&mut bytes, group);
        text(&mut bytes, "scope");
        text(&mut bytes, self.scope.as_str());
        text(&mut bytes, "joins");
        self.metas(&mut bytes, |diff| &diff.joins);
        text(&mut bytes, "leaves");
        self.metas(&mut bytes, |diff| &diff.leaves);
        text(&mut bytes, "online");
        self.turned(&mut bytes, Turn::Online);
        text(&mut bytes, "offline");
        self.turned(&mut bytes, Turn::Offline);
        for (name, value) in [
            ("count", self.counts.keys as u64),
            ("channels", self.counts.channels as u64),
            ("version", self.version),
            ("previous", self.previous),
        ] {
            text(&mut bytes, name);
            number(&mut bytes, value);
        }
        (bytes, kind)
    }

    fn metas(&self, bytes: &mut Vec<u8>, of: impl Fn(&KeyDiff) -> &Vec<Box<[u8]>>) {
        let some = || self.keys.iter().filter(|diff| !of(diff).is_empty());
        map(bytes, some().count());
        for diff in some() {
            text(bytes, &diff.key);
            let metas = of(diff);
            array(bytes, metas.len());
            for meta in metas {
                bytes.extend_from_slice(meta);
            }
        }
    }

    fn turned(&self, bytes: &mut Vec<u8>, turn: Turn) {
        let some = || self.keys.iter().filter(|diff| diff.turn == Some(turn));
        array(bytes, some().count());
        some().for_each(|diff| text(bytes, &diff.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str, joins: &[u8], leaves: &[u8], turn: Option<Turn>) -> KeyDiff {
        // A meta is one number of msgpack here.
        let metas = |metas: &[u8]| metas.iter().map(|meta| Box::from([*meta])).collect();
        KeyDiff {
            key: key.into(),
            joins: metas(joins),
            leaves: metas(leaves),
            turn,
        }
    }

    #[test]
    fn an_event_holds_what_joined_and_left_and_its_type_is_found() {
        let diff = Diff {
            scope: Scope::Changes,
            keys: vec![
                key("ann", &[1, 2], &[], Some(Turn::Online)),
                key("bob", &[3], &[4], None),
                key("eve", &[], &[5], Some(Turn::Offline)),
            ],
            counts: Counts {
                keys: 2,
                channels: 3,
            },
            version: 9,
            previous: 7,
        };
        let (bytes, kind) = diff.event("presence.diff", "room.1");
        assert_eq!(&bytes[kind], b"presence.diff");
        let event = rmpv::decode::read_value(&mut bytes.as_slice()).expect("it is msgpack");
        let shown = event.to_string();
        let expected = r#"{"type": "presence.diff", "group": "room.1", "scope": "changes", "joins": {"ann": [1, 2], "bob": [3]}, "leaves": {"bob": [4], "eve": [5]}, "online": ["ann"], "offline": ["eve"], "count": 2, "channels": 3, "version": 9, "previous": 7}"#;
        assert_eq!(shown, expected);
        assert_eq!(Scope::Full.as_str(), "full");
        assert_eq!(Scope::Counts.as_str(), "counts");
    }
}
