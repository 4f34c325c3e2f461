use proptest::prelude::*;

use super::*;

const TIME: u64 = 1_700_000_000;
/// `{"type": "ping"}`
const TEXT: &[u8] = b"\x81\xa4type\xa4ping";

/// Made by Python's cryptography 50 from the secret `first secret`, at [`TIME`], with the bytes 0 to 15 as
/// initialisation vector.
const FIRST: &str = "gAAAAABlU_EAAAECAwQFBgcICQoLDA0ODw3pznf2J-UuX_MaPhCzfZeKQUFrZeJ_ilvRxo_90d56AWIXWNr5w3OCwH5sXZ__iQ==";
/// The same from `second secret`.
const SECOND: &str = "gAAAAABlU_EAAAECAwQFBgcICQoLDA0OD-YDkuzio2x2LG74LzuXs4r-On26MAO7xTnudnQhaU0bnHuAM9Ufdb8Qz5a1uAzjkw==";
/// From `first secret`, of nothing.
const EMPTY: &str = "gAAAAABlU_EAAAECAwQFBgcICQoLDA0ODybQfCOcxOu9i7xrPx7OgJ01ysSwfNVi1MKnfW20BGYuZVekuERi_Ikj0cgyHK2HXQ==";
/// From `first secret`, of a whole block: `0123456789abcdef`.
const BLOCK_TEXT: &str = "gAAAAABlU_EAAAECAwQFBgcICQoLDA0ODxthtzQHoGJoz7KtbtLLxDmsG664qAyVPqavRSXIBqX2wxIOETSfhgic\
    YISCaUr05NBOrGOrs2fIqgg7P1YRT74=";

fn crypt(secrets: &[&str]) -> Crypt {
    Crypt::new(secrets).expect("there are secrets")
}

#[test]
fn python_tokens_decrypt() {
    let keys = crypt(&["first secret", "second secret"]);
    for (token, text) in [
        (FIRST, TEXT),
        (SECOND, TEXT),
        (EMPTY, b""),
        (BLOCK_TEXT, b"0123456789abcdef"),
    ] {
        assert_eq!(
            keys.decrypt(token.as_bytes()).as_deref(),
            Ok(text),
            "{token}"
        );
    }
}

#[test]
fn tokens_are_those_of_python() {
    let iv = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let first = crypt(&["first secret", "second secret"]);
    assert_eq!(first.encrypt_with(TEXT, TIME, iv), FIRST.as_bytes());
    assert_eq!(first.encrypt_with(b"", TIME, iv), EMPTY.as_bytes());
    assert_eq!(
        first.encrypt_with(b"0123456789abcdef", TIME, iv),
        BLOCK_TEXT.as_bytes()
    );
    let second = crypt(&["second secret", "first secret"]);
    assert_eq!(second.encrypt_with(TEXT, TIME, iv), SECOND.as_bytes());
}

#[test]
fn a_token_of_another_key_is_refused() {
    let error = crypt(&["second secret"]).decrypt(FIRST.as_bytes());
    assert_eq!(error, Err(Undecryptable::WrongKey));
}

#[test]
fn no_secrets_make_no_keys() {
    assert!(Crypt::new(Vec::<String>::new()).is_none());
    assert!(Crypt::new(["a", "b"]).is_some());
    assert!(Crypt::new([b"\xff"]).is_some());
}

#[test]
fn only_version_2_is_used_unless_others_are_asked_for() {
    let keys = crypt(&["a"]);
    assert!(keys.sends(Version::Two) && keys.reads(Version::Two) && !keys.reads(Version::One));
    let both = keys.with_versions(vec![Version::One, Version::Two]);
    assert!(both.sends(Version::One) && both.reads(Version::Two) && both.reads(Version::One));
    assert!(both.with_versions(Vec::new()).sends(Version::One));
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", crypt(&["a", "b"])), "Crypt(2 keys)");
}

#[test]
fn what_is_no_token_is_refused() {
    let keys = crypt(&["first secret"]);
    let other_version = FIRST.replacen("gA", "gQ", 1);
    for token in [
        "",
        "=",
        "gAAA",
        "\u{e9}",
        "+/+/",
        &FIRST[1..],
        &FIRST[4..],
        FIRST.trim_end_matches('='),
        &other_version,
    ] {
        let error = keys.decrypt(token.as_bytes());
        assert_eq!(error, Err(Undecryptable::NoToken), "{token}");
    }
}

proptest! {
    #[test]
    fn what_was_encrypted_decrypts(
        text in prop::collection::vec(any::<u8>(), 0..200),
        secret in "\\PC{0,20}",
        now in any::<u64>(),
    ) {
        let old = crypt(&[&secret]);
        let token = old.encrypt(&text, now);
        prop_assert!(token.is_ok());
        let token = token.unwrap_or_default();
        let new = crypt(&["a new secret", &secret]);
        prop_assert_eq!(new.decrypt(&token), Ok(text.clone()));
        prop_assert_ne!(old.encrypt(&text, now), Ok(token), "the same vector twice");
    }

    #[test]
    fn a_changed_token_is_refused(index in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut token = URL_SAFE.decode(FIRST).unwrap_or_default();
        let index = index.index(token.len());
        token[index] ^= 1 << bit;
        let changed = URL_SAFE.encode(token);
        prop_assert!(crypt(&["first secret"]).decrypt(changed.as_bytes()).is_err());
    }
}
