//! Checks a payload before anything decodes it: one message in msgpack that Python can hold, and nothing behind it.
//!
//! The scan keeps its place in a fixed array, allocates nothing and takes time in proportion to the bytes, not to what
//! they claim. It accepts exactly: one map whose keys, and those of all maps in it, are valid UTF-8 strings or binaries; nil,
//! booleans, integers up to 2^64 - 1, floats, strings, binaries, arrays and maps as values; at most [`MAX_DEPTH`]
//! containers in each other and [`MAX_CONTAINERS`] in all. Extension types are refused, the timestamp too: no
//! message of a channel layer has them, and decoders differ about them.
//!
//! A byte of input becomes an object of some dozens of bytes in Python; the limits bound that factor, not the size
//! of the message, which is the caller's to check.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used,
        reason = "the bytes come from a server"
    )
)]

use std::ops::Range;

use thiserror::Error;

/// Containers in each other, the message itself included.
pub const MAX_DEPTH: usize = 64;

/// Maps and arrays in one message.
pub const MAX_CONTAINERS: usize = 1 << 22;

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

/// What was wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Defect {
    /// The outermost value is no map.
    #[error("the message is not a map")]
    NoMap,
    /// The bytes end too early, or a length claims more than there are.
    #[error("the message ends within a value")]
    Truncated,
    /// A map has a key that is neither a string nor a binary.
    #[error("a key of a map is neither a string nor a binary")]
    Key,
    /// A string is not UTF-8.
    #[error("a string is not valid UTF-8")]
    NotUtf8,
    /// An extension type.
    #[error("the message holds an extension type")]
    Extension,
    /// The byte that msgpack does not use.
    #[error("the message holds the byte 0xc1, which msgpack does not use")]
    Reserved,
    /// More than [`MAX_DEPTH`] containers in each other.
    #[error("more than {MAX_DEPTH} containers in each other")]
    TooDeep,
    /// More than [`MAX_CONTAINERS`] containers.
    #[error("more than {MAX_CONTAINERS} containers")]
    TooMany,
    /// More bytes behind the message.
    #[error("more bytes follow the message")]
    Trailing,
}

/// Checks a whole message.
///
/// # Errors
/// Says what the first thing is that is not allowed, and where.
pub fn inspect(bytes: &[u8]) -> Result<Shape, BadPayload> {
    let mut scan = Scan::new(bytes);
    scan.run().map_err(|defect| BadPayload {
        defect,
        at: scan.at,
    })?;
    Ok(Shape { kind: scan.kind })
}

/// A container that is being read.
#[derive(Clone, Copy, Default)]
struct Open {
    /// Values still to come; of a map, keys and values.
    left: usize,
    map: bool,
}

/// One value, without what is in it.
enum Token {
    /// Nil, a boolean or a number.
    Other,
    Binary,
    Text(Range<usize>),
    Array(usize),
    Map(usize),
}

struct Scan<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Where the value begins that is being read.
    at: usize,
    /// The containers around it, the outermost first; those from `depth` on are not in use.
    open: [Open; MAX_DEPTH],
    depth: usize,
    containers: usize,
    kind: Option<Range<usize>>,
    /// The last key of the outermost map was `type`.
    expects_kind: bool,
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            at: 0,
            open: [Open::default(); MAX_DEPTH],
            depth: 0,
            containers: 0,
            kind: None,
            expects_kind: false,
        }
    }

    fn run(&mut self) -> Result<(), Defect> {
        match self.token()? {
            Token::Map(pairs) => self.enter(pairs, true)?,
            _ => return Err(Defect::NoMap),
        }
        while let Some(is_key) = self.advance() {
            self.at = self.position;
            match self.token()? {
                Token::Text(text) => self.text(text, is_key)?,
                Token::Binary if is_key => {}
                _ if is_key => return Err(Defect::Key),
                token => {
                    if self.depth == 1 && std::mem::take(&mut self.expects_kind) {
                        self.kind = None;
                    }
                    match token {
                        Token::Array(length) => self.enter(length, false)?,
                        Token::Map(pairs) => self.enter(pairs, true)?,
                        Token::Other | Token::Binary | Token::Text(_) => {}
                    }
                }
            }
        }
        self.at = self.position;
        if self.position == self.bytes.len() {
            Ok(())
        } else {
            Err(Defect::Trailing)
        }
    }

    /// Leaves the containers that are complete and takes the next place in the innermost other one: true if it is that
    /// of a key. None at the end of the message.
    fn advance(&mut self) -> Option<bool> {
        loop {
            let inner = self.open.get_mut(self.depth.checked_sub(1)?)?;
            if inner.left > 0 {
                let is_key = inner.map && inner.left % 2 == 0;
                inner.left -= 1;
                return Some(is_key);
            }
            self.depth -= 1;
        }
    }

    fn enter(&mut self, length: usize, map: bool) -> Result<(), Defect> {
        self.containers += 1;
        if self.containers > MAX_CONTAINERS {
            return Err(Defect::TooMany);
        }
        // Every value takes at least one byte.
        let left = if map {
            length.checked_mul(2)
        } else {
            Some(length)
        };
        let left = left.filter(|&left| left <= self.bytes.len() - self.position);
        let left = left.ok_or(Defect::Truncated)?;
        let place = self.open.get_mut(self.depth).ok_or(Defect::TooDeep)?;
        *place = Open { left, map };
        self.depth += 1;
        Ok(())
    }

    fn text(&mut self, range: Range<usize>, is_key: bool) -> Result<(), Defect> {
        let text = self.bytes.get(range.clone()).ok_or(Defect::Truncated)?;
        let text = std::str::from_utf8(text).map_err(|_| Defect::NotUtf8)?;
        if self.depth == 1 {
            if is_key {
                self.expects_kind = text == "type";
            } else if std::mem::take(&mut self.expects_kind) {
                self.kind = Some(range);
            }
        }
        Ok(())
    }

    fn token(&mut self) -> Result<Token, Defect> {
        let [marker] = self.number::<1>()?;
        let token = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Token::Other,
            0x80..=0x8f => Token::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Token::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Token::Text(self.skip(usize::from(marker & 0x1f))?),
            0xc4..=0xc6 => {
                let length = self.length(marker - 0xc4)?;
                self.skip(length)?;
                Token::Binary
            }
            0xcc | 0xd0 => self.other(1)?,
            0xcd | 0xd1 => self.other(2)?,
            0xca | 0xce | 0xd2 => self.other(4)?,
            0xcb | 0xcf | 0xd3 => self.other(8)?,
            0xd9..=0xdb => {
                let length = self.length(marker - 0xd9)?;
                Token::Text(self.skip(length)?)
            }
            0xdc | 0xdd => Token::Array(self.length(marker - 0xdc + 1)?),
            0xde | 0xdf => Token::Map(self.length(marker - 0xde + 1)?),
            0xc1 => return Err(Defect::Reserved),
            0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Defect::Extension),
        };
        Ok(token)
    }

    fn other(&mut self, length: usize) -> Result<Token, Defect> {
        self.skip(length)?;
        Ok(Token::Other)
    }

    /// A length of one, two or four bytes, by their logarithm.
    fn length(&mut self, width: u8) -> Result<usize, Defect> {
        let length = match width {
            0 => self.number().map(u8::from_be_bytes)?.into(),
            1 => self.number().map(u16::from_be_bytes)?.into(),
            _ => self.number().map(u32::from_be_bytes)?,
        };
        usize::try_from(length).map_err(|_| Defect::Truncated)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Defect> {
        let rest = self.bytes.get(self.position..).ok_or(Defect::Truncated)?;
        let number = rest.first_chunk().ok_or(Defect::Truncated)?;
        self.position += N;
        Ok(*number)
    }

    fn skip(&mut self, length: usize) -> Result<Range<usize>, Defect> {
        let end = self.position.checked_add(length);
        let end = end.filter(|&end| end <= self.bytes.len());
        let start = std::mem::replace(&mut self.position, end.ok_or(Defect::Truncated)?);
        Ok(start..self.position)
    }
}

#[cfg(test)]
mod tests;
