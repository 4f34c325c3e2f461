use proptest::prelude::*;
use rmpv::Value;

use super::*;
use crate::redis::wire::msgpack::{MAX_CONTAINERS, MAX_DEPTH};

fn defect(bytes: &[u8]) -> Option<Defect> {
    inspect(bytes).err().map(|bad| bad.defect)
}

fn kind(bytes: &[u8]) -> Option<&str> {
    kind_in(&inspect(bytes).ok()?, bytes)
}

/// The text of the type, of the bytes that were inspected.
fn kind_in<'a>(shape: &Shape, bytes: &'a [u8]) -> Option<&'a str> {
    let kind = bytes.get(shape.kind.clone()?)?;
    std::str::from_utf8(kind).ok()
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(rmpv::encode::write_value(&mut bytes, value).is_ok());
    bytes
}

/// `{"a": [[...]]}` with `depth` containers in each other.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = b"\x81\xa1a".to_vec();
    bytes.extend(std::iter::repeat_n(0x91, depth - 2));
    bytes.push(0x90);
    bytes
}

#[test]
fn the_type_is_found_wherever_it_stands() {
    // {"type": "chat.message", "n": 1}
    assert_eq!(
        kind(b"\x82\xa4type\xacchat.message\xa1n\x01"),
        Some("chat.message")
    );
    // {"n": {"type": "inner"}, "type": "outer"}
    assert_eq!(
        kind(b"\x82\xa1n\x81\xa4type\xa5inner\xa4type\xa5outer"),
        Some("outer")
    );
    // {"type": {"type": "inner"}}, {"n": "type"}, {"type": ["type", "x"]}
    assert_eq!(kind(b"\x81\xa4type\x81\xa4type\xa5inner"), None);
    assert_eq!(kind(b"\x81\xa1n\xa4type"), None);
    assert_eq!(kind(b"\x81\xa4type\x92\xa4type\xa1x"), None);
    // A key twice: the last value counts.
    assert_eq!(kind(b"\x82\xa4type\xa1a\xa4type\xa1b"), Some("b"));
    assert_eq!(kind(b"\x82\xa4type\xa1a\xa4type\x07"), None);
    assert_eq!(kind(b"\x80"), None);
    assert_eq!(inspect(b"\x80"), Ok(Shape { kind: None }));
}

#[test]
fn what_python_sends_passes() {
    // {b"a": 1}, and {"a": [2**64 - 1, -2**63, 1.5, b"x", True, None]}
    assert_eq!(defect(b"\x81\xc4\x01a\x01"), None);
    let bytes = b"\x81\xa1a\x96\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xd3\x80\0\0\0\0\0\0\0\
        \xcb\x3f\xf8\0\0\0\0\0\0\xc4\x01x\xc3\xc0";
    assert_eq!(defect(bytes), None);
}

#[test]
fn each_fault_has_its_name() {
    for (bytes, expected) in [
        (&b""[..], Defect::Truncated),
        (b"\x90", Defect::NoMap),
        (b"\xa1a", Defect::NoMap),
        (b"\x07", Defect::NoMap),
        (b"\x81", Defect::Truncated),
        (b"\x81\xa1a", Defect::Truncated),
        (b"\x81\xa2a", Defect::Truncated),
        (b"\x81\x01\x01", Defect::Key),
        (b"\x81\xc0\x01", Defect::Key),
        (b"\x81\x90\x01", Defect::Key),
        (b"\x81\xa1a\x81\x01\x01", Defect::Key),
        (b"\x81\xa1\xff\x01", Defect::NotUtf8),
        (b"\x81\xa1a\xa2\xc3\x28", Defect::NotUtf8),
        (b"\x81\xa1a\xd4\x05\x00", Defect::Extension),
        (b"\x81\xa1a\xd6\xff\0\0\0\0", Defect::Extension),
        (b"\x81\xa1a\xc7\0\x05", Defect::Extension),
        (b"\x81\xa1a\xc1", Defect::Reserved),
        (b"\x80\x80", Defect::Trailing),
        (b"\x80\xc1", Defect::Trailing),
    ] {
        assert_eq!(defect(bytes), Some(expected), "{bytes:02x?}");
    }
}

#[test]
fn huge_claims_are_refused_at_once() {
    for bytes in [
        &b"\xdf\xff\xff\xff\xff"[..],
        b"\xde\xff\xff\xa1a",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xdb\xff\xff\xff\xff",
    ] {
        assert_eq!(defect(bytes), Some(Defect::Truncated), "{bytes:02x?}");
    }
}

#[test]
fn depth_and_number_of_containers_are_limited() {
    assert_eq!(defect(&nested(MAX_DEPTH)), None);
    assert_eq!(defect(&nested(MAX_DEPTH + 1)), Some(Defect::TooDeep));
    assert_eq!(defect(&nested(1 << 20)), Some(Defect::TooDeep));
    let many = |empty: usize| {
        let mut bytes = b"\x81\xa1a\xdd".to_vec();
        bytes.extend(u32::try_from(empty).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(std::iter::repeat_n(0x90, empty));
        bytes
    };
    assert_eq!(defect(&many(MAX_CONTAINERS - 2)), None);
    assert_eq!(defect(&many(MAX_CONTAINERS - 1)), Some(Defect::TooMany));
}

#[test]
fn an_error_names_the_place() {
    let error = inspect(b"\x81\xa1a\xc1").map_err(|bad| bad.to_string());
    let text = "the message holds the byte 0xc1, which msgpack does not use (byte 3)";
    assert_eq!(error, Err(text.to_owned()));
}

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(type|\\PC{0,40})".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::from),
    ]
}

/// Messages, and things that are nearly messages.
fn values() -> impl Strategy<Value = Value> {
    let odd = prop_oneof![
        30 => scalars(),
        1 => (any::<i8>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(t, b)| Value::Ext(t, b)),
    ];
    let value = odd.prop_recursive(4, 24, 5, |inner| {
        let key = prop_oneof![
            40 => "(type|[a-z]{0,3})".prop_map(Value::from),
            4 => "(type|[a-z]{0,3})".prop_map(|key| Value::Binary(key.into_bytes())),
            1 => scalars(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..6).prop_map(Value::Map),
        ]
    });
    let key = "(type|[a-z]{0,3})".prop_map(Value::from);
    prop_oneof![
        8 => prop::collection::vec((key, value.clone()), 0..8).prop_map(Value::Map),
        1 => value,
    ]
}

/// The rules, stated in another way: of a tree, by recursion. Depth is tested elsewhere.
fn allowed(value: &Value) -> bool {
    match value {
        Value::Ext(..) => false,
        Value::String(text) => text.is_str(),
        Value::Array(values) => values.iter().all(allowed),
        Value::Map(pairs) => pairs.iter().all(|(key, value)| {
            let is_key = matches!(key, Value::Binary(_))
                || matches!(key, Value::String(text) if text.is_str());
            is_key && allowed(value)
        }),
        _ => true,
    }
}

fn reference_kind(value: &Value) -> Option<&str> {
    let pairs = value.as_map()?;
    let last = pairs
        .iter()
        .rev()
        .find(|(key, _)| key.as_str() == Some("type"))?;
    last.1.as_str()
}

/// What `rmpv` and the rules make of the bytes.
fn reference(bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let value = rmpv::decode::read_value(&mut rest).ok()?;
    (rest.is_empty() && value.is_map() && allowed(&value)).then_some(value)
}

fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let ours = inspect(bytes);
    // rmpv reads 0xc1 as nil, and knows other limits.
    if matches!(
        ours,
        Err(BadPayload {
            defect: Defect::Reserved | Defect::TooDeep | Defect::TooMany,
            ..
        })
    ) {
        return Ok(());
    }
    let theirs = reference(bytes);
    prop_assert_eq!(ours.is_ok(), theirs.is_some(), "{:?} {:?}", ours, theirs);
    if let (Ok(shape), Some(value)) = (ours, theirs) {
        prop_assert_eq!(kind_in(&shape, bytes), reference_kind(&value));
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_rmpv_about_values(value in values()) {
        agree(&encoded(&value))?;
    }

    #[test]
    fn agrees_with_rmpv_about_damaged_values(
        value in values(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&value);
        for (index, byte) in flips {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        agree(&bytes)?;
    }

    #[test]
    fn every_truncation_is_refused(value in values()) {
        let bytes = encoded(&value);
        for length in 0..bytes.len() {
            prop_assert!(inspect(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        agree(&bytes)?;
        bytes.insert(0, 0x8f);
        agree(&bytes)?;
    }
}
