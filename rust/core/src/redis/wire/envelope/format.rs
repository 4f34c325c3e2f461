//! The numbers in an envelope, and its limits.

pub(super) const VERSION: u8 = 1;
/// The version of envelopes that are authenticated as a whole.
pub(super) const SEALED: u8 = 2;
pub(super) const ENCRYPTED: u8 = 0x10;
pub(super) const KIND: u8 = 0x0f;

pub(super) const GROUP: u8 = 0;
pub(super) const DIRECT: u8 = 1;
pub(super) const CONTROL: u8 = 2;
pub(super) const KEPT: u8 = 3;

/// The length of the header.
pub const HEADER: usize = 26;

/// How many bytes follow the header before the body, in an envelope of these flags: a kept message has an epoch there, which is
/// authenticated and not encrypted.
pub(super) const fn epoch_length(flags: u8) -> usize {
    if flags & KIND == KEPT { 8 } else { 0 }
}

/// The excluded channels that one group message can name.
pub const MAX_EXCLUDED: usize = 255;
