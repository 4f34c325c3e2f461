//! Reads one message in msgpack, and calls a visitor with what is in it.
//!
//! There is one reader, so that what passes the check of [`payload`](super::payload) is what a receiver decodes. It walks the
//! bytes once, allocates nothing, and takes time in proportion to the bytes, not to what they claim. It accepts exactly: one map
//! whose keys, and those of all maps in it, are strings or binaries; nil, booleans, integers up to 2^64 - 1, floats, strings,
//! binaries, arrays and maps as values; at most [`MAX_DEPTH`] containers in each other and [`MAX_CONTAINERS`] in all. Extension
//! types are refused, the timestamp too: no message of a channel layer has them, and decoders differ about them.
//!
//! What is left to the visitor: whether a string is UTF-8, and which of several equal keys counts.
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

use thiserror::Error;

/// Containers in each other, the message itself included.
pub const MAX_DEPTH: usize = 64;

/// Maps and arrays in one message.
pub const MAX_CONTAINERS: usize = 1 << 22;

/// What was wrong with a message.
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

/// Makes something of what is read.
///
/// Strings come with the offset at which their text begins.
#[expect(
    clippy::missing_errors_doc,
    reason = "its error ends the reading, whatever it is"
)]
pub trait Visitor {
    /// What is made of a value.
    type Value;
    /// What is made of a key.
    type Key;
    /// A map that is being read.
    type Map;
    /// An array that is being read.
    type Array;
    /// What ends the reading: a defect, or what the visitor finds.
    type Error: From<Defect>;

    /// Nothing.
    fn nil(&mut self) -> Result<Self::Value, Self::Error>;
    /// True or false.
    fn boolean(&mut self, truth: bool) -> Result<Self::Value, Self::Error>;
    /// An integer of any form but that of `unsigned`.
    fn integer(&mut self, number: i64) -> Result<Self::Value, Self::Error>;
    /// An integer of eight bytes without a sign.
    fn unsigned(&mut self, number: u64) -> Result<Self::Value, Self::Error>;
    /// A float of either width.
    fn float(&mut self, number: f64) -> Result<Self::Value, Self::Error>;
    /// A string, which may not be UTF-8.
    fn text(&mut self, text: &[u8], start: usize) -> Result<Self::Value, Self::Error>;
    /// A binary.
    fn binary(&mut self, binary: &[u8]) -> Result<Self::Value, Self::Error>;
    /// A string that is a key.
    fn text_key(&mut self, text: &[u8]) -> Result<Self::Key, Self::Error>;
    /// A binary that is a key.
    fn binary_key(&mut self, binary: &[u8]) -> Result<Self::Key, Self::Error>;
    /// A map begins.
    fn map(&mut self) -> Self::Map;
    /// A key of the map, with its value.
    fn entry(
        &mut self,
        map: &mut Self::Map,
        key: Self::Key,
        value: Self::Value,
    ) -> Result<(), Self::Error>;
    /// A map within another container has ended.
    fn end_map(&mut self, map: Self::Map) -> Self::Value;
    /// An array begins.
    fn array(&mut self) -> Self::Array;
    /// The next item of the innermost array.
    fn item(&mut self, value: Self::Value);
    /// An array has ended.
    fn end_array(&mut self, array: Self::Array) -> Result<Self::Value, Self::Error>;
}

/// Reads a message that takes all of the bytes: what the visitor made of its outermost map.
///
/// # Errors
/// What the first thing is that is not allowed, or that the visitor refuses, and the offset of the value in which it is.
pub fn read<V: Visitor>(bytes: &[u8], visitor: &mut V) -> Result<V::Map, (V::Error, usize)> {
    let mut reader = Reader {
        bytes,
        position: 0,
        at: 0,
        containers: 0,
        visitor,
    };
    reader.message().map_err(|error| (error, reader.at))
}

struct Reader<'a, 'v, V> {
    bytes: &'a [u8],
    position: usize,
    /// Where the value begins that is being read.
    at: usize,
    containers: usize,
    visitor: &'v mut V,
}

impl<'a, V: Visitor> Reader<'a, '_, V> {
    fn message(&mut self) -> Result<V::Map, V::Error> {
        let message = match self.marker()? {
            marker @ (0x80..=0x8f | 0xde | 0xdf) => self.map(marker, 1)?,
            _ => return Err(Defect::NoMap.into()),
        };
        self.at = self.position;
        if self.position < self.bytes.len() {
            return Err(Defect::Trailing.into());
        }
        Ok(message)
    }

    /// Reads a value in so many containers. They nest as calls do, and no deeper than [`MAX_DEPTH`].
    fn value(&mut self, depth: usize) -> Result<V::Value, V::Error> {
        match self.marker()? {
            marker @ (0xa0..=0xbf | 0xd9..=0xdb) => {
                let text = self.sized(marker)?;
                self.visitor.text(text, self.position - text.len())
            }
            marker @ (0x80..=0x8f | 0xde | 0xdf) => {
                let map = self.map(marker, depth + 1)?;
                Ok(self.visitor.end_map(map))
            }
            marker @ (0x90..=0x9f | 0xdc | 0xdd) => self.array(marker, depth + 1),
            marker @ 0xc4..=0xc6 => {
                let binary = self.sized(marker)?;
                self.visitor.binary(binary)
            }
            number @ 0x00..=0x7f => self.visitor.integer(number.into()),
            number @ 0xe0..=0xff => self.visitor.integer(number.cast_signed().into()),
            0xc0 => self.visitor.nil(),
            0xc2 => self.visitor.boolean(false),
            0xc3 => self.visitor.boolean(true),
            0xca => self.number(f32::from_be_bytes, |to, number| to.float(number.into())),
            0xcb => self.number(f64::from_be_bytes, V::float),
            0xcc => self.number(u8::from_be_bytes, |to, number| to.integer(number.into())),
            0xcd => self.number(u16::from_be_bytes, |to, number| to.integer(number.into())),
            0xce => self.number(u32::from_be_bytes, |to, number| to.integer(number.into())),
            0xcf => self.number(u64::from_be_bytes, V::unsigned),
            0xd0 => self.number(i8::from_be_bytes, |to, number| to.integer(number.into())),
            0xd1 => self.number(i16::from_be_bytes, |to, number| to.integer(number.into())),
            0xd2 => self.number(i32::from_be_bytes, |to, number| to.integer(number.into())),
            0xd3 => self.number(i64::from_be_bytes, V::integer),
            0xc1 => Err(Defect::Reserved.into()),
            0xc7..=0xc9 | 0xd4..=0xd8 => Err(Defect::Extension.into()),
        }
    }

    #[inline]
    fn number<const N: usize, T>(
        &mut self,
        read: impl FnOnce([u8; N]) -> T,
        visit: impl FnOnce(&mut V, T) -> Result<V::Value, V::Error>,
    ) -> Result<V::Value, V::Error> {
        let number = read(self.chunk()?);
        visit(self.visitor, number)
    }

    fn key(&mut self) -> Result<V::Key, V::Error> {
        match self.marker()? {
            marker @ (0xa0..=0xbf | 0xd9..=0xdb) => {
                let text = self.sized(marker)?;
                self.visitor.text_key(text)
            }
            marker @ 0xc4..=0xc6 => {
                let binary = self.sized(marker)?;
                self.visitor.binary_key(binary)
            }
            _ => Err(Defect::Key.into()),
        }
    }

    fn map(&mut self, marker: u8, depth: usize) -> Result<V::Map, V::Error> {
        let pairs = self.length(marker)?;
        self.enter(pairs.saturating_mul(2), depth)?;
        let mut map = self.visitor.map();
        for _ in 0..pairs {
            let key = self.key()?;
            let value = self.value(depth)?;
            self.visitor.entry(&mut map, key, value)?;
        }
        Ok(map)
    }

    fn array(&mut self, marker: u8, depth: usize) -> Result<V::Value, V::Error> {
        let length = self.length(marker)?;
        self.enter(length, depth)?;
        let array = self.visitor.array();
        for _ in 0..length {
            let item = self.value(depth)?;
            self.visitor.item(item);
        }
        self.visitor.end_array(array)
    }

    /// Begins a container of so many values, keys included.
    fn enter(&mut self, values: usize, depth: usize) -> Result<(), Defect> {
        self.containers += 1;
        if self.containers > MAX_CONTAINERS {
            return Err(Defect::TooMany);
        }
        // Every value takes at least one byte.
        if values > self.bytes.len() - self.position {
            return Err(Defect::Truncated);
        }
        if depth > MAX_DEPTH {
            return Err(Defect::TooDeep);
        }
        Ok(())
    }

    fn marker(&mut self) -> Result<u8, Defect> {
        self.at = self.position;
        self.chunk().map(u8::from_be_bytes)
    }

    /// The length of what a marker begins: in the marker, or in the bytes behind it.
    #[inline]
    fn length(&mut self, marker: u8) -> Result<usize, Defect> {
        let length = match marker {
            0x80..=0x9f => (marker & 0x0f).into(),
            0xa0..=0xbf => (marker & 0x1f).into(),
            0xc4 | 0xd9 => self.chunk().map(u8::from_be_bytes)?.into(),
            0xc5 | 0xda | 0xdc | 0xde => self.chunk().map(u16::from_be_bytes)?.into(),
            _ => self.chunk().map(u32::from_be_bytes)?,
        };
        usize::try_from(length).map_err(|_| Defect::Truncated)
    }

    /// A string or a binary.
    #[inline]
    fn sized(&mut self, marker: u8) -> Result<&'a [u8], Defect> {
        let length = self.length(marker)?;
        let rest = self.bytes.get(self.position..);
        let sized = rest
            .and_then(|rest| rest.get(..length))
            .ok_or(Defect::Truncated)?;
        self.position += length;
        Ok(sized)
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Defect> {
        let rest = self.bytes.get(self.position..);
        let chunk = rest
            .and_then(<[u8]>::first_chunk)
            .ok_or(Defect::Truncated)?;
        self.position += N;
        Ok(*chunk)
    }
}
