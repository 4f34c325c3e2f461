//! What is published and queued: a header, and one of three bodies.
//!
//! | bytes | |
//! |---|---|
//! | 0 | version: 1, or 2 if the envelope is authenticated |
//! | 1 | flags: the kind in the low four bits (0 group, 1 direct, 2 control), 16 if the body is encrypted |
//! | 2..10 | the sender, a process id |
//! | 10..18 | the sequence: counted per sender and destination, from 1 |
//! | 18..26 | the deadline: milliseconds since the Unix epoch by the server's clock |
//! | 26.. | the body |
//!
//! Numbers are big-endian. A name is its length in one byte and its text. The body of a group message is a byte that
//! counts the excluded channels, their names, and the payload; of a direct one the channel's name and the payload; of a
//! control message an operation (one byte) and its fields.
//!
//! The body is encrypted where it is sent, the sequence and the deadline are set later: a [`Draft`] is what is between.
//! An encrypted body of version 1 is a Fernet token of it ([`crypt`](crate::redis::crypt)), and nothing else is authenticated. In version 2 it is
//! an initialisation vector, the text by AES-128-CBC, and a code that authenticates all that and the destination
//! ([`sealing`](crate::redis::crypt::sealing)).
//!
//! [`decode`] refuses whatever it does not know in full: it never guesses, skips or repairs. It does not look into
//! payloads; [`crate::redis::payload`] does. It copies no payload and allocates no more than it was given.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used,
        reason = "the bytes come from a server"
    )
)]

use std::fmt;

use self::wire::{put_name, Reader};
use super::crypt::sealing::OVERHEAD;
use super::crypt::{Crypt, Version, IV};
use super::keys::ProcessId;

mod control;
mod draft;
mod error;
mod wire;

pub use control::Control;
pub use draft::{Date, Draft};
pub use error::{Malformed, Unsendable};

const VERSION: u8 = 1;
/// The version of envelopes that are authenticated as a whole.
const SEALED: u8 = 2;
const ENCRYPTED: u8 = 0x10;
const KIND: u8 = 0x0f;

const GROUP: u8 = 0;
const DIRECT: u8 = 1;
const CONTROL: u8 = 2;

/// The length of the header.
pub const HEADER: usize = 26;

/// The excluded channels that one group message can name.
pub const MAX_EXCLUDED: usize = 255;

/// What every envelope begins with. It is not encrypted, and authenticated only in version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub sender: ProcessId,
    /// Counted per sender and destination, from 1.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch, by the server's clock; the message is dropped afterwards.
    pub deadline: u64,
}

/// A body to be sent. Names are not checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// For the members of a group, which the pub/sub channel names.
    Group {
        /// Members that don't get it.
        exclude: &'a [&'a str],
        /// The message in msgpack.
        payload: &'a [u8],
    },
    /// For one channel.
    Direct {
        /// Its name.
        channel: &'a str,
        /// The message in msgpack.
        payload: &'a [u8],
    },
    /// From engine to engine.
    Control(&'a Control),
}

/// A message in msgpack, where it came in.
#[derive(Clone)]
pub struct Payload {
    bytes: Vec<u8>,
    /// The payload is all from here on.
    start: usize,
}

impl Payload {
    /// The msgpack.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// The whole buffer and where the payload begins in it.
    pub fn into_parts(self) -> (Vec<u8>, usize) {
        (self.bytes, self.start)
    }
}

impl From<Vec<u8>> for Payload {
    /// A payload that fills its buffer, as under `wire="channels_redis"`.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0 }
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    /// Not what users wrote to each other: that has no place in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.as_bytes().len())
    }
}

/// A body that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// For the members of a group, which the pub/sub channel names.
    Group {
        /// Members that don't get it.
        exclude: Vec<String>,
        /// The message.
        payload: Payload,
    },
    /// For one channel.
    Direct {
        /// Its name.
        channel: String,
        /// The message.
        payload: Payload,
    },
    /// From engine to engine.
    Control(Control),
}

/// A message with its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who, which and until when.
    pub header: Header,
    /// What.
    pub body: Body,
    /// Whether all of it is as a process wrote it that has a key, and where it wrote it.
    pub authenticated: bool,
}

/// How to encrypt what is sent: with which keys, at what time (seconds since the Unix epoch).
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// The keys.
    pub crypt: &'a Crypt,
    /// The time that the token carries.
    pub now: u64,
}

/// Writes an envelope, but for what is known only later.
///
/// # Errors
/// Names more channels than fit, a name that is too long, or no random bytes for encryption.
pub fn encode(
    header: &Header,
    body: Outgoing<'_>,
    seal: Option<Seal<'_>>,
) -> Result<Draft, Unsendable> {
    let (kind, length) = match body {
        Outgoing::Group { exclude, payload } => {
            let names: usize = exclude.iter().map(|name| 1 + name.len()).sum();
            (GROUP, 1 + names + payload.len())
        }
        Outgoing::Direct { channel, payload } => (DIRECT, 1 + channel.len() + payload.len()),
        Outgoing::Control(_) => (CONTROL, 64),
    };
    let put_header = |bytes: &mut Vec<u8>, version, flags| {
        bytes.extend([version, flags]);
        bytes.extend(header.sender.0.to_be_bytes());
        bytes.extend(header.sequence.to_be_bytes());
        bytes.extend(header.deadline.to_be_bytes());
    };
    let Some(Seal { crypt, now }) = seal else {
        let mut bytes = Vec::with_capacity(HEADER + length);
        put_header(&mut bytes, VERSION, kind);
        put_body(&mut bytes, body)?;
        return Ok(bytes.into());
    };
    if crypt.sends(Version::Two) {
        let mut bytes = Vec::with_capacity(HEADER + length + OVERHEAD);
        put_header(&mut bytes, SEALED, kind | ENCRYPTED);
        bytes.extend([0; IV]);
        put_body(&mut bytes, body)?;
        let digest = crypt.seal(&mut bytes, HEADER)?;
        return Ok(Draft::sealed(bytes, digest));
    }
    let mut text = Vec::with_capacity(length);
    put_body(&mut text, body)?;
    let token = crypt.encrypt(&text, now)?;
    let mut bytes = Vec::with_capacity(HEADER + token.len());
    put_header(&mut bytes, VERSION, kind | ENCRYPTED);
    bytes.extend(token);
    Ok(bytes.into())
}

fn put_body(bytes: &mut Vec<u8>, body: Outgoing<'_>) -> Result<(), Unsendable> {
    match body {
        Outgoing::Group { exclude, payload } => {
            let count = u8::try_from(exclude.len());
            bytes.push(count.map_err(|_| Unsendable::TooManyExcluded(exclude.len()))?);
            exclude.iter().try_for_each(|name| put_name(bytes, name))?;
            bytes.extend_from_slice(payload);
            Ok(())
        }
        Outgoing::Direct { channel, payload } => {
            put_name(bytes, channel)?;
            bytes.extend_from_slice(payload);
            Ok(())
        }
        Outgoing::Control(control) => control.put(bytes),
    }
}

/// The sender that an envelope names, whoever wrote it; 0 if it is too short.
pub fn sender(envelope: &[u8]) -> ProcessId {
    let mut reader = Reader::new(envelope.get(2..).unwrap_or_default());
    ProcessId(reader.number().unwrap_or_default())
}

/// Reads an envelope that was written to a destination, a key or a pub/sub channel; the payload stays in the buffer, or in
/// that of the decrypted body.
///
/// With keys, a body that is not encrypted is refused: else whoever can publish could do without them.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode(
    mut bytes: Vec<u8>,
    destination: &str,
    crypt: Option<&Crypt>,
) -> Result<Envelope, Malformed> {
    let mut reader = Reader::new(&bytes);
    let version = reader.byte()?;
    if version != VERSION && version != SEALED {
        return Err(Malformed::Version(version));
    }
    let flags = reader.byte()?;
    if flags & !(KIND | ENCRYPTED) != 0 {
        return Err(Malformed::Flags(flags));
    }
    let kind = flags & KIND;
    if kind > CONTROL {
        return Err(Malformed::Kind(kind));
    }
    let header = Header {
        sender: ProcessId(reader.number()?),
        sequence: reader.number()?,
        deadline: reader.number()?,
    };
    let sealed = version == SEALED;
    let body = match (crypt, flags & ENCRYPTED != 0) {
        (None, false) if sealed => Err(Malformed::Flags(flags)),
        (None, false) => read_body(kind, bytes, HEADER),
        (Some(crypt), true) if sealed && crypt.reads(Version::Two) => {
            let opened = crypt.open(&mut bytes, HEADER, destination);
            opened.map_err(Malformed::Undecryptable)?;
            read_body(kind, bytes, HEADER + IV)
        }
        (Some(crypt), true) if !sealed && crypt.reads(Version::One) => {
            let text = crypt
                .decrypt(reader.rest(), None)
                .map_err(Malformed::Undecryptable)?;
            read_body(kind, text, 0)
        }
        (Some(_), true) => Err(Malformed::Unaccepted(version)),
        (None, true) => Err(Malformed::Encrypted),
        (Some(_), false) => Err(Malformed::NotEncrypted),
    }?;
    Ok(Envelope {
        header,
        body,
        authenticated: sealed,
    })
}

fn read_body(kind: u8, bytes: Vec<u8>, start: usize) -> Result<Body, Malformed> {
    let mut reader = Reader::new(bytes.get(start..).ok_or(Malformed::Truncated)?);
    match kind {
        GROUP => {
            let count = reader.byte()?;
            let exclude = (0..count)
                .map(|_| reader.channel())
                .collect::<Result<_, _>>()?;
            let start = bytes.len() - reader.rest().len();
            Ok(Body::Group {
                exclude,
                payload: Payload { bytes, start },
            })
        }
        DIRECT => {
            let channel = reader.channel()?;
            let start = bytes.len() - reader.rest().len();
            Ok(Body::Direct {
                channel,
                payload: Payload { bytes, start },
            })
        }
        _ => {
            let control = Control::read(&mut reader)?;
            if reader.rest().is_empty() {
                Ok(Body::Control(control))
            } else {
                Err(Malformed::Trailing)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redis::crypt::Undecryptable;

    const HEAD: Header = Header {
        sender: ProcessId(0x0123_4567_89ab_cdef),
        sequence: 7,
        deadline: 1_700_000_060_000,
    };
    /// `{"type": "ping"}`
    const PING: &[u8] = b"\x81\xa4type\xa4ping";
    /// The header above, after version and flags.
    const HEAD_HEX: &str = "0123456789abcdef 0000000000000007 0000018bcfe65260";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.chunks(2).filter_map(byte).collect()
    }

    /// Where all of these are written to.
    const PLACE: &str = "asgi:g:room";

    fn written(draft: Result<Draft, Unsendable>) -> Vec<u8> {
        draft.map_or_else(|_| Vec::new(), |draft| draft.bytes().to_vec())
    }

    fn plain(body: Outgoing<'_>) -> Vec<u8> {
        written(encode(&HEAD, body, None))
    }

    /// Bytes of version 1 or 2, as they are when they are written so that the deadline is that of the header.
    fn sealed(header: &Header, body: Outgoing<'_>, crypt: &Crypt) -> Vec<u8> {
        let seal = Seal {
            crypt,
            now: 1_700_000_000,
        };
        let Ok(mut draft) = encode(header, body, Some(seal)) else {
            return Vec::new();
        };
        if draft.is_sealed() {
            let lasts = if matches!(body, Outgoing::Control(_)) {
                60_000
            } else {
                0
            };
            let date = Date {
                now: header.deadline - lasts,
                expiry: 0,
                crypt: Some(crypt),
            };
            draft.date(&date, PLACE);
        }
        draft.bytes().to_vec()
    }

    fn read(bytes: &[u8], crypt: Option<&Crypt>) -> Result<Envelope, Malformed> {
        decode(bytes.to_vec(), PLACE, crypt)
    }

    fn ping(exclude: &[&str]) -> Vec<u8> {
        plain(Outgoing::Group {
            exclude,
            payload: PING,
        })
    }

    fn crypt(secret: &str) -> Crypt {
        Crypt::new([secret]).expect("there is a secret")
    }

    /// The same key, for version 1.
    fn old(secret: &str) -> Crypt {
        crypt(secret).with_versions(vec![Version::One])
    }

    fn controls() -> [Control; 5] {
        let (group, channel) = ("room".to_owned(), "work".to_owned());
        [
            Control::Join {
                request: 3,
                group: group.clone(),
                channel: channel.clone(),
                expiry_ms: 86_400_000,
            },
            Control::Leave {
                request: 4,
                group,
                channel,
            },
            Control::Done { request: 3 },
            Control::MembersChanged,
            Control::Flush,
        ]
    }

    fn malformed(bytes: &[u8]) -> Option<Malformed> {
        read(bytes, None).err()
    }

    /// The example of docs/protocol.md: a direct message.
    #[test]
    fn bytes_are_those_of_the_protocol() {
        let channel = "specific.0123456789abcdef!t";
        let direct = Outgoing::Direct {
            channel,
            payload: PING,
        };
        let channel_hex = "73706563696669632e 30313233343536373839616263646566 2174";
        let ping_hex = "81 a474797065 a470696e67";
        assert_eq!(
            plain(direct),
            hex(&format!("01 01 {HEAD_HEX} 1b {channel_hex} {ping_hex}"))
        );
        assert_eq!(ping(&[]), hex(&format!("01 00 {HEAD_HEX} 00 {ping_hex}")));
        let expected = hex(&format!("01 00 {HEAD_HEX} 02 01 61 02 6263 {ping_hex}"));
        assert_eq!(ping(&["a", "bc"]), expected);
        let bodies = [
            "01 0000000000000003 04 726f6f6d 04 776f726b 0000000005265c00",
            "02 0000000000000004 04 726f6f6d 04 776f726b",
            "03 0000000000000003",
            "04",
            "05",
        ];
        for (control, body) in controls().iter().zip(bodies) {
            assert_eq!(
                plain(Outgoing::Control(control)),
                hex(&format!("01 02 {HEAD_HEX} {body}"))
            );
        }
    }

    #[test]
    fn an_encrypted_body_of_version_1_is_a_token() {
        let keys = old("first secret");
        let group = Outgoing::Group {
            exclude: &["a"],
            payload: PING,
        };
        let token = sealed(&HEAD, group, &keys);
        assert_eq!(token[..HEADER], hex(&format!("01 10 {HEAD_HEX}")));
        assert!(token[HEADER..].starts_with(b"gAAAAABlU_EA"));
        let expected = Envelope {
            header: HEAD,
            body: Body::Group {
                exclude: vec!["a".to_owned()],
                payload: PING.to_vec().into(),
            },
            authenticated: false,
        };
        assert_eq!(read(&token, Some(&keys)), Ok(expected));
        assert_eq!(malformed(&token), Some(Malformed::Encrypted));
        let wrong = read(&token, Some(&old("second secret")));
        assert_eq!(
            wrong,
            Err(Malformed::Undecryptable(Undecryptable::WrongKey))
        );
        assert_eq!(read(&ping(&[]), Some(&keys)), Err(Malformed::NotEncrypted));
        // A good token around a bad body.
        let mut empty = hex(&format!("01 11 {HEAD_HEX}"));
        empty.extend(keys.encrypt(b"", 0).unwrap_or_default());
        assert_eq!(read(&empty, Some(&keys)), Err(Malformed::Truncated));
    }

    /// The example of docs/protocol.md, whose initialisation vector is the bytes 0 to 15.
    #[test]
    fn bytes_of_version_2_are_those_of_the_protocol() {
        let keys = crypt("first secret");
        let mut bytes = hex(&format!("02 10 {HEAD_HEX}"));
        bytes.extend([0; IV]);
        bytes.push(0);
        bytes.extend(PING);
        let iv = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let digest = keys.seal_with(&mut bytes, HEADER, iv);
        let mut draft = Draft::sealed(bytes, digest);
        let date = Date {
            now: 1_700_000_000_000,
            expiry: 60_000,
            crypt: Some(&keys),
        };
        draft.date(&date, PLACE);
        let expected = hex(&format!(
            "02 10 {HEAD_HEX} 000102030405060708090a0b0c0d0e0f a999382d04847caa9ccf30d6c920a43c
             fdb2d546ecd56f8ef06acc440f2151071fb6ec3b862afbc5e1bd005b9117e52e"
        ));
        assert_eq!(draft.bytes()[..], expected);
    }

    #[test]
    fn an_envelope_of_version_2_is_authenticated_as_a_whole() {
        let keys = crypt("first secret");
        let group = Outgoing::Group {
            exclude: &["a"],
            payload: PING,
        };
        let bytes = sealed(&HEAD, group, &keys);
        let envelope = read(&bytes, Some(&keys)).expect("it is in order");
        assert!(envelope.authenticated);
        assert_eq!(envelope.header, HEAD);
        let refused = Err(Malformed::Undecryptable(Undecryptable::WrongKey));
        for place in ["asgi:g:admin", "asgi:q:{room}", "other:g:room", ""] {
            let moved = decode(bytes.clone(), place, Some(&keys));
            assert_eq!(moved, refused, "{place}");
        }
        for place in [2, 10, 17, 18, 25, HEADER, HEADER + IV, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_eq!(read(&changed, Some(&keys)), refused, "{place}");
        }
        let mut kind = bytes.clone();
        kind[1] ^= 1;
        assert_eq!(read(&kind, Some(&keys)), refused);
        assert_eq!(read(&bytes, Some(&crypt("second secret"))), refused);
        assert_eq!(malformed(&bytes), Some(Malformed::Encrypted));
        let mut bare = bytes.clone();
        bare[1] = 0;
        assert_eq!(read(&bare, Some(&keys)), Err(Malformed::NotEncrypted));
        assert_eq!(malformed(&bare), Some(Malformed::Flags(0)));
    }

    #[test]
    fn only_the_versions_that_were_asked_for_are_read() {
        let (new, old) = (crypt("a"), old("a"));
        let both = crypt("a").with_versions(vec![Version::Two, Version::One]);
        let of = |keys: &Crypt| sealed(&HEAD, Outgoing::Control(&Control::Flush), keys);
        assert_eq!(of(&both)[0], 2);
        assert_eq!(read(&of(&old), Some(&new)), Err(Malformed::Unaccepted(1)));
        assert_eq!(read(&of(&new), Some(&old)), Err(Malformed::Unaccepted(2)));
        for (sender, authenticated) in [(&new, true), (&old, false), (&both, true)] {
            let read = read(&of(sender), Some(&both));
            assert!(read.is_ok_and(|envelope| envelope.authenticated == authenticated));
        }
    }

    #[test]
    fn a_draft_may_be_dated_again_and_for_another_place() {
        let keys = crypt("a");
        let group = Outgoing::Group {
            exclude: &[],
            payload: PING,
        };
        let seal = Seal {
            crypt: &keys,
            now: 0,
        };
        let mut draft = encode(&HEAD, group, Some(seal)).expect("it fits");
        draft.number(9);
        for (now, place) in [(1, "asgi:q:{one}"), (2, "asgi:q:{two}")] {
            let date = Date {
                now,
                expiry: 10,
                crypt: Some(&keys),
            };
            draft.date(&date, place);
            let read = decode(draft.bytes().to_vec(), place, Some(&keys));
            let header = read.expect("it is in order").header;
            assert_eq!((header.sequence, header.deadline), (9, now + 10));
        }
    }

    #[test]
    fn number_and_deadline_are_set_and_nothing_else() {
        let mut stamped = Draft::from(ping(&["a"]));
        stamped.number(8);
        let date = Date {
            now: 4,
            expiry: 5,
            crypt: None,
        };
        stamped.date(&date, PLACE);
        let header = Header {
            sequence: 8,
            deadline: 9,
            ..HEAD
        };
        let expected = encode(
            &header,
            Outgoing::Group {
                exclude: &["a"],
                payload: PING,
            },
            None,
        );
        assert_eq!(Ok(stamped), expected);
        let mut short = Draft::from(vec![1; HEADER - 1]);
        short.number(8);
        short.date(&date, PLACE);
        assert_eq!(short.bytes()[..], [1; HEADER - 1]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let changed = |place: usize, value: u8| {
            let mut bytes = ping(&[]);
            bytes[place] = value;
            malformed(&bytes)
        };
        assert_eq!(changed(0, 0), Some(Malformed::Version(0)));
        assert_eq!(changed(0, 3), Some(Malformed::Version(3)));
        assert_eq!(changed(1, 3), Some(Malformed::Kind(3)));
        assert_eq!(changed(1, 0x0f), Some(Malformed::Kind(0x0f)));
        assert_eq!(changed(1, 0x1f), Some(Malformed::Kind(0x0f)));
        assert_eq!(changed(1, 0x20), Some(Malformed::Flags(0x20)));
        assert_eq!(changed(1, 0xff), Some(Malformed::Flags(0xff)));
        let control = |body: &str| malformed(&hex(&format!("01 02 {HEAD_HEX} {body}")));
        assert_eq!(control("00"), Some(Malformed::Operation(0)));
        assert_eq!(control("06"), Some(Malformed::Operation(6)));
        assert_eq!(control("04 00"), Some(Malformed::Trailing));
        assert_eq!(control(""), Some(Malformed::Truncated));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let direct = |name: &[u8]| {
            let mut bytes = hex(&format!("01 01 {HEAD_HEX}"));
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend(name);
            malformed(&bytes)
        };
        assert_eq!(direct(b"work"), None);
        assert_eq!(direct(&[b'x'; 100]), None);
        for name in [
            &b""[..],
            &[b'x'; 101],
            b"a b",
            b"\xff",
            "\u{e9}".as_bytes(),
            b"!a",
            b"a\0b",
        ] {
            assert_eq!(direct(name), Some(Malformed::Name), "{name:?}");
        }
        // A group's name holds no "!".
        let join = format!("01 02 {HEAD_HEX} 02 0000000000000004 03 612162 01 61");
        assert_eq!(malformed(&hex(&join)), Some(Malformed::Name));
    }

    #[test]
    fn what_does_not_fit_is_not_encoded() {
        let long = "x".repeat(101);
        let direct = encode(
            &HEAD,
            Outgoing::Direct {
                channel: &long,
                payload: PING,
            },
            None,
        );
        assert_eq!(direct, Err(Unsendable::NameTooLong(101)));
        let many = |count| {
            let exclude = vec!["a"; count];
            encode(
                &HEAD,
                Outgoing::Group {
                    exclude: &exclude,
                    payload: PING,
                },
                None,
            )
            .map(|_| ())
        };
        assert_eq!(many(MAX_EXCLUDED), Ok(()));
        assert_eq!(
            many(MAX_EXCLUDED + 1),
            Err(Unsendable::TooManyExcluded(256))
        );
    }

    #[test]
    fn a_payload_is_the_buffer_that_came_in() {
        let bytes = ping(&["a"]);
        let address = bytes.as_ptr();
        let Ok(Envelope {
            body: Body::Group { payload, .. },
            ..
        }) = decode(bytes, PLACE, None)
        else {
            panic!("not a group message")
        };
        assert_eq!(format!("{payload:?}"), "Payload(11 bytes)");
        assert_eq!(payload.as_bytes(), PING);
        let (buffer, start) = payload.into_parts();
        assert_eq!((buffer.as_ptr(), start), (address, HEADER + 3));
    }

    fn headers() -> impl Strategy<Value = Header> {
        (any::<u64>(), any::<u64>(), 60_000..u64::MAX).prop_map(|(sender, sequence, deadline)| {
            Header {
                sender: ProcessId(sender),
                sequence,
                deadline,
            }
        })
    }

    fn bodies() -> impl Strategy<Value = Body> {
        let name = || "[a-zA-Z0-9._-]{1,99}";
        let channel = || "[a-zA-Z0-9._-]{1,40}(![a-z0-9]{0,40})?";
        let payload = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Payload::from);
        let exclude = prop::collection::vec(channel(), 0..5);
        prop_oneof![
            (exclude, payload()).prop_map(|(exclude, payload)| Body::Group { exclude, payload }),
            (channel(), payload()).prop_map(|(channel, payload)| Body::Direct { channel, payload }),
            (any::<u64>(), name(), channel(), any::<u64>()).prop_map(
                |(request, group, channel, expiry_ms)| {
                    Body::Control(Control::Join {
                        request,
                        group,
                        channel,
                        expiry_ms,
                    })
                }
            ),
            (any::<u64>(), name(), channel()).prop_map(|(request, group, channel)| Body::Control(
                Control::Leave {
                    request,
                    group,
                    channel
                }
            )),
            any::<u64>().prop_map(|request| Body::Control(Control::Done { request })),
            Just(Body::Control(Control::MembersChanged)),
            Just(Body::Control(Control::Flush)),
        ]
    }

    fn encoded(envelope: &Envelope, crypt: Option<&Crypt>) -> Vec<u8> {
        let exclude: Vec<&str>;
        let body = match &envelope.body {
            Body::Group {
                exclude: names,
                payload,
            } => {
                exclude = names.iter().map(String::as_str).collect();
                Outgoing::Group {
                    exclude: &exclude,
                    payload: payload.as_bytes(),
                }
            }
            Body::Direct { channel, payload } => Outgoing::Direct {
                channel,
                payload: payload.as_bytes(),
            },
            Body::Control(control) => Outgoing::Control(control),
        };
        match crypt {
            Some(crypt) => sealed(&envelope.header, body, crypt),
            None => written(encode(&envelope.header, body, None)),
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(
            header in headers(),
            body in bodies(),
            keys in prop::option::of(("[a-z]{1,9}", any::<bool>())),
        ) {
            let keys = keys.map(|(secret, authenticated)| {
                let keys = if authenticated { crypt(&secret) } else { old(&secret) };
                (keys, authenticated)
            });
            let authenticated = keys.as_ref().is_some_and(|(_, authenticated)| *authenticated);
            let keys = keys.map(|(keys, _)| keys);
            let envelope = Envelope { header, body, authenticated };
            let bytes = encoded(&envelope, keys.as_ref());
            prop_assert_eq!(sender(&bytes), header.sender);
            prop_assert_eq!(read(&bytes, keys.as_ref()), Ok(envelope));
        }

        /// A payload has no end of its own, so a shorter one is another message; all in front of it must be there.
        #[test]
        fn truncations_are_refused_or_shorten_the_payload(header in headers(), body in bodies()) {
            let envelope = Envelope { header, body, authenticated: false };
            let bytes = encoded(&envelope, None);
            let payload = match &envelope.body {
                Body::Group { payload, .. } | Body::Direct { payload, .. } => payload.as_bytes().len(),
                Body::Control(_) => 0,
            };
            for length in 0..bytes.len() {
                let decoded = read(&bytes[..length], None);
                prop_assert_eq!(decoded.is_ok(), length >= bytes.len() - payload);
            }
        }
    }
}
