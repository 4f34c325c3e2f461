//! What does an operation cost that clears away stale mailboxes along its way, and what does clearing all of them?
//!
//! The first pair tells what the amortised sweep adds for whoever sends while it has work: a few steps, and no more if
//! there are more stale mailboxes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use headrace_benches::{Engine, names, text};
use headrace_core::{Config, ManualClock, MemoryEngine};

/// How many mailboxes hold a message that nobody took in time.
const STALE: usize = 10_000;
/// How many sends are timed before the mailboxes are made stale anew: fewer than the sweep needs to clear them all.
const OPERATIONS: u64 = 1_000;

/// An engine whose mailboxes are all stale.
fn neglected(channels: &[String]) -> Engine<Arc<ManualClock>> {
    let clock = Arc::new(ManualClock::default());
    let engine = MemoryEngine::new(Config::default(), Arc::clone(&clock));
    for channel in channels {
        drop(engine.send(channel, text()));
    }
    clock.advance(Duration::from_secs(3600));
    engine
}

/// The time of some sends, each with its take, while the sweep has work; setting that up again is not timed.
fn time(mut left: u64, channels: &[String]) -> Duration {
    let (mut spent, text) = (Duration::ZERO, text());
    while left > 0 {
        let (engine, turn) = (neglected(channels), left.min(OPERATIONS));
        let start = Instant::now();
        for _ in 0..turn {
            drop(black_box(engine.send("inbox", text.clone())));
            drop(black_box(engine.take("inbox")));
        }
        spent += start.elapsed();
        left -= turn;
    }
    spent
}

fn send_and_take(criterion: &mut Criterion) {
    for stale in [0, STALE] {
        let channels = names(stale);
        let title = format!("expiry/send, take beside {stale} stale mailboxes");
        criterion.bench_function(&title, |bencher| {
            bencher.iter_custom(|iterations| time(iterations, &channels));
        });
    }
}

fn sweep_all(criterion: &mut Criterion) {
    let channels = names(STALE);
    let mut group = criterion.benchmark_group("expiry");
    group.throughput(Throughput::Elements(STALE as u64));
    group.bench_function("stats, which clears all of them", |bencher| {
        bencher.iter_batched_ref(
            || neglected(&channels),
            |engine| engine.stats(),
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, send_and_take, sweep_all);
criterion_main!(benches);
