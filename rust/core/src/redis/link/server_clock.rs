//! The time at a server: its latest answer, plus what the monotonic clock of this machine has counted since.
//!
//! Deadlines are compared between processes, so they are in the time of the server that carries the message. The wall clock
//! of this machine does not count: it may be wrong, and it may be set. The server's may be set as well, so it is asked again
//! and again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::refusal::Reply;
use crate::clock::wall_time;

/// An answer to `TIME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// When the server was asked.
    pub(crate) asked: Instant,
    /// When its answer came.
    pub(crate) answered: Instant,
    /// Its time since the Unix epoch, at some moment between the two.
    pub(crate) time: Duration,
}

impl Reading {
    /// Reads the answer; none if it holds no time.
    pub(crate) fn new(asked: Instant, answered: Instant, reply: Option<&Reply>) -> Option<Self> {
        let Some(Reply::Array(words)) = reply else {
            return None;
        };
        let number = |index: usize| words.get(index).and_then(number);
        Some(Self {
            asked,
            answered,
            time: Duration::from_secs(number(0)?) + Duration::from_micros(number(1)?),
        })
    }

    /// How long the answer took, and so by how much the time may be wrong.
    fn took(&self) -> Duration {
        self.answered - self.asked
    }
}

fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        Reply::SimpleString(digits) => digits.parse().ok(),
        Reply::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// The clock of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerClock {
    at: Instant,
    /// The server's time at that moment, since the Unix epoch.
    time: Duration,
}

impl ServerClock {
    /// The clock of a server whose time is unknown: the present time of this machine.
    pub(crate) fn assumed(now: Instant) -> Self {
        Self {
            at: now,
            time: wall_time(),
        }
    }

    pub(crate) fn new(reading: &Reading) -> Self {
        Self {
            at: reading.answered,
            time: reading.time + reading.took() / 2,
        }
    }

    /// The server's time at a moment, since the Unix epoch.
    fn at(&self, moment: Instant) -> Duration {
        let later = moment.saturating_duration_since(self.at);
        let earlier = self.at.saturating_duration_since(moment);
        (self.time + later).saturating_sub(earlier)
    }

    /// The same in milliseconds.
    pub(crate) fn milliseconds(&self, moment: Instant) -> u64 {
        milliseconds(self.at(moment))
    }

    /// Takes another answer of the server; returns by how many milliseconds its clock was set since the last one. A
    /// difference within the round trip of the answer counts as none.
    pub(crate) fn follow(&mut self, reading: &Reading) -> Option<i64> {
        let expected = self.at(reading.answered);
        if (reading.time..=reading.time + reading.took()).contains(&expected) {
            return None;
        }
        *self = Self::new(reading);
        let difference = i64::try_from(milliseconds(self.time.abs_diff(expected)));
        let difference = difference.unwrap_or(i64::MAX);
        Some(if self.time < expected {
            -difference
        } else {
            difference
        })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The clock of the server with the memberships, which all processes share, for every thread.
#[derive(Debug)]
pub(crate) struct SharedClock {
    begun: Instant,
    /// The server's time at the beginning, in milliseconds since the Unix epoch.
    time: AtomicU64,
}

impl Default for SharedClock {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            time: AtomicU64::new(milliseconds(wall_time())),
        }
    }
}

impl SharedClock {
    pub(crate) fn set(&self, clock: ServerClock) {
        let time = clock.milliseconds(self.begun);
        self.time.store(time, Ordering::Relaxed);
    }

    /// The present time, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        let time = self.time.load(Ordering::Relaxed);
        time.saturating_add(milliseconds(self.begun.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn reading(asked: Instant, took: u64, time: u64) -> Reading {
        Reading {
            asked,
            answered: asked + MS(took),
            time: MS(time),
        }
    }

    #[test]
    fn the_answer_to_time_is_read() {
        let now = Instant::now();
        let word = |text: &str| Reply::BulkString(text.as_bytes().to_vec());
        let read = |words: Vec<Reply>| Reading::new(now, now + MS(4), Some(&Reply::Array(words)));
        let expected = reading(now, 4, 1_700_000_000_250);
        assert_eq!(
            read(vec![word("1700000000"), word("250000")]),
            Some(expected)
        );
        for words in [
            vec![],
            vec![word("1700000000")],
            vec![word("soon"), word("0")],
            vec![Reply::Int(-1), Reply::Int(0)],
        ] {
            assert_eq!(read(words.clone()), None, "{words:?}");
        }
        assert_eq!(Reading::new(now, now, Some(&Reply::Nil)), None);
        assert_eq!(Reading::new(now, now, None), None);
    }

    #[test]
    fn time_goes_on_without_being_asked_for() {
        let now = Instant::now();
        let clock = ServerClock::new(&reading(now, 20, 5_000));
        // Half of the way was behind the server's answer.
        assert_eq!(clock.milliseconds(now + MS(20)), 5_010);
        assert_eq!(clock.milliseconds(now + MS(1_020)), 6_010);
        assert_eq!(clock.milliseconds(now), 4_990);
    }

    #[test]
    fn what_may_be_the_way_of_the_answer_is_no_step() {
        let now = Instant::now();
        let mut clock = ServerClock::new(&reading(now, 0, 5_000));
        let before = clock;
        for (took, time) in [(0, 6_000), (400, 5_600), (400, 6_000)] {
            let answer = reading(now + MS(1_000 - took), took, time);
            assert_eq!(clock.follow(&answer), None, "{took} {time}");
            assert_eq!(clock, before);
        }
    }

    #[test]
    fn a_clock_that_is_set_is_followed_either_way() {
        let now = Instant::now();
        let mut clock = ServerClock::new(&reading(now, 0, 500_000));
        assert_eq!(
            clock.follow(&reading(now + MS(990), 10, 620_995)),
            Some(120_000)
        );
        assert_eq!(clock.milliseconds(now + MS(1_000)), 621_000);
        assert_eq!(
            clock.follow(&reading(now + MS(1_000), 0, 501_000)),
            Some(-120_000)
        );
        assert_eq!(clock.milliseconds(now + MS(2_000)), 502_000);
    }

    #[test]
    fn a_clock_before_the_epoch_stands_still() {
        let now = Instant::now();
        let clock = ServerClock::new(&reading(now, 0, 5));
        let earlier = now
            .checked_sub(MS(10))
            .expect("the machine is up that long");
        assert_eq!(clock.milliseconds(earlier), 0);
    }

    #[test]
    fn the_shared_clock_has_the_time_of_the_server() {
        let shared = SharedClock::default();
        let now = Instant::now();
        shared.set(ServerClock::new(&reading(now, 0, 1_000_000)));
        let shown = shared.now();
        let passed = milliseconds(now.elapsed());
        assert!((999_998..=1_000_002 + passed).contains(&shown), "{shown}");
    }
}
