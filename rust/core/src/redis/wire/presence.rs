//! Who is present in a group: as the hash of the group keeps it, and as processes announce its changes to each other.
//!
//! A field of the hash is a channel, and its value an envelope of the kind of a group message: its sender is the process that
//! has the channel, its sequence the version of the entry, and in place of a message it has the key (two bytes of length and the
//! text) and the meta (msgpack). With keys it is authenticated for the field as well.
//!
//! An announcement is an envelope of the same kind on the pub/sub channel that has the name of the hash. In place of a message
//! it has changes, one behind the other. The version is 8 bytes:
//!
//! | byte | what follows | what it says |
//! |---|---|---|
//! | 1 | channel, version, key, meta behind four bytes of length | this entry is there |
//! | 2 | channel, version | this entry has left |
//! | 3 | | read the hash again |
//! | 4 | version, a number of 8 bytes | the sender has so many members |
//!
//! Where the members of a group are counted, a process has a field of its own as well, whose name is its id. It has the number in
//! place of key and meta.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used,
        reason = "the bytes come from a server"
    )
)]

use bytes::Bytes;

use super::crypt::Crypt;
use super::envelope::{self, Body, Date, Header, Malformed, OutgoingBody, Seal, Unsendable};
use super::keys::ProcessId;
use super::payload;
use crate::name::check_channel;

const HERE: u8 = 1;
const GONE: u8 = 2;
const READ: u8 = 3;
const COUNT: u8 = 4;

/// A change of one entry, or of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there.
    Here {
        channel: String,
        version: u64,
        key: String,
        meta: Bytes,
    },
    /// It has left.
    Gone { channel: String, version: u64 },
    /// Something may have been missed: the hash is to be read again.
    Read,
    /// The sender has so many members.
    Count { version: u64, members: u64 },
}

impl Change {
    /// The channel that it is about, if it is about one.
    pub(crate) fn channel(&self) -> Option<&str> {
        match self {
            Self::Here { channel, .. } | Self::Gone { channel, .. } => Some(channel),
            Self::Read | Self::Count { .. } => None,
        }
    }

    /// Writes it behind others.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Here {
                channel,
                version,
                key,
                meta,
            } => {
                bytes.push(HERE);
                put_name(bytes, channel);
                bytes.extend(version.to_be_bytes());
                put_key(bytes, key);
                bytes.extend(u32::try_from(meta.len()).unwrap_or(0).to_be_bytes());
                bytes.extend_from_slice(meta);
            }
            Self::Gone { channel, version } => {
                bytes.push(GONE);
                put_name(bytes, channel);
                bytes.extend(version.to_be_bytes());
            }
            Self::Read => bytes.push(READ),
            Self::Count { version, members } => {
                bytes.push(COUNT);
                bytes.extend(version.to_be_bytes());
                bytes.extend(members.to_be_bytes());
            }
        }
    }
}

/// Names and keys are checked where they come in: none is longer than its length can say.
fn put_name(bytes: &mut Vec<u8>, name: &str) {
    bytes.push(u8::try_from(name.len()).unwrap_or(0));
    bytes.extend_from_slice(name.as_bytes());
}

fn put_key(bytes: &mut Vec<u8>, key: &str) {
    bytes.extend(u16::try_from(key.len()).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(key.as_bytes());
}

/// The changes of an announcement; none if it is not one.
pub(crate) fn changes(bytes: &Bytes) -> Option<Vec<Change>> {
    let mut reader = Reader(bytes.clone());
    let mut changes = Vec::new();
    while !reader.0.is_empty() {
        changes.push(match reader.byte()? {
            HERE => Change::Here {
                channel: reader.channel()?,
                version: reader.number()?,
                key: reader.key()?,
                meta: reader.meta()?,
            },
            GONE => Change::Gone {
                channel: reader.channel()?,
                version: reader.number()?,
            },
            READ => Change::Read,
            COUNT => Change::Count {
                version: reader.number()?,
                members: reader.number()?,
            },
            _ => return None,
        });
    }
    Some(changes)
}

/// The bytes that have not been read.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        let bytes = self.take(8)?;
        bytes.first_chunk().copied().map(u64::from_be_bytes)
    }

    fn text(&mut self, length: usize) -> Option<String> {
        String::from_utf8(self.take(length)?.into()).ok()
    }

    fn channel(&mut self) -> Option<String> {
        let length = self.byte()?;
        let channel = self.text(length.into())?;
        check_channel(&channel).is_ok().then_some(channel)
    }

    fn key(&mut self) -> Option<String> {
        let bytes = self.take(2)?;
        let length = bytes.first_chunk().copied().map(u16::from_be_bytes)?;
        self.text(length.into())
    }

    /// The meta, behind its length.
    fn meta(&mut self) -> Option<Bytes> {
        let bytes = self.take(4)?;
        let length = bytes.first_chunk().copied().map(u32::from_be_bytes)?;
        checked(self.take(usize::try_from(length).ok()?)?)
    }
}

/// A meta is one value; what is checked is a map that holds it.
fn checked(meta: Bytes) -> Option<Bytes> {
    let map = [b"\x81\xa0", &meta[..]].concat();
    payload::inspect(&map).is_ok().then_some(meta)
}

/// What a field of the hash is authenticated for.
fn destination(hash: &str, field: &str) -> String {
    format!("{hash}\0{field}")
}

/// The value of the field of a channel.
///
/// # Errors
/// Only if the operating system has no random bytes for encryption.
pub(crate) fn value(
    place: (&str, &str),
    by: (ProcessId, u64),
    (key, meta): (&str, &[u8]),
    seal: Option<Seal<'_>>,
) -> Result<Bytes, Unsendable> {
    let mut payload = Vec::with_capacity(2 + key.len() + meta.len());
    put_key(&mut payload, key);
    payload.extend_from_slice(meta);
    sealed(place, by, &payload, seal)
}

/// The value of the field of a process.
///
/// # Errors
/// As `value`.
pub(crate) fn count(
    hash: &str,
    (owner, version): (ProcessId, u64),
    members: u64,
    seal: Option<Seal<'_>>,
) -> Result<Bytes, Unsendable> {
    let field = owner.to_string();
    sealed(
        (hash, &field),
        (owner, version),
        &members.to_be_bytes(),
        seal,
    )
}

fn sealed(
    (hash, field): (&str, &str),
    (owner, version): (ProcessId, u64),
    payload: &[u8],
    seal: Option<Seal<'_>>,
) -> Result<Bytes, Unsendable> {
    let header = Header {
        sender: owner,
        sequence: version,
        deadline: 0,
    };
    let body = OutgoingBody::Group {
        exclude: &[],
        payload,
    };
    let mut draft = envelope::encode(&header, body, seal)?;
    if let Some(Seal { crypt, now }) = seal {
        // It lasts as long as it is there: nobody looks at its deadline.
        let date = Date {
            now: now.saturating_mul(1000),
            expiry: 0,
            crypt: Some(crypt),
        };
        draft.date(&date, &destination(hash, field));
    }
    Ok(draft.into_bytes())
}

/// An entry of the hash.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: ProcessId,
    pub(crate) channel: String,
    pub(crate) version: u64,
    pub(crate) key: String,
    pub(crate) meta: Bytes,
}

/// What a field of the hash is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The entry of a channel.
    Entry(Row),
    /// How many members a process has.
    Count {
        owner: ProcessId,
        version: u64,
        members: u64,
    },
}

/// Why a field of the hash is no entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRow {
    /// Its value is no envelope that this layer accepts.
    Malformed(Malformed),
    /// There is something else in it.
    Content,
}

/// Reads a field.
///
/// # Errors
/// Says why it is none.
pub(crate) fn field(
    hash: &str,
    field: Vec<u8>,
    value: Vec<u8>,
    crypt: Option<&Crypt>,
) -> Result<Field, NoRow> {
    let channel = String::from_utf8(field).map_err(|_| NoRow::Content)?;
    check_channel(&channel).map_err(|_| NoRow::Content)?;
    let envelope = envelope::decode(value, &destination(hash, &channel), crypt);
    let envelope = envelope.map_err(NoRow::Malformed)?;
    let Body::Group { exclude, payload } = envelope.body else {
        return Err(NoRow::Content);
    };
    let mut reader = Reader(payload.into_bytes());
    let (owner, version) = (envelope.header.sender, envelope.header.sequence);
    if ProcessId::parse(&channel) == Some(owner) {
        let members = reader.number().filter(|_| exclude.is_empty());
        return Ok(Field::Count {
            owner,
            version,
            members: members.ok_or(NoRow::Content)?,
        });
    }
    let key = reader.key().filter(|_| exclude.is_empty());
    let (key, meta) = key.zip(checked(reader.0)).ok_or(NoRow::Content)?;
    Ok(Field::Entry(Row {
        owner,
        channel,
        version,
        key,
        meta,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::crypt::Version;
    use super::*;

    const HASH: &str = "asgi:v:{asgi:g:room}";
    const CHANNEL: &str = "specific.0123456789abcdef!t";
    const OWNER: ProcessId = ProcessId(0x0123_4567_89ab_cdef);
    /// `{"n": 1}`
    const META: &[u8] = b"\x81\xa1n\x01";

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn written(crypt: Option<&Crypt>) -> Vec<u8> {
        let seal = crypt.map(|crypt| Seal { crypt, now: 1 });
        let value = value((HASH, CHANNEL), (OWNER, 7), ("ada", META), seal);
        value.expect("there is randomness").to_vec()
    }

    fn read(value: Vec<u8>, crypt: Option<&Crypt>) -> Result<Field, NoRow> {
        field(HASH, CHANNEL.into(), value, crypt)
    }

    fn ada() -> Field {
        Field::Entry(Row {
            owner: OWNER,
            channel: CHANNEL.to_owned(),
            version: 7,
            key: "ada".to_owned(),
            meta: Bytes::from_static(META),
        })
    }

    /// The examples of docs/reference/protocol.md.
    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        assert_eq!(
            hex(&written(None)),
            "01000123456789abcdef00000000000000070000000000000000\
             00000361646181a16e01"
        );
        let mut bytes = Vec::new();
        let changes = [
            Change::Here {
                channel: "a".to_owned(),
                version: 7,
                key: "ada".to_owned(),
                meta: Bytes::from_static(META),
            },
            Change::Gone {
                channel: "b".to_owned(),
                version: 8,
            },
            Change::Read,
            Change::Count {
                version: 9,
                members: 300,
            },
        ];
        for change in &changes {
            change.write(&mut bytes);
        }
        assert_eq!(
            hex(&bytes),
            "01016100000000000000070003616461\
             0000000481a16e0102016200000000000000080304\
             0000000000000009000000000000012c"
        );
        assert_eq!(super::changes(&bytes.into()), Some(changes.to_vec()));
    }

    #[test]
    fn a_value_is_an_entry_of_its_own_field_alone() {
        let keys = Crypt::new(["a"]).expect("there is a secret");
        let old = Crypt::new(["a"]).expect("there is a secret");
        let old = old.with_versions(vec![Version::One]);
        for crypt in [None, Some(&keys), Some(&old)] {
            assert_eq!(read(written(crypt), crypt), Ok(ada()));
        }
        let elsewhere = field(HASH, b"other".to_vec(), written(Some(&keys)), Some(&keys));
        assert!(matches!(elsewhere, Err(NoRow::Malformed(_))));
        let plain = read(written(None), Some(&keys));
        assert_eq!(plain, Err(NoRow::Malformed(Malformed::NotEncrypted)));
    }

    #[test]
    fn the_field_of_a_process_has_how_many_members_it_has() {
        let value = count(HASH, (OWNER, 7), 300, None).expect("it needs no randomness");
        let read = field(HASH, OWNER.to_string().into(), value.to_vec(), None);
        let expected = Field::Count {
            owner: OWNER,
            version: 7,
            members: 300,
        };
        assert_eq!(read, Ok(expected));
        let other = field(HASH, b"0000000000000001".to_vec(), value.to_vec(), None);
        assert_eq!(other, Err(NoRow::Content), "it is of another process");
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let whole = written(None);
        assert_eq!(
            read(whole[..whole.len() - 1].to_vec(), None),
            Err(NoRow::Content)
        );
        assert_eq!(
            field(HASH, b"no name".to_vec(), whole.clone(), None),
            Err(NoRow::Content)
        );
        assert_eq!(
            field(HASH, b"\xff".to_vec(), whole, None),
            Err(NoRow::Content)
        );
        assert!(read(Vec::new(), None).is_err());
        let here = Change::Here {
            channel: "a".to_owned(),
            version: 1,
            key: String::new(),
            meta: Bytes::from_static(META),
        };
        let mut bytes = Vec::new();
        here.write(&mut bytes);
        for length in 1..bytes.len() {
            assert_eq!(changes(&Bytes::copy_from_slice(&bytes[..length])), None);
        }
        for refused in [b"\x05".to_vec(), b"\x02\x03a b00000000".to_vec()] {
            assert_eq!(changes(&refused.into()), None);
        }
        bytes[17] = 0xc1;
        assert_eq!(changes(&bytes.into()), None, "the meta is no msgpack");
    }

    proptest! {
        /// Whatever comes in, no panic, and nothing but what `write` makes is read.
        #[test]
        fn what_is_read_is_what_was_written(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(changes) = changes(&bytes.clone().into()) {
                let mut again = Vec::new();
                for change in &changes {
                    change.write(&mut again);
                }
                prop_assert_eq!(again, bytes.clone());
            }
            let _ = field(HASH, CHANNEL.into(), bytes, None);
        }
    }
}
