//! What does not fit into an envelope.

use super::*;

#[test]
fn what_does_not_fit_is_not_encoded() {
    let long = "x".repeat(101);
    let direct = encode(
        &HEAD,
        OutgoingBody::Direct {
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
            OutgoingBody::Group {
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
