//! Bytes, numbers and names, as every part of an envelope writes and reads them.

use super::error::{Malformed, Unsendable};
use crate::name::{self, MAX_LENGTH};

pub(super) fn put_name(bytes: &mut Vec<u8>, name: &str) -> Result<(), Unsendable> {
    match u8::try_from(name.len()) {
        Ok(length) if name.len() <= MAX_LENGTH => {
            bytes.push(length);
            bytes.extend_from_slice(name.as_bytes());
            Ok(())
        }
        _ => Err(Unsendable::NameTooLong(name.len())),
    }
}

/// The bytes that have not been read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let (&number, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(number))
    }

    pub(super) fn channel(&mut self) -> Result<String, Malformed> {
        self.name(|name| name::check_channel(name).is_ok())
    }

    pub(super) fn group(&mut self) -> Result<String, Malformed> {
        self.name(|name| name::check_group(name).is_ok())
    }

    fn name(&mut self, valid: impl FnOnce(&str) -> bool) -> Result<String, Malformed> {
        let length = usize::from(self.byte()?);
        if length > MAX_LENGTH {
            return Err(Malformed::Name);
        }
        let (name, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed::Truncated)?;
        self.0 = rest;
        let name = std::str::from_utf8(name).map_err(|_| Malformed::Name)?;
        if valid(name) {
            Ok(name.to_owned())
        } else {
            Err(Malformed::Name)
        }
    }
}
