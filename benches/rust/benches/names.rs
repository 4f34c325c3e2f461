//! What does it cost to check a name that is new? (A name that is known is found by its hash and not checked again.)

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use headrace_core::name::{check_channel, check_group};

fn check(criterion: &mut Criterion) {
    let longest = "x".repeat(100);
    for name in [
        "inbox",
        "specific.inmemory!0123456789abcdef01234567",
        &longest,
    ] {
        criterion.bench_function(
            &format!("check a channel name of {}", name.len()),
            |bencher| {
                bencher.iter(|| check_channel(black_box(name)));
            },
        );
    }
    criterion.bench_function("check a group name of 5", |bencher| {
        bencher.iter(|| check_group(black_box("lobby")));
    });
    criterion.bench_function("refuse a group name of 5", |bencher| {
        bencher.iter(|| check_group(black_box("lob/y")));
    });
}

criterion_group!(benches, check);
criterion_main!(benches);
