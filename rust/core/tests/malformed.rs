//! What comes from a server is not to be trusted: the decoders see everything here, and neither panic nor let pass what
//! is not in order. `PROPTEST_CASES=1000000` makes it a longer search.
#![cfg(feature = "redis")]

use headrace_core::redis::crypt::{Crypt, Version};
use headrace_core::redis::envelope::{
    Body, Control, Date, DecodedEnvelope, HEADER, Header, Malformed, OutgoingBody, Seal, decode,
    encode,
};
use headrace_core::redis::keys::ProcessId;
use headrace_core::redis::msgpack::Defect;
use headrace_core::redis::payload::{BadPayload, inspect};
use proptest::prelude::*;
use proptest::sample::Index;
use rmpv::Value;

fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config.cases,
        None => 4096,
    };
    // No file of failures: an integration test has no place for one, and the seed is printed.
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..config
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

/// A message in msgpack.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        bytes(300).prop_map(Value::from),
        prop::collection::vec(any::<bool>().prop_map(Value::from), 0..20).prop_map(Value::Array),
        prop::collection::vec("[a-z]{0,4}", 0..20).prop_map(|keys| Value::Map(
            keys.into_iter()
                .map(|key| (key.into(), Value::Nil))
                .collect()
        )),
    ];
    prop::collection::vec(("(type|[a-z]{0,40})".prop_map(Value::from), value), 0..6).prop_map(
        |pairs| {
            let mut bytes = Vec::new();
            let written = rmpv::encode::write_value(&mut bytes, &Value::Map(pairs));
            assert!(written.is_ok(), "a vector takes everything");
            bytes
        },
    )
}

fn envelopes() -> impl Strategy<Value = DecodedEnvelope> {
    let channel = || "[a-z0-9.]{1,40}(![a-z0-9]{0,20})?";
    let exclude = || prop::collection::vec(channel(), 0..4);
    let body = prop_oneof![
        (exclude(), messages()).prop_map(|(exclude, payload)| Body::Group {
            exclude,
            payload: payload.into()
        }),
        (any::<u64>(), exclude(), messages()).prop_map(|(epoch, exclude, payload)| Body::Kept {
            epoch,
            exclude,
            payload: payload.into()
        }),
        (channel(), messages()).prop_map(|(channel, payload)| Body::Direct {
            channel,
            payload: payload.into()
        }),
        (any::<u64>(), "[a-z]{1,9}", channel(), any::<u64>()).prop_map(
            |(request, group, channel, expiry_ms)| {
                Body::Control(Control::Join {
                    request,
                    group,
                    channel,
                    expiry_ms,
                })
            }
        ),
        (any::<u64>(), "[a-z]{1,9}", channel()).prop_map(|(request, group, channel)| {
            Body::Control(Control::Leave {
                request,
                group,
                channel,
            })
        }),
        any::<u64>().prop_map(|request| Body::Control(Control::Done { request })),
        Just(Body::Control(Control::Flush)),
    ];
    (any::<u64>(), any::<u64>(), any::<u64>(), body).prop_map(
        |(sender, sequence, deadline, body)| {
            let header = Header {
                sender: ProcessId(sender),
                sequence,
                deadline,
            };
            DecodedEnvelope {
                header,
                body,
                authenticated: false,
            }
        },
    )
}

fn written(envelope: &DecodedEnvelope, crypt: Option<&Crypt>) -> Vec<u8> {
    let names: Vec<&str>;
    let body = match &envelope.body {
        Body::Group { exclude, payload } => {
            names = exclude.iter().map(String::as_str).collect();
            OutgoingBody::Group {
                exclude: &names,
                payload: payload.as_bytes(),
            }
        }
        Body::Kept {
            exclude, payload, ..
        } => {
            names = exclude.iter().map(String::as_str).collect();
            OutgoingBody::Kept {
                exclude: &names,
                payload: payload.as_bytes(),
            }
        }
        Body::Direct { channel, payload } => OutgoingBody::Direct {
            channel,
            payload: payload.as_bytes(),
        },
        Body::Control(control) => OutgoingBody::Control(control),
    };
    let seal = crypt.map(|crypt| Seal {
        crypt,
        now: 1_700_000_000,
    });
    let Ok(mut draft) = encode(&envelope.header, body, seal) else {
        return Vec::new();
    };
    if let Body::Kept { epoch, .. } = envelope.body {
        draft.epoch(epoch);
    }
    if draft.is_sealed() {
        let date = Date {
            now: envelope.header.deadline,
            expiry: 0,
            crypt,
        };
        draft.date(&date, PLACE);
    }
    draft.bytes().to_vec()
}

/// Where all of these are written to.
const PLACE: &str = "asgi:g:room";

fn read(bytes: &[u8], crypt: Option<&Crypt>) -> Result<DecodedEnvelope, Malformed> {
    decode(bytes.to_vec(), PLACE, crypt)
}

fn keys() -> Option<Crypt> {
    Crypt::new(["a secret", "an older secret"])
}

/// The same for version 1, which authenticates bodies alone.
fn old_keys() -> Option<Crypt> {
    keys().map(|keys| keys.with_versions(vec![Version::One]))
}

/// What somebody without a key may make of an envelope that he recorded.
#[derive(Clone, Debug)]
enum Forgery {
    Flip(Vec<(Index, u8)>),
    Cut(Index),
    Extend(Vec<u8>),
    /// A field of the header: its place, and its bytes.
    Header(usize, Vec<u8>),
    /// The beginning of it, and the end of another one from the same place on.
    Join(Index),
    /// Two blocks of the body change places.
    Swap(Index, Index),
    Move(String),
}

fn forgeries() -> impl Strategy<Value = Forgery> {
    let header = (0..HEADER, bytes(9)).prop_map(|(at, bytes)| Forgery::Header(at, bytes));
    prop_oneof![
        3 => prop::collection::vec(any::<(Index, u8)>(), 1..5).prop_map(Forgery::Flip),
        1 => any::<Index>().prop_map(Forgery::Cut),
        1 => bytes(64).prop_map(Forgery::Extend),
        3 => header,
        1 => any::<Index>().prop_map(Forgery::Join),
        1 => any::<(Index, Index)>().prop_map(|(one, other)| Forgery::Swap(one, other)),
        1 => "(asgi|other):(g:[a-z]{1,8}|q:\\{[a-z]{1,8}\\}|c|p:[0-9a-f]{16})".prop_map(Forgery::Move),
    ]
}

/// The forged envelope, and where it is put.
fn forged(bytes: &[u8], other: &[u8], forgery: &Forgery) -> (Vec<u8>, String) {
    let mut forged = bytes.to_vec();
    let mut place = PLACE.to_owned();
    match forgery {
        Forgery::Flip(flips) => flip(&mut forged, flips),
        Forgery::Cut(cut) => forged.truncate(cut.index(bytes.len())),
        Forgery::Extend(more) => forged.extend(more),
        Forgery::Header(at, field) => {
            for (to, byte) in forged[*at..HEADER].iter_mut().zip(field) {
                *to = *byte;
            }
        }
        Forgery::Join(at) => {
            let at = at.index(bytes.len().min(other.len()));
            forged.truncate(at);
            forged.extend(&other[at..]);
        }
        Forgery::Swap(one, other) => {
            let blocks = (bytes.len() - HEADER) / 16;
            for byte in 0..16 {
                let at = |index: &Index| HEADER + index.index(blocks) * 16 + byte;
                forged.swap(at(one), at(other));
            }
        }
        Forgery::Move(to) => place.clone_from(to),
    }
    (forged, place)
}

/// Whatever passes the decoder is what the encoder would have written, and what passes the scanner is a message.
fn only_what_is_in_order_passes(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(envelope) = read(bytes, None) else {
        return Ok(());
    };
    prop_assert_eq!(written(&envelope, None), bytes);
    match &envelope.body {
        Body::Group { payload, .. } | Body::Kept { payload, .. } | Body::Direct { payload, .. } => {
            only_messages_pass(payload.as_bytes())
        }
        Body::Control(_) => Ok(()),
    }
}

fn only_messages_pass(payload: &[u8]) -> Result<(), TestCaseError> {
    let Ok(shape) = inspect(payload) else {
        return Ok(());
    };
    let mut rest = payload;
    let value = rmpv::decode::read_value(&mut rest);
    prop_assert!(rest.is_empty());
    prop_assert!(value.is_ok_and(|value| value.is_map()));
    prop_assert!(
        shape
            .kind
            .is_none_or(|kind| std::str::from_utf8(&payload[kind]).is_ok())
    );
    Ok(())
}

fn flip(bytes: &mut [u8], flips: &[(Index, u8)]) {
    for (place, bit) in flips {
        if let Some(byte) = bytes.get_mut(place.index(bytes.len())) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn random_bytes(bytes in bytes(200), kind in 0..4_u8) {
        only_what_is_in_order_passes(&bytes)?;
        only_messages_pass(&bytes)?;
        let keys = keys();
        prop_assert!(read(&bytes, keys.as_ref()).is_err());
        prop_assert!(read(&bytes, old_keys().as_ref()).is_err());
        let mut sealed = vec![2, 16 | kind];
        sealed.extend(&bytes);
        prop_assert!(read(&sealed, keys.as_ref()).is_err());
        prop_assert!(keys.is_some_and(|keys| keys.decrypt(&bytes).is_err()));
        // The same as the body of an envelope, and as the rest of a map.
        let mut body = vec![1, kind];
        body.extend([7; HEADER - 2]);
        body.extend(&bytes);
        only_what_is_in_order_passes(&body)?;
        let mut map = vec![0x82, 0xa4, b't', b'y', b'p', b'e'];
        map.extend(&bytes);
        only_messages_pass(&map)?;
    }

    #[test]
    fn random_tokens(token in "[A-Za-z0-9_-]{0,200}={0,2}") {
        // Version and a time of this century, so that more than the first byte is looked at.
        let token = format!("gAAAAABl{token}");
        let refused = keys().is_some_and(|keys| keys.decrypt(token.as_bytes()).is_err());
        prop_assert!(refused);
    }

    #[test]
    fn flipped_bits(envelope in envelopes(), flips in prop::collection::vec(any::<(Index, u8)>(), 1..4)) {
        let mut bytes = written(&envelope, None);
        flip(&mut bytes, &flips);
        only_what_is_in_order_passes(&bytes)?;
    }

    #[test]
    fn flipped_bits_of_an_encrypted_body(envelope in envelopes(), flipped in any::<(Index, u8)>()) {
        let keys = old_keys();
        let mut bytes = written(&envelope, keys.as_ref());
        // Version 1 authenticates the body alone, and the epoch of a kept message stands before that.
        let epoch = if matches!(envelope.body, Body::Kept { .. }) { 8 } else { 0 };
        flip(&mut bytes[HEADER + epoch..], &[flipped]);
        prop_assert!(read(&bytes, keys.as_ref()).is_err());
    }

    #[test]
    fn truncations(envelope in envelopes(), cut in any::<Index>()) {
        let bytes = written(&envelope, None);
        let cut_off = &bytes[..cut.index(bytes.len())];
        only_what_is_in_order_passes(cut_off)?;
        let cut_payload = match read(cut_off, None).map(|envelope| envelope.body) {
            Ok(Body::Group { payload, .. } | Body::Kept { payload, .. } | Body::Direct { payload, .. }) => Some(payload),
            _ => None,
        };
        if let Some(payload) = cut_payload {
            prop_assert!(inspect(payload.as_bytes()).is_err());
        }
        for keys in [keys(), old_keys()] {
            let bytes = written(&envelope, keys.as_ref());
            prop_assert!(read(&bytes[..cut.index(bytes.len())], keys.as_ref()).is_err());
        }
    }

    /// A length that claims more than there is, in the place of any value.
    #[test]
    fn huge_lengths(
        message in messages(),
        marker in prop::sample::select(vec![0xc6_u8, 0xdb, 0xdd, 0xdf]),
        length in 0x0100_0000..=u32::MAX,
        depth in 0..60_usize,
    ) {
        let mut bytes = b"\x82\xa1a".to_vec();
        bytes.extend(std::iter::repeat_n(0x91, depth));
        let at = bytes.len();
        bytes.push(marker);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&message);
        prop_assert_eq!(inspect(&bytes), Err(BadPayload { defect: Defect::Truncated, at }));
        // As the whole message.
        let refused = inspect(&bytes[at..]).is_err_and(|bad| matches!(bad.defect, Defect::Truncated | Defect::NoMap));
        prop_assert!(refused);
    }

    /// Names and counts of an envelope that reach behind its end.
    #[test]
    fn names_that_claim_too_much(count in 1..=255_u8, length in 1..=255_u8, rest in bytes(100)) {
        let header = |kind| [vec![1, kind], vec![0; HEADER - 2]].concat();
        let rest: Vec<u8> = rest.into_iter().take(usize::from(length) - 1).collect();
        let group = [header(0), vec![count, length], rest.clone()].concat();
        prop_assert!(read(&group, None).is_err());
        let direct = [header(1), vec![length], rest].concat();
        prop_assert!(read(&direct, None).is_err());
    }
}

/// Envelopes of each search below, and forgeries of each.
const SEARCHED: u32 = 1000;
const FORGERIES: usize = 60;

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases.min(SEARCHED), ..cases() })]

    /// Of what somebody without a key makes of authenticated envelopes nothing is accepted but these envelopes themselves.
    #[test]
    fn no_forgery_is_accepted(
        envelope in envelopes(),
        other in envelopes(),
        forgeries in prop::collection::vec(forgeries(), FORGERIES),
    ) {
        let keys = keys();
        let (bytes, other) = (written(&envelope, keys.as_ref()), written(&other, keys.as_ref()));
        let original = read(&bytes, keys.as_ref());
        prop_assert!(original.is_ok_and(|envelope| envelope.authenticated));
        for forgery in &forgeries {
            let (forged, place) = forged(&bytes, &other, forgery);
            let genuine = place == PLACE && (forged == bytes || forged == other);
            let read = decode(forged, &place, keys.as_ref());
            prop_assert_eq!(read.is_ok(), genuine, "{:?}", forgery);
        }
    }
}
