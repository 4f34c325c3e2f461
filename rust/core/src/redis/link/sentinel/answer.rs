//! The answer of a Sentinel to the question where a master is, and how long it is good.

use std::time::Duration;

use tokio::time::Instant;

use crate::redis::fault::Fault;

/// A host and a port.
pub(crate) type Address = (String, u16);

/// How long an answer is good while the Sentinel publishes and all servers are reachable. A message that was lost costs so
/// much time, and less than the Sentinels take to tell the old master that it is none any more.
const LONG: Duration = Duration::from_secs(5);
/// How long it is good otherwise, and how long a failure is: less than the second after which a layer looks again.
const SHORT: Duration = Duration::from_millis(800);

#[derive(Debug)]
pub(super) struct Answer {
    asked: Instant,
    came: Instant,
    address: Result<Address, Fault>,
    /// The address that the Sentinel has named last, which a failure does not change.
    last_address: Option<Address>,
}

/// When an answer must have been asked for to be good: not before the latest news, and not too long ago.
pub(super) fn since(now: Instant, news: Option<Instant>, calm: bool) -> Instant {
    let lasts = if calm { LONG } else { SHORT };
    let oldest = now.checked_sub(lasts);
    oldest.max(news).unwrap_or(now)
}

/// Puts an answer in the place of an older one. Returns whether the master has moved.
pub(super) fn replace(place: &mut Option<Answer>, mut newest: Answer) -> bool {
    if place
        .as_ref()
        .is_some_and(|known| known.asked > newest.asked)
    {
        return false;
    }
    let before = place.take().and_then(|known| known.last_address);
    let now = newest.last_address.as_ref();
    let has_moved = before
        .as_ref()
        .zip(now)
        .is_some_and(|(before, now)| before != now);
    newest.last_address = newest.last_address.or(before);
    *place = Some(newest);
    has_moved
}

impl Answer {
    pub(super) fn new(asked: Instant, came: Instant, address: Result<Address, Fault>) -> Self {
        Self {
            asked,
            came,
            last_address: address.clone().ok(),
            address,
        }
    }

    /// The answer, if it is good for who asks for none from before `since`. A failure is good for who has waited for it, so
    /// that many do not wait one after the other for a Sentinel that is silent.
    pub(super) fn good(&self, since: Instant, now: Instant) -> Option<&Result<Address, Fault>> {
        let is_good = match self.address {
            Ok(_) => self.asked >= since,
            Err(_) => self.came >= since && now < self.came + SHORT,
        };
        is_good.then_some(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::fault::FaultKind;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn named(host: &str, asked: Instant) -> Answer {
        Answer::new(asked, asked + MS(10), Ok((host.to_owned(), 6379)))
    }

    fn failed(asked: Instant, came: Instant) -> Answer {
        let fault = Fault::new(FaultKind::Unreachable, "nobody is there");
        Answer::new(asked, came, Err(fault))
    }

    /// Whether an answer that was asked for so long ago is good.
    fn is_good(ago: Duration, news_ago: Duration, calm: bool) -> bool {
        let start = Instant::now();
        let now = start + Duration::from_secs(3600);
        let since = since(now, Some(now - news_ago), calm);
        named("a", now - ago).good(since, now).is_some()
    }

    #[test]
    fn an_answer_is_good_for_seconds_while_the_sentinel_publishes() {
        let long_ago = Duration::from_secs(60);
        assert!(is_good(MS(4900), long_ago, true));
        assert!(!is_good(MS(5100), long_ago, true));
    }

    #[test]
    fn otherwise_it_is_not_good_for_the_next_look_of_the_same_layer() {
        let long_ago = Duration::from_secs(60);
        assert!(is_good(MS(500), long_ago, false));
        assert!(!is_good(MS(1000), long_ago, false));
    }

    #[test]
    fn news_ends_an_answer_that_was_asked_for_before() {
        assert!(!is_good(MS(2), MS(1), true));
        assert!(is_good(MS(1), MS(1), true));
    }

    #[test]
    fn a_failure_is_shared_by_those_who_waited_for_it_and_tried_again_soon() {
        let asked = Instant::now();
        let came = asked + Duration::from_secs(1);
        let failure = failed(asked, came);
        let since = asked + MS(500);
        assert!(failure.good(since, came).is_some());
        assert!(failure.good(since, came + SHORT).is_none());
        assert!(failure.good(came + MS(1), came + MS(2)).is_none());
    }

    #[test]
    fn a_master_has_moved_when_a_newer_answer_names_another_address() {
        let now = Instant::now();
        let mut place = None;
        assert!(!replace(&mut place, named("a", now)), "it is the first");
        assert!(!replace(&mut place, named("a", now + MS(1))));
        assert!(replace(&mut place, named("b", now + MS(3))));
        assert!(!replace(&mut place, named("a", now + MS(2))), "it is older");
        let newest = place.as_ref().and_then(|newest| newest.good(now, now));
        assert_eq!(newest, Some(&Ok(("b".to_owned(), 6379))));
    }

    #[test]
    fn a_failure_between_two_answers_does_not_hide_that_the_master_has_moved() {
        let now = Instant::now();
        for (host, has_moved) in [("a", false), ("b", true)] {
            let mut place = Some(named("a", now));
            for asked in [now + MS(1), now + MS(2)] {
                assert!(!replace(&mut place, failed(asked, asked)));
            }
            assert_eq!(replace(&mut place, named(host, now + MS(3))), has_moved);
        }
    }
}
