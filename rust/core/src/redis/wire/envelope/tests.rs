use proptest::prelude::*;

use super::*;
use crate::redis::wire::crypt::Undecryptable;

mod buffers;
mod kept;
mod limits;

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

fn plain(body: OutgoingBody<'_>) -> Vec<u8> {
    written(encode(&HEAD, body, None))
}

/// Bytes of version 1 or 2, as they are when they are written so that the deadline is that of the header.
fn sealed(header: &Header, body: OutgoingBody<'_>, crypt: &Crypt) -> Vec<u8> {
    sealed_in(0, header, body, crypt)
}

/// The same, of an epoch.
fn sealed_in(epoch: u64, header: &Header, body: OutgoingBody<'_>, crypt: &Crypt) -> Vec<u8> {
    let seal = Seal {
        crypt,
        now: 1_700_000_000,
    };
    let Ok(mut draft) = encode(header, body, Some(seal)) else {
        return Vec::new();
    };
    draft.epoch(epoch);
    if draft.is_sealed() {
        let lasts = if matches!(body, OutgoingBody::Control(_)) {
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

fn read(bytes: &[u8], crypt: Option<&Crypt>) -> Result<DecodedEnvelope, Malformed> {
    decode(bytes.to_vec(), PLACE, crypt)
}

fn ping(exclude: &[&str]) -> Vec<u8> {
    plain(OutgoingBody::Group {
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

fn controls() -> [Control; 7] {
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
            group: group.clone(),
            channel: channel.clone(),
        },
        Control::Done { request: 3 },
        Control::MembersChanged,
        Control::Flush,
        Control::Membership {
            group,
            channel,
            end: HEAD.deadline,
        },
        Control::ReadMembers,
    ]
}

fn malformed(bytes: &[u8]) -> Option<Malformed> {
    read(bytes, None).err()
}

/// The example of docs/reference/protocol.md: a direct message.
#[test]
fn bytes_are_those_of_the_protocol() {
    let channel = "specific.0123456789abcdef!t";
    let direct = OutgoingBody::Direct {
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
        "06 04 726f6f6d 04 776f726b 0000018bcfe65260",
        "07",
    ];
    for (control, body) in controls().iter().zip(bodies) {
        assert_eq!(
            plain(OutgoingBody::Control(control)),
            hex(&format!("01 02 {HEAD_HEX} {body}"))
        );
    }
}

#[test]
fn an_encrypted_body_of_version_1_is_a_token() {
    let keys = old("first secret");
    let group = OutgoingBody::Group {
        exclude: &["a"],
        payload: PING,
    };
    let token = sealed(&HEAD, group, &keys);
    assert_eq!(token[..HEADER], hex(&format!("01 10 {HEAD_HEX}")));
    assert!(token[HEADER..].starts_with(b"gAAAAABlU_EA"));
    let expected = DecodedEnvelope {
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

/// The example of docs/reference/protocol.md, whose initialisation vector is the bytes 0 to 15.
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
    let group = OutgoingBody::Group {
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
    let of = |keys: &Crypt| sealed(&HEAD, OutgoingBody::Control(&Control::Flush), keys);
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
    let group = OutgoingBody::Group {
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
        OutgoingBody::Group {
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
    assert_eq!(changed(1, 4), Some(Malformed::Kind(4)));
    assert_eq!(changed(1, 0x0f), Some(Malformed::Kind(0x0f)));
    assert_eq!(changed(1, 0x1f), Some(Malformed::Kind(0x0f)));
    assert_eq!(changed(1, 0x20), Some(Malformed::Flags(0x20)));
    assert_eq!(changed(1, 0xff), Some(Malformed::Flags(0xff)));
    let control = |body: &str| malformed(&hex(&format!("01 02 {HEAD_HEX} {body}")));
    assert_eq!(control("00"), Some(Malformed::Operation(0)));
    assert_eq!(control("06"), Some(Malformed::Truncated));
    assert_eq!(control("07 00"), Some(Malformed::Trailing));
    assert_eq!(control("08"), Some(Malformed::Operation(8)));
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
    let long = [b'x'; 101];
    let names: [&[u8]; 7] = [b"", &long, b"a b", b"\xff", b"\xc3\xa9", b"!a", b"a\0b"];
    for name in names {
        assert_eq!(direct(name), Some(Malformed::Name), "{name:?}");
    }
    // A group's name holds no "!".
    for body in ["02 0000000000000004 03 612162", "06 03 612162"] {
        let control = hex(&format!("01 02 {HEAD_HEX} {body}"));
        assert_eq!(malformed(&control), Some(Malformed::Name));
    }
}

fn headers() -> impl Strategy<Value = Header> {
    (any::<u64>(), any::<u64>(), 60_000..u64::MAX).prop_map(|(sender, sequence, deadline)| Header {
        sender: ProcessId(sender),
        sequence,
        deadline,
    })
}

fn bodies() -> impl Strategy<Value = Body> {
    let name = || "[a-zA-Z0-9._-]{1,99}";
    let channel = || "[a-zA-Z0-9._-]{1,40}(![a-z0-9]{0,40})?";
    let payload = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Payload::from);
    let exclude = || prop::collection::vec(channel(), 0..5);
    prop_oneof![
        (exclude(), payload()).prop_map(|(exclude, payload)| Body::Group { exclude, payload }),
        (any::<u64>(), exclude(), payload()).prop_map(|(epoch, exclude, payload)| Body::Kept {
            epoch,
            exclude,
            payload
        }),
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
        (name(), channel(), any::<u64>()).prop_map(|(group, channel, end)| Body::Control(
            Control::Membership {
                group,
                channel,
                end
            }
        )),
        Just(Body::Control(Control::ReadMembers)),
    ]
}

fn encoded(envelope: &DecodedEnvelope, crypt: Option<&Crypt>) -> Vec<u8> {
    let exclude: Vec<&str>;
    let body = match &envelope.body {
        Body::Group {
            exclude: names,
            payload,
        } => {
            exclude = names.iter().map(String::as_str).collect();
            OutgoingBody::Group {
                exclude: &exclude,
                payload: payload.as_bytes(),
            }
        }
        Body::Kept {
            exclude: names,
            payload,
            ..
        } => {
            exclude = names.iter().map(String::as_str).collect();
            OutgoingBody::Kept {
                exclude: &exclude,
                payload: payload.as_bytes(),
            }
        }
        Body::Direct { channel, payload } => OutgoingBody::Direct {
            channel,
            payload: payload.as_bytes(),
        },
        Body::Control(control) => OutgoingBody::Control(control),
    };
    let epoch = match envelope.body {
        Body::Kept { epoch, .. } => epoch,
        _ => 0,
    };
    match crypt {
        Some(crypt) => sealed_in(epoch, &envelope.header, body, crypt),
        None => written(encode(&envelope.header, body, None).map(|mut draft| {
            draft.epoch(epoch);
            draft
        })),
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
        let envelope = DecodedEnvelope { header, body, authenticated };
        let bytes = encoded(&envelope, keys.as_ref());
        prop_assert_eq!(sender(&bytes), header.sender);
        prop_assert_eq!(read(&bytes, keys.as_ref()), Ok(envelope));
    }

    /// A payload has no end of its own, so a shorter one is another message; all in front of it must be there.
    #[test]
    fn truncations_are_refused_or_shorten_the_payload(header in headers(), body in bodies()) {
        let envelope = DecodedEnvelope { header, body, authenticated: false };
        let bytes = encoded(&envelope, None);
        let payload = match &envelope.body {
            Body::Group { payload, .. } | Body::Kept { payload, .. } | Body::Direct { payload, .. } => {
                payload.as_bytes().len()
            }
            Body::Control(_) => 0,
        };
        for length in 0..bytes.len() {
            let decoded = read(&bytes[..length], None);
            prop_assert_eq!(decoded.is_ok(), length >= bytes.len() - payload);
        }
    }
}
