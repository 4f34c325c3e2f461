//! Why something cannot be encrypted, or decrypted.

use std::fmt;

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undecryptable {
    /// It is no Fernet token.
    NoToken,
    /// No key of this layer made it, or somebody changed it, or it was written to another destination.
    WrongKey,
}

impl fmt::Display for Undecryptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoToken => "it is not encrypted in that way",
            Self::WrongKey => {
                "none of the keys fits: another key made it, or it was changed or moved"
            }
        })
    }
}

impl std::error::Error for Undecryptable {}

/// The operating system gave no random bytes, so nothing can be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness(pub(super) getrandom::Error);

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no random bytes for encryption")
    }
}

impl std::error::Error for NoRandomness {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
