//! The values of the hash of memberships: when each ends and, with keys, a code that authenticates it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::crypt::{Crypt, Version};

/// Why a value does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoMembership {
    /// It is no moment.
    Malformed,
    /// No process that has a key of this layer wrote it for this field.
    Unauthenticated,
}

/// The value of a field: the end in milliseconds since the Unix epoch, and with keys of version 2 a space and a code.
pub(crate) fn value(key: &str, field: &str, end: u64, crypt: Option<&Crypt>) -> String {
    let end = end.to_string();
    match crypt.filter(|crypt| crypt.sends(Version::Two)) {
        Some(crypt) => {
            let code = crypt.authenticate_member(key, field, &end);
            format!("{end} {}", URL_SAFE_NO_PAD.encode(code))
        }
        None => end,
    }
}

/// When a membership ends.
///
/// # Errors
/// It is no value, or with keys one that no key of theirs authenticates.
pub(crate) fn end(
    key: &str,
    field: &str,
    value: &str,
    crypt: Option<&Crypt>,
) -> Result<u64, NoMembership> {
    let parse = |end: &str| end.parse().map_err(|_| NoMembership::Malformed);
    let Some(crypt) = crypt else {
        return parse(value);
    };
    let known = match value.split_once(' ') {
        Some((end, code)) if crypt.reads(Version::Two) => URL_SAFE_NO_PAD
            .decode(code)
            .is_ok_and(|code| crypt.knows_member(key, field, end, &code))
            .then_some(end),
        None if crypt.reads(Version::One) => Some(value),
        _ => None,
    };
    parse(known.ok_or(NoMembership::Unauthenticated)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "asgi:m";
    const FIELD: &str = "room\0work";
    const END: u64 = 1_700_000_060_000;

    fn crypt(versions: Vec<Version>) -> Crypt {
        let keys = Crypt::new(["first secret"]).expect("there is a secret");
        keys.with_versions(versions)
    }

    /// The example of docs/reference/protocol.md.
    #[test]
    fn values_are_those_of_the_protocol() {
        let keys = crypt(Vec::new());
        assert_eq!(value(KEY, FIELD, END, None), "1700000060000");
        assert_eq!(
            value(KEY, FIELD, END, Some(&keys)),
            "1700000060000 5geCLq9wTfO6kHkimHDSLhcAvdAMN7nhg8uwo3scuuc"
        );
    }

    #[test]
    fn with_keys_only_what_they_authenticate_counts() {
        let (new, both) = (crypt(Vec::new()), crypt(vec![Version::One, Version::Two]));
        let plain = value(KEY, FIELD, END, Some(&both));
        assert_eq!(plain, "1700000060000");
        let sealed = value(KEY, FIELD, END, Some(&new));
        assert_eq!(end(KEY, FIELD, &sealed, Some(&new)), Ok(END));
        assert_eq!(end(KEY, FIELD, &sealed, Some(&both)), Ok(END));
        assert_eq!(end(KEY, FIELD, &plain, Some(&both)), Ok(END));
        assert_eq!(end(KEY, FIELD, &plain, None), Ok(END));
        let refused = Err(NoMembership::Unauthenticated);
        assert_eq!(end(KEY, FIELD, &plain, Some(&new)), refused);
        assert_eq!(end(KEY, "room\0evil", &sealed, Some(&new)), refused);
        assert_eq!(end("b:m", FIELD, &sealed, Some(&new)), refused);
        let longer = sealed.replacen('1', "9", 1);
        for keys in [&new, &both] {
            assert_eq!(end(KEY, FIELD, &longer, Some(keys)), refused);
        }
        let old = crypt(vec![Version::One]);
        assert_eq!(end(KEY, FIELD, &sealed, Some(&old)), refused);
        for broken in ["", "soon", "-1", &sealed] {
            let error = end(KEY, FIELD, broken, None);
            assert_eq!(error, Err(NoMembership::Malformed), "{broken}");
        }
    }
}
