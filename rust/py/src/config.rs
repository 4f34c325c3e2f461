//! The settings of a layer as Python gives them: one frozen object, checked and named there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use headrace_core::history::{Histories, HistoryRules, random_seed};
use headrace_core::presence::{PresenceRule, PresenceRules, Presences};
use headrace_core::sync::Mutex;
use headrace_core::{Capacities, CapacityRule, Clock, Config, Moment, MonotonicClock};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// `headrace._layers.memory.LayerConfig`, read field by field.
#[derive(FromPyObject)]
pub(crate) struct LayerConfig {
    expiry: f64,
    group_expiry: f64,
    capacity: usize,
    channel_capacity: Vec<(Pattern, usize)>,
    capacity_bytes: usize,
    /// For globs of groups, how many messages are kept, and for how many seconds after the last.
    history: Vec<(String, usize, f64)>,
    history_bytes: usize,
    /// For globs of groups, the type of the messages that tell who is present, the seconds of `interval` and of `linger`, and `max`.
    presence: Vec<(String, String, f64, f64, usize)>,
    pub(crate) strict: bool,
    pub(crate) direct_wake: bool,
}

#[derive(FromPyObject)]
enum Pattern {
    Glob(String),
    /// Anything with `match(name)`, as compiled regular expressions have.
    Object(Py<PyAny>),
}

impl LayerConfig {
    /// The settings of the engine, and the pattern objects that it will ask.
    pub(crate) fn to_core(&self, py: Python<'_>) -> PyResult<(Config, Vec<Arc<Py<PyAny>>>)> {
        let mut capacities = Capacities::new(self.capacity);
        let mut patterns = Vec::new();
        for (pattern, capacity) in &self.channel_capacity {
            let rule = match pattern {
                Pattern::Glob(glob) => CapacityRule::glob(glob),
                Pattern::Object(pattern) => {
                    let pattern = Arc::new(pattern.clone_ref(py));
                    patterns.push(Arc::clone(&pattern));
                    CapacityRule::Predicate(Arc::new(move |name| matches(&pattern, name)))
                }
            };
            capacities = capacities.with_rule(rule, *capacity);
        }
        let config = Config {
            expiry: seconds(self.expiry)?,
            group_expiry: seconds(self.group_expiry)?,
            capacities,
            capacity_bytes: self.capacity_bytes,
        };
        Ok((config, patterns))
    }

    /// The histories of groups, if there is any.
    pub(crate) fn histories<M: Clone>(&self) -> PyResult<Option<Histories<M>>> {
        let mut rules = HistoryRules::default();
        for (glob, size, ttl) in &self.history {
            rules = rules.with_rule(glob, *size, seconds(*ttl)?);
        }
        let histories = || Histories::new(rules, self.history_bytes, random_seed());
        Ok((!self.history.is_empty()).then(histories))
    }
}

impl LayerConfig {
    /// Who is present in groups, if there is any that tells.
    pub(crate) fn presences(&self) -> PyResult<Option<Presences>> {
        let mut rules = PresenceRules::default();
        for (glob, kind, interval, linger, max) in &self.presence {
            let rule = PresenceRule::new(kind, seconds(*interval)?, seconds(*linger)?, *max);
            rules = rules.with_rule(glob, rule);
        }
        Ok((!rules.is_empty()).then(|| Presences::new(rules)))
    }
}

fn matches(pattern: &Py<PyAny>, name: &str) -> bool {
    let matched = Python::try_attach(|py| {
        let pattern = pattern.bind(py);
        let matched = pattern.call_method1(pyo3::intern!(py, "match"), (name,));
        matched
            .and_then(|matched| matched.is_truthy())
            .unwrap_or_else(|error| {
                error.write_unraisable(py, Some(pattern));
                false
            })
    });
    // Without an interpreter nobody receives any more.
    matched.unwrap_or(false)
}

pub(crate) fn seconds(seconds: f64) -> PyResult<Duration> {
    if seconds == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(format!("{seconds} seconds: {error}")))
}

/// A clock that moves only by `advance`: for tests of expiry.
#[pyclass(frozen, module = "headrace.testing")]
#[derive(Debug, Default)]
pub(crate) struct ManualClock {
    clock: Arc<headrace_core::ManualClock>,
    /// Who does what has become due when it was moved.
    followers: Mutex<Vec<Follower>>,
}

/// Does what is due by now. False if there will be nothing more to do.
#[derive(Clone)]
struct Follower(Arc<dyn Fn(Python<'_>) -> PyResult<bool> + Send + Sync>);

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follower(..)")
    }
}

impl ManualClock {
    /// Has a function called whenever the clock was moved, until it returns false.
    pub(crate) fn follow(
        &self,
        follow: impl Fn(Python<'_>) -> PyResult<bool> + Send + Sync + 'static,
    ) {
        let follower = Follower(Arc::new(follow));
        self.followers.with(|followers| followers.push(follower));
    }
}

#[pymethods]
impl ManualClock {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Move the clock forward.
    ///
    /// Args:
    ///     seconds: How far; not negative.
    ///
    /// Raises:
    ///     ValueError: The number is negative or no number.
    fn advance(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        self.clock.advance(self::seconds(seconds)?);
        for follower in self.followers.with(|followers| followers.clone()) {
            if !follower.0(py)? {
                let is_it = |other: &Follower| Arc::ptr_eq(&other.0, &follower.0);
                let gone = self.followers.with(|followers| {
                    let place = followers.iter().position(is_it);
                    place.map(|place| followers.swap_remove(place))
                });
                drop(gone);
            }
        }
        Ok(())
    }
}

/// The clock of one layer.
#[derive(Debug)]
pub(crate) enum LayerClock {
    Monotonic(MonotonicClock),
    Manual(Arc<headrace_core::ManualClock>),
}

impl LayerClock {
    pub(crate) fn new(manual: Option<&ManualClock>) -> Self {
        manual.map_or_else(
            || Self::Monotonic(MonotonicClock::default()),
            |manual| Self::Manual(Arc::clone(&manual.clock)),
        )
    }
}

impl Clock for LayerClock {
    fn now(&self) -> Moment {
        match self {
            Self::Monotonic(clock) => clock.now(),
            Self::Manual(clock) => clock.now(),
        }
    }

    fn exact(&self) -> Moment {
        match self {
            Self::Monotonic(clock) => clock.exact(),
            Self::Manual(clock) => clock.exact(),
        }
    }
}
