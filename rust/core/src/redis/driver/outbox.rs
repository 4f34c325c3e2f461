//! Requests that wait to be written, in their order.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::request::Request;
use crate::shrink::Shrink;

/// How many requests go into one pipeline.
const PIPELINE: usize = 512;

/// The requests that wait for one server, or for the map.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    requests: VecDeque<Request>,
    /// The earliest time at which one is to be given up that stands behind one to be given up later. Most stand in the order of
    /// their times, so that those to be given up are found at the front; all are looked at only when this time has come.
    out_of_order: Option<Instant>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn push_back(&mut self, request: Request) {
        if let Some(last) = self.requests.back() {
            self.note(last.until, request.until);
        }
        self.requests.push_back(request);
    }

    pub(super) fn push_front(&mut self, request: Request) {
        if let Some(first) = self.requests.front() {
            self.note(request.until, first.until);
        }
        self.requests.push_front(request);
    }

    /// Gives back the memory of requests that are gone, if it is most of all.
    pub(super) fn shrink_if_sparse(&mut self) {
        self.requests.shrink_if_sparse();
    }

    /// Notes the times of two that stand behind each other.
    fn note(&mut self, before: Instant, behind: Instant) {
        if behind < before {
            let earliest = self.out_of_order.map_or(behind, |until| until.min(behind));
            self.out_of_order = Some(earliest);
        }
    }

    /// Takes the first requests, of about so many bytes, and at least one if there is one; gives how many bytes they are.
    pub(super) fn pipeline(&mut self, room: usize) -> (Vec<Request>, usize) {
        let mut bytes = 0;
        let fits = |request: &&Request| {
            let fits = bytes < room;
            bytes += if fits { request.len() } else { 0 };
            fits
        };
        let count = self.requests.iter().take(PIPELINE).take_while(fits).count();
        (self.requests.drain(..count).collect(), bytes)
    }

    /// Takes the requests that have waited too long.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Request> {
        let is_late = |request: &Request| request.until <= now;
        if self.out_of_order.is_some_and(|until| until <= now) {
            let (late, kept): (Vec<_>, Vec<_>) = self.take().partition(is_late);
            for request in kept {
                self.push_back(request);
            }
            return late;
        }
        let late = self.requests.iter().take_while(|request| is_late(request));
        let late = late.count();
        self.requests.drain(..late).collect()
    }

    /// Takes all.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Request> + use<> {
        self.out_of_order = None;
        std::mem::take(&mut self.requests).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::request::Then;
    use super::*;
    use crate::redis::link::Command;

    /// A request to be given up after so many seconds, of which we know it again.
    fn request(now: Instant, seconds: u64) -> Request {
        let command = Command::new("PING");
        let until = now + Duration::from_secs(seconds);
        Request::new("", "", vec![command], until, Then::Ignored)
    }

    fn outbox(now: Instant, seconds: &[u64]) -> Outbox {
        let mut outbox = Outbox::default();
        for seconds in seconds {
            outbox.push_back(request(now, *seconds));
        }
        outbox
    }

    fn seconds(now: Instant, requests: impl IntoIterator<Item = Request>) -> Vec<u64> {
        let seconds = |request: Request| (request.until - now).as_secs();
        requests.into_iter().map(seconds).collect()
    }

    #[test]
    fn requests_are_taken_in_their_order() {
        let now = Instant::now();
        let mut outbox = outbox(now, &[3, 1]);
        outbox.push_front(request(now, 2));
        let (all, _) = outbox.pipeline(usize::MAX);
        assert_eq!(seconds(now, all), [2, 3, 1]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_pipeline_is_about_as_long_as_there_is_room() {
        let now = Instant::now();
        let one = request(now, 0).len();
        for (room, taken) in [(1, 1), (one, 1), (one + 1, 2), (10 * one, 3)] {
            let mut outbox = outbox(now, &[1, 2, 3]);
            let (requests, bytes) = outbox.pipeline(room);
            assert_eq!((requests.len(), bytes), (taken, taken * one), "{room}");
            assert_eq!(outbox.take().count(), 3 - taken);
        }
        assert_eq!(Outbox::default().pipeline(1).1, 0);
    }

    #[test]
    fn requests_in_the_order_of_their_times_are_not_all_looked_at() {
        let now = Instant::now();
        let mut ordered = outbox(now, &[1, 2, 2, 3]);
        assert_eq!(ordered.out_of_order, None);
        assert_eq!(ordered.take_late(now + Duration::from_secs(2)).len(), 3);
        assert_eq!(ordered.out_of_order, None);
        ordered.push_front(request(now, 9));
        let early = now + Duration::from_secs(3);
        assert_eq!(ordered.out_of_order, Some(early));
        assert_eq!(seconds(now, ordered.take_late(early)), [3]);
        assert_eq!(ordered.out_of_order, None, "one is left");
    }

    #[test]
    fn what_has_waited_too_long_is_taken_and_the_rest_stays_in_its_order() {
        let now = Instant::now();
        let mut outbox = outbox(now, &[5, 1, 4, 2]);
        let late = |outbox: &mut Outbox, after: u64| {
            let late = outbox.take_late(now + Duration::from_secs(after));
            seconds(now, late)
        };
        assert_eq!(late(&mut outbox, 0), [0; 0]);
        assert_eq!(late(&mut outbox, 2), [1, 2]);
        outbox.push_back(request(now, 3));
        assert_eq!(late(&mut outbox, 3), [3]);
        assert_eq!(seconds(now, outbox.take()), [5, 4]);
        assert_eq!(late(&mut outbox, 9), [0; 0]);
    }
}
