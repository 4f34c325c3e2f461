//! Every key and pub/sub channel that a layer uses on a server, and how to parse them.
//!
//! A layer owns what begins with its prefix and a colon, and nothing else. Channel and group names hold no colon
//! and no brace, so no two things share a name, and a prefix never reaches into another one's names. The three
//! names of a queue carry the channel's name as their hash tag: a cluster keeps them in one slot.

use std::fmt;

use thiserror::Error;

use super::form::Wire;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Digits of a process id in a name.
const PROCESS_DIGITS: usize = 16;

/// One process of the fleet, or rather one layer in it: drawn at random when the layer starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

impl ProcessId {
    /// Reads what `Display` writes: 16 lowercase hexadecimal digits, no more and no fewer.
    pub fn parse(digits: &str) -> Option<Self> {
        let lowercase = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != PROCESS_DIGITS || !digits.bytes().all(lowercase) {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The process that reads a specific channel, `<anything>.<process>!<token>`; none for a plain one.
///
/// A name with a `!` and anything else in front of it is a plain channel, which nobody receives from.
pub fn process_of(channel: &str) -> Option<ProcessId> {
    let (owner, _token) = channel.split_once('!')?;
    let (_anything, process) = owner.rsplit_once('.')?;
    ProcessId::parse(process)
}

/// The slot of a key, or of a channel of sharded pub/sub, in a cluster.
///
/// What counts is the hash tag if there is one: what stands between the first `{` and the first `}` behind it, unless
/// that is nothing.
pub fn hash_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let mut parts = key.splitn(2, |&byte| byte == b'{');
    let (_before, behind) = (parts.next()?, parts.next()?);
    let end = behind.iter().position(|&byte| byte == b'}')?;
    behind.get(..end).filter(|tag| !tag.is_empty())
}

/// CRC-16/XMODEM: polynomial 0x1021, nothing reflected, from zero.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut byte = 0_u16;
        while byte < 256 {
            let mut crc = byte << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 {
                    crc << 1
                } else {
                    crc << 1 ^ 0x1021
                };
                bit += 1;
            }
            table[byte as usize] = crc;
            byte += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, &byte| {
        // The index is one byte: below 256 whatever came in.
        crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// What a pub/sub channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// The messages of a group.
    Group(&'a str),
    /// The messages for one process: for its specific channels, and answers to its requests.
    Process(ProcessId),
    /// Wakes the processes that wait for entries of the queue of this channel.
    Wake(&'a str),
    /// Who comes into this group, and who leaves it.
    Presence(&'a str),
    /// What all processes must know.
    Control,
    /// How the memberships of plain channels change.
    Members,
    /// The messages of a channel, under `wire="channels_redis"`.
    Channel(&'a str),
}

/// Why a prefix won't do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("prefix '{}' holds a brace that is no part of a hash tag such as '{{app}}'", prefix.escape_debug())]
pub struct InvalidPrefix {
    prefix: String,
}

/// The names of one layer, in one of the two forms: under `wire="channels_redis"` there are topics of groups and of channels, and
/// nothing else.
///
/// Names of channels and groups are taken as they are; [`crate::name`] has checked them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    wire: Wire,
}

impl Keys {
    /// The names that begin with `prefix`.
    ///
    /// A prefix with a hash tag of its own puts everything in one slot of a cluster; that is allowed.
    ///
    /// # Errors
    /// Refuses a brace that is not part of a hash tag: it would tear the names of a queue apart into several slots.
    pub fn new(prefix: impl Into<String>) -> Result<Self, InvalidPrefix> {
        let prefix = prefix.into();
        if prefix.contains('{') && hash_tag(prefix.as_bytes()).is_none() {
            return Err(InvalidPrefix { prefix });
        }
        let wire = Wire::Headrace;
        Ok(Self { prefix, wire })
    }

    /// The names of the same layer in this form.
    #[must_use]
    pub fn in_form(self, wire: Wire) -> Self {
        Self { wire, ..self }
    }

    /// The pub/sub channel of a group.
    pub fn group(&self, group: &str) -> String {
        match self.wire {
            Wire::Headrace => format!("{}:g:{group}", self.prefix),
            Wire::ChannelsRedis => format!("{}__group__{group}", self.prefix),
        }
    }

    /// The stream in which the messages of a group are kept. The name of the group's pub/sub channel is its hash tag, so that a
    /// cluster keeps both in one slot, and one transaction can write to both.
    pub fn history(&self, group: &str) -> String {
        format!("{}:h:{{{}}}", self.prefix, self.group(group))
    }

    /// The hash of who is present in a group, and the pub/sub channel that announces its changes. Its hash tag is that of the
    /// history.
    pub fn presence(&self, group: &str) -> String {
        format!("{}:v:{{{}}}", self.prefix, self.group(group))
    }

    /// The hash in which the processes that have such groups count, so that each knows who lives.
    pub fn alive(&self) -> String {
        format!("{}:a", self.prefix)
    }

    /// Whether a group, its history and its presence are in one slot: not if the prefix has a closing brace without a hash tag.
    pub fn can_tag_groups(&self) -> bool {
        !self.prefix.contains('}') || hash_tag(self.prefix.as_bytes()).is_some()
    }

    /// The pub/sub channel that one process reads.
    pub fn process(&self, process: ProcessId) -> String {
        format!("{}:p:{process}", self.prefix)
    }

    /// The list in which a plain channel's messages wait.
    pub fn queue(&self, channel: &str) -> String {
        format!("{}:q:{{{channel}}}", self.prefix)
    }

    /// The pub/sub channel of wake-ups for the entries of a queue.
    pub fn wake(&self, channel: &str) -> String {
        format!("{}:b:{{{channel}}}", self.prefix)
    }

    /// The list of what a process took from a queue and does not have for certain.
    pub fn taken(&self, channel: &str, process: ProcessId) -> String {
        format!("{}:t:{{{channel}}}:{process}", self.prefix)
    }

    /// The hash of the plain channels that are members of groups, and the pub/sub channel that announces its changes. They
    /// share the name, and so the server: if another takes its place, every process has to subscribe again and reads the hash.
    pub fn members(&self) -> String {
        format!("{}:m", self.prefix)
    }

    /// The pub/sub channel that all processes read.
    pub fn control(&self) -> String {
        format!("{}:c", self.prefix)
    }

    /// The set of the names of the queues that were pushed to in an hour, counted from the epoch: so that names end too.
    pub fn index(&self, hour: u64) -> String {
        format!("{}:i:{hour}", self.prefix)
    }

    /// What the pub/sub channel is, if it is one of this layer.
    pub fn topic<'a>(&self, name: &'a str) -> Option<Topic<'a>> {
        if self.wire == Wire::ChannelsRedis {
            let group = name.strip_prefix(self.prefix.as_str());
            let group = group.and_then(|rest| rest.strip_prefix("__group__"));
            return Some(group.map_or(Topic::Channel(name), Topic::Group));
        }
        let rest = name.strip_prefix(self.prefix.as_str())?.strip_prefix(':')?;
        match rest {
            "c" => return Some(Topic::Control),
            "m" => return Some(Topic::Members),
            _ => {}
        }
        match rest.split_once(':')? {
            ("g", group) => Some(Topic::Group(group)),
            ("p", process) => ProcessId::parse(process).map(Topic::Process),
            ("b", tag) => tag.strip_prefix('{')?.strip_suffix('}').map(Topic::Wake),
            ("v", tag) => {
                let tag = tag.strip_prefix('{')?.strip_suffix('}')?;
                let rest = tag.strip_prefix(self.prefix.as_str())?;
                rest.strip_prefix(":g:").map(Topic::Presence)
            }
            _ => None,
        }
    }

    /// The group whose pub/sub channel this is.
    pub fn group_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self.topic(name)? {
            Topic::Group(group) => Some(group),
            Topic::Process(_)
            | Topic::Wake(_)
            | Topic::Presence(_)
            | Topic::Control
            | Topic::Members
            | Topic::Channel(_) => None,
        }
    }

    /// The name by which a pub/sub channel is placed among shards: that of its group, queue or process, or its own.
    pub fn place(&self, name: &str) -> String {
        if self.wire == Wire::ChannelsRedis {
            return name.to_owned();
        }
        match self.topic(name) {
            Some(
                Topic::Group(name)
                | Topic::Wake(name)
                | Topic::Presence(name)
                | Topic::Channel(name),
            ) => name.to_owned(),
            Some(Topic::Process(process)) => process.to_string(),
            Some(Topic::Control | Topic::Members) | None => String::new(),
        }
    }

    /// The pub/sub channels that a process reads, whatever it is used for.
    pub fn own(&self, process: ProcessId) -> Vec<String> {
        match self.wire {
            Wire::Headrace => vec![self.process(process), self.control(), self.members()],
            Wire::ChannelsRedis => Vec::new(),
        }
    }
}

/// The field of the members hash that stands for one membership.
pub fn member_field(group: &str, channel: &str) -> String {
    format!("{group}\0{channel}")
}

/// The group and the channel of such a field.
pub fn membership_of(field: &str) -> Option<(&str, &str)> {
    field.split_once('\0')
}

#[cfg(test)]
mod tests;
