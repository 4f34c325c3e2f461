//! Checks a payload before anything decodes it: one message in msgpack that Python can hold, and nothing behind it.
//!
//! Beyond what the [reader](super::msgpack) refuses, every string must be valid UTF-8.

use std::ops::Range;

use thiserror::Error;

use super::msgpack::{Defect, Visitor, read};

/// What is known of a message that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Where in the bytes the text of the top-level `type` is, if it is there and is a string. Of several the last
    /// counts, as for a dict.
    pub kind: Option<Range<usize>>,
}

/// Why the bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{defect} (byte {at})")]
pub struct BadPayload {
    /// What was wrong.
    pub defect: Defect,
    /// The offset of the value in which it was found.
    pub at: usize,
}

/// Checks a whole message.
///
/// # Errors
/// Says what the first thing is that is not allowed, and where.
pub fn inspect(bytes: &[u8]) -> Result<Shape, BadPayload> {
    let kind = read(bytes, &mut Check).map_err(|(defect, at)| BadPayload { defect, at })?;
    Ok(Shape { kind })
}

/// Keeps nothing but where the text of a map's `type` is.
struct Check;

impl Visitor for Check {
    /// Where the text of a string is.
    type Value = Option<Range<usize>>;
    /// Whether it is `type`.
    type Key = bool;
    type Map = Option<Range<usize>>;
    type Array = ();
    type Error = Defect;

    fn nil(&mut self) -> Result<Self::Value, Defect> {
        Ok(None)
    }

    fn boolean(&mut self, _: bool) -> Result<Self::Value, Defect> {
        Ok(None)
    }

    fn integer(&mut self, _: i64) -> Result<Self::Value, Defect> {
        Ok(None)
    }

    fn unsigned(&mut self, _: u64) -> Result<Self::Value, Defect> {
        Ok(None)
    }

    fn float(&mut self, _: f64) -> Result<Self::Value, Defect> {
        Ok(None)
    }

    fn text(&mut self, text: &[u8], start: usize) -> Result<Self::Value, Defect> {
        utf8(text)?;
        Ok(Some(start..start + text.len()))
    }

    fn binary(&mut self, _: &[u8]) -> Result<Self::Value, Defect> {
        Ok(None)
    }

    fn text_key(&mut self, text: &[u8]) -> Result<bool, Defect> {
        Ok(utf8(text)? == "type")
    }

    fn binary_key(&mut self, _: &[u8]) -> Result<bool, Defect> {
        Ok(false)
    }

    fn map(&mut self) -> Self::Map {
        None
    }

    fn entry(&mut self, map: &mut Self::Map, key: bool, value: Self::Value) -> Result<(), Defect> {
        if key {
            *map = value;
        }
        Ok(())
    }

    fn end_map(&mut self, _: Self::Map) -> Self::Value {
        None
    }

    fn array(&mut self) {}

    fn item(&mut self, _: Self::Value) {}

    fn end_array(&mut self, (): ()) -> Result<Self::Value, Defect> {
        Ok(None)
    }
}

fn utf8(text: &[u8]) -> Result<&str, Defect> {
    std::str::from_utf8(text).map_err(|_| Defect::NotUtf8)
}

#[cfg(test)]
mod tests;
