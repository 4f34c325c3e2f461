//! Which groups have a history, and how much of it.

use std::time::Duration;

use crate::glob::Glob;

/// How much of which group is kept: the first rule that fits its name.
#[derive(Clone, Debug, Default)]
pub struct HistoryRules(Vec<Rule>);

#[derive(Clone, Debug)]
pub(super) struct Rule {
    glob: Glob,
    /// How many messages are kept, at least one.
    pub(super) size: usize,
    /// For how long after the last one.
    pub(super) ttl: Duration,
}

impl HistoryRules {
    /// Adds a rule behind those that are there: for a shell-style pattern, how many messages, and for how long after the last.
    #[must_use]
    pub fn with_rule(mut self, pattern: &str, size: usize, ttl: Duration) -> Self {
        self.0.push(Rule {
            glob: Glob::new(pattern),
            size: size.max(1),
            ttl,
        });
        self
    }

    /// Whether no group has a history.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many messages of a group are kept, and for how long after the last one; `None` if it has no history.
    pub fn limits_of(&self, group: &str) -> Option<(usize, Duration)> {
        let rule = self.get(self.of(group)?);
        Some((rule.size, rule.ttl))
    }

    /// The longest time that messages are kept after the last one.
    pub fn longest(&self) -> Duration {
        let times = self.0.iter().map(|rule| rule.ttl);
        times.max().unwrap_or_default()
    }

    /// How many rules there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, rule: usize) -> &Rule {
        &self.0[rule]
    }

    /// The first rule for a group, by its place.
    pub(super) fn of(&self, group: &str) -> Option<usize> {
        self.0.iter().position(|rule| rule.glob.matches(group))
    }
}
