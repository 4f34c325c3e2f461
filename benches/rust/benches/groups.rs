//! What do joining and leaving a group cost, and does it matter how many others are in it?

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headrace_benches::{GROUP, SIZES, engine, join_all, names};

fn join_and_leave(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join and leave");
    for size in SIZES {
        let (engine, channels) = (engine(), names(size + 1));
        let (newcomer, others) = channels
            .split_last()
            .expect("there is one more than the size");
        join_all(&engine, others);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let added = engine.group_add(black_box(GROUP), newcomer);
                (added, engine.group_discard(black_box(GROUP), newcomer))
            });
        });
    }
}

fn join_again(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join again");
    for size in SIZES {
        let (engine, channels) = (engine(), names(size));
        join_all(&engine, &channels);
        let mut turn = channels.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                turn.next()
                    .map(|channel| engine.group_add(black_box(GROUP), channel))
            });
        });
    }
}

criterion_group!(benches, join_and_leave, join_again);
criterion_main!(benches);
