//! What the benches share: an engine whose messages are as cheap to clone as a Python reference, and whose waiters are
//! numbers. What remains is the engine's own work.

use std::sync::Arc;

use headrace_core::{Clock, Config, MemoryEngine, MonotonicClock};

/// A message: shared text, cloned by counting.
pub type Text = Arc<str>;

/// The engine that is measured.
pub type Engine<C> = MemoryEngine<Text, u32, C>;

/// The group of all benches.
pub const GROUP: &str = "room";

const USABLE: &str = "the names are valid and the engine is open";

/// The sizes of groups that are compared.
pub const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// An engine with the default settings, on the machine's clock.
pub fn engine() -> Engine<MonotonicClock> {
    MemoryEngine::new(Config::default(), MonotonicClock::default())
}

/// A message of the usual size.
pub fn text() -> Text {
    "the quick brown fox jumps over the lazy dog".into()
}

/// As many names as asked for, as long as those that a layer makes.
pub fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("specific.inmemory!{number:024x}"))
        .collect()
}

/// Puts all channels in the group.
///
/// # Panics
/// A name is not valid, or the engine was closed.
pub fn join_all<C: Clock>(engine: &Engine<C>, channels: &[String]) {
    for channel in channels {
        engine.group_add(GROUP, channel).expect(USABLE);
    }
}

/// Has a receiver wait at every channel.
///
/// # Panics
/// A name is not valid, or the engine was closed.
pub fn wait_all<C: Clock>(engine: &Engine<C>, channels: &[String]) {
    for (waiter, channel) in (0..).zip(channels) {
        let received = engine.wait(channel, waiter, None);
        drop(received.expect(USABLE));
    }
}

/// Takes a message from every channel.
///
/// # Panics
/// A name is not valid, or the engine was closed.
pub fn take_all<C: Clock>(engine: &Engine<C>, channels: &[String]) {
    for channel in channels {
        drop(engine.take(channel).expect(USABLE));
    }
}
