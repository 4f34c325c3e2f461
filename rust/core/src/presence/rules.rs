//! Which groups have a presence, and how its changes are told.

use std::sync::Arc;
use std::time::Duration;

use crate::glob::Glob;

/// How the changes of some groups are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRule {
    /// The `type` of the messages that tell.
    pub kind: Arc<str>,
    /// For how long changes are gathered.
    pub interval: Duration,
    /// For how long whoever left may return without an event.
    pub linger: Duration,
    /// With more entries than this, counts alone are told.
    pub max: usize,
}

impl PresenceRule {
    /// The shortest and the longest interval.
    pub const INTERVALS: (Duration, Duration) =
        (Duration::from_millis(10), Duration::from_secs(60));
    /// The longest linger; the shortest is none.
    pub const LONGEST_LINGER: Duration = Duration::from_secs(3600);
    /// The largest `max`; the smallest is 1.
    pub const LARGEST_MAX: usize = 100_000;

    /// A rule, with each number at the nearest bound if it is outside of them.
    pub fn new(kind: &str, interval: Duration, linger: Duration, max: usize) -> Self {
        let (shortest, longest) = Self::INTERVALS;
        Self {
            kind: kind.into(),
            interval: interval.clamp(shortest, longest),
            linger: linger.min(Self::LONGEST_LINGER),
            max: max.clamp(1, Self::LARGEST_MAX),
        }
    }
}

/// Which groups have a presence: the first rule that fits the name.
#[derive(Clone, Debug, Default)]
pub struct PresenceRules(Vec<(Glob, Arc<PresenceRule>)>);

impl PresenceRules {
    /// Adds a rule for a shell-style pattern behind those that are there.
    #[must_use]
    pub fn with_rule(mut self, pattern: &str, rule: PresenceRule) -> Self {
        self.0.push((Glob::new(pattern), Arc::new(rule)));
        self
    }

    /// Whether no group has a presence.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule of a group; `None` if it has no presence.
    pub fn of(&self, group: &str) -> Option<&Arc<PresenceRule>> {
        let found = self.0.iter().find(|(glob, _)| glob.matches(group));
        found.map(|(_, rule)| rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = PresenceRules::default()
            .with_rule("room.*", PresenceRule::new("a", SECOND, SECOND, 7))
            .with_rule("*", PresenceRule::new("b", SECOND, SECOND, 7));
        let kind = |group: &str| rules.of(group).map(|rule| rule.kind.to_string());
        assert_eq!(kind("room.1").as_deref(), Some("a"));
        assert_eq!(kind("hall").as_deref(), Some("b"));
        assert!(!rules.is_empty());
        assert!(PresenceRules::default().is_empty());
        assert!(PresenceRules::default().of("hall").is_none());
    }

    #[test]
    fn numbers_out_of_bounds_become_the_nearest_bound() {
        let least = PresenceRule::new("a", Duration::ZERO, Duration::ZERO, 0);
        let (shortest, longest) = PresenceRule::INTERVALS;
        assert_eq!(
            (least.interval, least.linger, least.max),
            (shortest, Duration::ZERO, 1)
        );
        let most = PresenceRule::new("a", Duration::MAX, Duration::MAX, usize::MAX);
        let bounds = (
            longest,
            PresenceRule::LONGEST_LINGER,
            PresenceRule::LARGEST_MAX,
        );
        assert_eq!((most.interval, most.linger, most.max), bounds);
    }
}
