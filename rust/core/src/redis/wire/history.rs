//! The stream in which a server keeps the messages of a group: the ids of its entries, its epochs, and how a message is known
//! again.
//!
//! An entry's id is `<epoch>-<number>`. The epoch is chosen by whoever creates the stream; the server counts the numbers from 0,
//! without a hole. An entry has one field, `e`, whose value is the envelope as it is published, or nothing: such a head is the
//! first entry of a stream that a listener created.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::expect_used,
        reason = "the bytes come from a server"
    )
)]

use std::fmt;

use super::envelope;
use super::keys::ProcessId;

/// The field of an entry.
pub(crate) const FIELD: &str = "e";
/// Epochs are below this.
const EPOCHS: u64 = 1 << 53;
/// How many epochs there are for each millisecond.
const PER_MILLISECOND: u64 = 1024;

/// The id of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

impl EntryId {
    /// Reads what `Display` writes, and what a server answers; nothing else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (epoch, number) = text.split_once('-')?;
        Some(Self {
            epoch: digits(epoch)?,
            number: digits(number)?,
        })
    }
}

/// A number in decimal digits and nothing else: without a sign, and without zeros in front.
fn digits(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let plain = canonical && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

/// A new epoch, above another one that is known: made from the server's time in milliseconds, and a random number, so that two
/// that create a stream at once seldom choose the same.
pub(crate) fn new_epoch(milliseconds: u64, drawn: u64, above: Option<u64>) -> u64 {
    let drawn = drawn % PER_MILLISECOND;
    let by_time = milliseconds
        .saturating_mul(PER_MILLISECOND)
        .saturating_add(drawn);
    let least = above.map_or(1, |above| above.saturating_add(1 + drawn));
    by_time.max(least).min(EPOCHS - 1)
}

/// By what a message is known again: its sender, and the number that this gave it for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) sender: ProcessId,
    pub(crate) sequence: u64,
}

impl Identity {
    /// That of an envelope, which is not verified; none of a head, or of what is no envelope.
    pub(crate) fn of(envelope: &[u8]) -> Option<Self> {
        let (sender, sequence) = envelope::identity(envelope)?;
        Some(Self { sender, sequence })
    }

    /// A fingerprint, which is the same in each process. It is not 0.
    pub(crate) fn print(self) -> u32 {
        let mixed = mix(mix(self.sender.0) ^ self.sequence);
        let print = u32::try_from(mixed >> 32).unwrap_or(u32::MAX);
        print.max(1)
    }
}

/// The fingerprint of an entry: 0 for a head.
pub(crate) fn print(envelope: &[u8]) -> u32 {
    Identity::of(envelope).map_or(0, Identity::print)
}

/// The finalizer of `SplitMix64`.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id = EntryId {
            epoch: EPOCHS - 1,
            number: 0,
        };
        assert_eq!(id.to_string(), "9007199254740991-0");
        assert_eq!(EntryId::parse(b"9007199254740991-0"), Some(id));
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-+2",
            "+1-2",
            "1-2-3",
            "01-2",
            "1-02",
            "1 -2",
            "1-\u{664}",
            "1-18446744073709551616",
        ] {
            assert_eq!(EntryId::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(EntryId::parse(b"1-\xff"), None);
    }

    #[test]
    fn an_epoch_is_above_the_one_that_is_known_whatever_the_time() {
        let now = 1_800_000_000_000;
        let first = new_epoch(now, 5, None);
        assert_eq!(first, now * 1024 + 5);
        assert_eq!(new_epoch(now, 1024 + 5, Some(3)), first);
        assert!(new_epoch(now - 5000, 0, Some(first)) > first);
        assert!(new_epoch(u64::MAX, u64::MAX, Some(u64::MAX)) < EPOCHS);
        assert!(new_epoch(0, 0, None) > 0);
    }

    #[test]
    fn a_fingerprint_is_that_of_the_protocol() {
        let identity = Identity {
            sender: ProcessId(0x0123_4567_89ab_cdef),
            sequence: 7,
        };
        assert_eq!(identity.print(), 0x3a37_fde2);
        assert_eq!(print(b""), 0, "a head");
        assert_eq!(print(b"too short"), 0);
    }

    proptest! {
        #[test]
        fn ids_are_read_as_they_are_written(epoch in any::<u64>(), number in any::<u64>()) {
            let id = EntryId { epoch, number };
            prop_assert_eq!(EntryId::parse(id.to_string().as_bytes()), Some(id));
        }

        /// Whatever a server answers is an id in its only form, or none.
        #[test]
        fn nothing_but_an_id_is_read(bytes in prop::collection::vec(any::<u8>(), 0..24), digits in "[0-9-]{0,24}") {
            for text in [&bytes[..], digits.as_bytes()] {
                if let Some(id) = EntryId::parse(text) {
                    let written = id.to_string();
                    prop_assert_eq!(written.as_bytes(), text);
                }
            }
        }

        #[test]
        fn messages_that_follow_each_other_differ(sender in any::<u64>(), sequence in 0..u64::MAX) {
            let print = |sequence| Identity { sender: ProcessId(sender), sequence }.print();
            prop_assert_ne!(print(sequence), 0);
            prop_assert_ne!(print(sequence), print(sequence + 1));
        }
    }
}
