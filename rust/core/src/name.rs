//! Channel and group names: what they may hold, checked by one table of bytes.
//!
//! The rules are those of Django Channels in plain ASCII: letters, digits, hyphens, underscores and periods,
//! and in a channel name at most one `!`, not in front. Channels itself lets a trailing newline, Unicode
//! digits and (after the `!`) Unicode letters through, because its regular expressions do; no other engine could
//! carry those, so they are refused here.

use std::fmt;

use thiserror::Error;

/// The longest name, in characters.
pub const MAX_LENGTH: usize = 100;

/// True at the index of every byte that any name may hold.
const ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        byte += 1;
    }
    table
};

/// Which of the two kinds of name was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// The name of one mailbox; may hold one `!`.
    Channel,
    /// The name of a set of channels.
    Group,
}

impl NameKind {
    /// Checks a name of this kind.
    ///
    /// # Errors
    /// Says which rule the name breaks, and where.
    pub fn check(self, name: &str) -> Result<(), InvalidName> {
        match self {
            Self::Channel => check_channel(name),
            Self::Group => check_group(name),
        }
    }
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channel => "Channel",
            Self::Group => "Group",
        })
    }
}

/// What was wrong with a name. Its `Display` begins with the text of Channels, which programs match on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{kind} name must be a valid unicode string with length < 100 containing only ASCII alphanumerics, hyphens, \
     underscores, or periods. Got {found}"
)]
pub struct InvalidName {
    kind: NameKind,
    found: Found,
}

/// What was given for a name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
enum Found {
    #[error("{0}")]
    NotText(String),
    #[error("an empty name")]
    Empty,
    #[error("{length} characters, and at most {MAX_LENGTH} fit")]
    TooLong { length: usize },
    #[error(
        "'{}': character '{}' at position {position} is not allowed",
        .name.escape_debug(),
        .name.chars().nth(*.position).unwrap_or_default().escape_debug()
    )]
    Character { name: String, position: usize },
}

impl InvalidName {
    /// The error for a value that is no text at all, described by the caller.
    pub fn not_text(kind: NameKind, description: impl Into<String>) -> Self {
        Self {
            kind,
            found: Found::NotText(description.into()),
        }
    }
}

/// Checks the name of a channel.
///
/// # Errors
/// Says which rule the name breaks, and where.
pub fn check_channel(name: &str) -> Result<(), InvalidName> {
    match name.as_bytes().iter().position(|&byte| byte == b'!') {
        None => check(NameKind::Channel, name, name.as_bytes()),
        Some(0) => Err(character(NameKind::Channel, name, 0)),
        Some(mark) => {
            check(NameKind::Channel, name, &name.as_bytes()[..mark])?;
            check_bytes(NameKind::Channel, name, mark + 1)
        }
    }
}

/// Checks the name of a group.
///
/// # Errors
/// Says which rule the name breaks, and where.
pub fn check_group(name: &str) -> Result<(), InvalidName> {
    check(NameKind::Group, name, name.as_bytes())
}

fn check(kind: NameKind, name: &str, checked: &[u8]) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName {
            kind,
            found: Found::Empty,
        });
    }
    // Bytes first: no name of more than MAX_LENGTH bytes passes the table with MAX_LENGTH characters or fewer.
    if name.len() > MAX_LENGTH && name.chars().count() > MAX_LENGTH {
        let length = name.chars().count();
        return Err(InvalidName {
            kind,
            found: Found::TooLong { length },
        });
    }
    match checked.iter().position(|&byte| !ALLOWED[usize::from(byte)]) {
        Some(byte) => Err(character(kind, name, byte)),
        None => Ok(()),
    }
}

fn check_bytes(kind: NameKind, name: &str, from: usize) -> Result<(), InvalidName> {
    match name.as_bytes()[from..]
        .iter()
        .position(|&byte| !ALLOWED[usize::from(byte)])
    {
        Some(byte) => Err(character(kind, name, from + byte)),
        None => Ok(()),
    }
}

fn character(kind: NameKind, name: &str, byte: usize) -> InvalidName {
    let position = name
        .char_indices()
        .take_while(|(index, _)| *index < byte)
        .count();
    InvalidName {
        kind,
        found: Found::Character {
            name: name.to_owned(),
            position,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_channels_rules_pass() {
        for name in [
            "a",
            "A-z_0.9",
            "specific.inmemory!abc",
            "a!",
            "-",
            &"x".repeat(100),
        ] {
            assert_eq!(check_channel(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "x".repeat(101);
        for name in [
            "", "!", "!a", "a!b!c", "a b", "a\n", "a!b\n", "a:b", "a?", "é", "a!é", "١", &long,
        ] {
            assert!(check_channel(name).is_err(), "{name}");
        }
        assert!(check_group("a!b").is_err());
    }

    #[test]
    fn the_error_begins_with_channels_text_and_points_at_the_fault() {
        let error = check_channel("é b").map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err(
                "Channel name must be a valid unicode string with length < 100 containing only ASCII \
                 alphanumerics, hyphens, underscores, or periods. Got 'é b': character 'é' at position 0 \
                 is not allowed"
                    .to_owned()
            )
        );
        let error = check_group("ab c").map_err(|error| error.to_string());
        assert!(
            error.is_err_and(|text| text.ends_with("character ' ' at position 2 is not allowed"))
        );
    }
}
