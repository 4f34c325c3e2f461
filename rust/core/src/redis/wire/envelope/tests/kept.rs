//! Messages of groups that keep their history.

use super::*;

#[test]
fn bytes_of_a_kept_message_are_those_of_the_protocol() {
    let ping_hex = "81 a474797065 a470696e67";
    let kept = plain(OutgoingBody::Kept {
        exclude: &["a"],
        payload: PING,
    });
    let expected = hex(&format!(
        "01 03 {HEAD_HEX} 0000000000000000 01 01 61 {ping_hex}"
    ));
    assert_eq!(kept, expected);
}

#[test]
fn the_epoch_of_a_kept_message_is_authenticated_and_any_other_is_refused() {
    let keys = crypt("first secret");
    let kept = OutgoingBody::Kept {
        exclude: &[],
        payload: PING,
    };
    let bytes = sealed_in(5, &HEAD, kept, &keys);
    let envelope = read(&bytes, Some(&keys)).expect("it is in order");
    assert!(matches!(envelope.body, Body::Kept { epoch: 5, .. }));
    let mut changed = bytes;
    changed[HEADER + 7] ^= 1;
    let refused = Err(Malformed::Undecryptable(Undecryptable::WrongKey));
    assert_eq!(read(&changed, Some(&keys)), refused);
    let mut group = Draft::from(ping(&[]));
    group.epoch(5);
    assert_eq!(group, Draft::from(ping(&[])), "it has none");
}
