//! What does one delivery of a `group_send` cost in the engine, and does it depend on the size of the group?
//!
//! Only the send is timed; putting the receivers back in line, or emptying the mailboxes, is not. The wake of a task is
//! the bindings' work and not in here: see `benches/compare` for the whole.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use headrace_benches::{Engine, GROUP, SIZES, engine, join_all, names, take_all, text, wait_all};
use headrace_core::MonotonicClock;

/// What is put right before each send.
type Prepare = fn(&Engine<MonotonicClock>, &[String]);

fn fan_out(criterion: &mut Criterion, title: &str, prepare: Prepare) {
    let mut group = criterion.benchmark_group(title);
    for size in SIZES {
        let (engine, channels, text) = (engine(), names(size), text());
        join_all(&engine, &channels);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                || prepare(&engine, &channels),
                |()| engine.group_send(black_box(GROUP), text.clone(), &[]),
                BatchSize::PerIteration,
            );
        });
    }
}

fn to_waiters(criterion: &mut Criterion) {
    fan_out(criterion, "fan-out to waiters", wait_all);
}

fn to_mailboxes(criterion: &mut Criterion) {
    fan_out(criterion, "fan-out to mailboxes", take_all);
}

criterion_group!(benches, to_waiters, to_mailboxes);
criterion_main!(benches);
