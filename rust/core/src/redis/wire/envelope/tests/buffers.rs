//! In which buffers messages come in and go out: no payload is copied.

use super::*;

#[test]
fn a_payload_is_the_buffer_that_came_in() {
    let bytes = ping(&["a"]);
    let address = bytes.as_ptr();
    let Ok(DecodedEnvelope {
        body: Body::Group { payload, .. },
        ..
    }) = decode(bytes, PLACE, None)
    else {
        panic!("not a group message")
    };
    assert_eq!(format!("{payload:?}"), "Payload(11 bytes)");
    assert_eq!(payload.as_bytes(), PING);
    let kept = payload.into_bytes();
    assert_eq!(kept.as_ptr(), address.wrapping_add(HEADER + 3));
    assert_eq!(kept, PING);
}

/// An entry of a queue is removed by its bytes, which must be those that came in.
#[test]
fn a_buffer_that_somebody_else_has_too_is_read_and_not_changed() {
    let keys = crypt("a");
    let group = OutgoingBody::Group {
        exclude: &[],
        payload: PING,
    };
    for (keys, start) in [(None, HEADER + 1), (Some(&keys), HEADER + IV + 1)] {
        let bytes = keys.map_or_else(|| plain(group), |keys| sealed(&HEAD, group, keys));
        let shared = Bytes::from(bytes.clone());
        let copied = payload(shared.clone(), keys);
        assert_eq!((copied.as_bytes(), &shared[..]), (PING, &bytes[..]));
        let address = bytes.as_ptr();
        let in_place = payload(bytes.into(), keys);
        assert_eq!(in_place.as_bytes().as_ptr(), address.wrapping_add(start));
    }
}

fn payload(bytes: Bytes, keys: Option<&Crypt>) -> Payload {
    match decode(bytes, PLACE, keys).map(|envelope| envelope.body) {
        Ok(Body::Group { payload, .. }) => payload,
        other => panic!("not a group message: {other:?}"),
    }
}

#[test]
fn a_draft_is_changed_in_the_buffer_that_it_was_written_to_unless_another_has_it_too() {
    let bytes = ping(&["a"]);
    let address = bytes.as_ptr();
    let mut draft = Draft::from(bytes);
    draft.number(1);
    assert_eq!(draft.bytes().as_ptr(), address);
    let other = draft.clone();
    draft.number(2);
    assert_eq!(other.bytes().as_ptr(), address);
    assert_ne!(draft, other);
}
