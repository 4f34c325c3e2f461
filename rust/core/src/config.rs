//! What the owner of a layer decides: how long things live and how much a mailbox holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::glob::Glob;
use crate::sync::assert_unlocked;

/// The settings of one engine, fixed when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a message may wait in a mailbox.
    pub expiry: Duration,
    /// How long a membership lasts after its latest `group_add`.
    pub group_expiry: Duration,
    /// How many messages a mailbox holds.
    pub capacities: Capacities,
    /// How many bytes of messages a mailbox holds behind the first: it always takes one message, whatever its size.
    pub capacity_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            expiry: Duration::from_secs(60),
            group_expiry: Duration::from_secs(86_400),
            capacities: Capacities::new(100),
            capacity_bytes: 1 << 20,
        }
    }
}

/// The capacity of every channel: the first rule that fits its name, else the default.
#[derive(Clone, Debug)]
pub struct Capacities {
    default: usize,
    rules: Vec<(CapacityRule, usize)>,
}

impl Capacities {
    /// One capacity for all channels, in messages.
    pub fn new(default: usize) -> Self {
        Self {
            default,
            rules: Vec::new(),
        }
    }

    /// Adds a rule behind those that are there.
    #[must_use]
    pub fn with_rule(mut self, rule: CapacityRule, capacity: usize) -> Self {
        self.rules.push((rule, capacity));
        self
    }

    /// The capacity of the channel of this name.
    pub fn of(&self, channel: &str) -> usize {
        self.rules
            .iter()
            .find(|(rule, _)| rule.fits(channel))
            .map_or(self.default, |(_, capacity)| *capacity)
    }

    /// The capacity that all channels share, when there are no rules to ask.
    pub(crate) fn uniform(&self) -> Option<usize> {
        self.rules.is_empty().then_some(self.default)
    }
}

/// Decides whether a capacity belongs to a channel.
#[derive(Clone)]
pub enum CapacityRule {
    /// A shell-style pattern.
    Glob(GlobRule),
    /// Anything else, for instance a compiled regular expression of another language. It is called with no lock held.
    Predicate(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

/// A compiled shell-style pattern.
#[derive(Clone, Debug)]
pub struct GlobRule(Glob);

impl CapacityRule {
    /// The rule of a shell-style pattern, as Python's `fnmatch` reads it.
    pub fn glob(pattern: &str) -> Self {
        Self::Glob(GlobRule(Glob::new(pattern)))
    }

    fn fits(&self, channel: &str) -> bool {
        match self {
            Self::Glob(GlobRule(glob)) => glob.matches(channel),
            Self::Predicate(fits) => {
                assert_unlocked();
                fits(channel)
            }
        }
    }
}

impl fmt::Debug for CapacityRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glob(glob) => glob.fmt(f),
            Self::Predicate(_) => f.write_str("Predicate(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let capacities = Capacities::new(100)
            .with_rule(CapacityRule::glob("http.*"), 5)
            .with_rule(
                CapacityRule::Predicate(Arc::new(|name| name.ends_with('x'))),
                7,
            )
            .with_rule(CapacityRule::glob("*"), 9);
        assert_eq!(capacities.of("http.x"), 5);
        assert_eq!(capacities.of("x"), 7);
        assert_eq!(capacities.of("y"), 9);
        assert_eq!(Capacities::new(3).of("y"), 3);
    }
}
