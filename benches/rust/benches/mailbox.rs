//! What does one message cost through one mailbox, when it waits for its receiver and when its receiver waits for it?
//!
//! The difference between the two is what a hand-off saves: no queue, no timer for the sweep.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use headrace_benches::{engine, names, text};

fn queued(criterion: &mut Criterion) {
    let (engine, channel, text) = (engine(), &names(1)[0], text());
    criterion.bench_function("mailbox/send, take", |bencher| {
        bencher.iter(|| {
            let sent = engine.send(black_box(channel), text.clone());
            (sent, engine.take(black_box(channel)))
        });
    });
}

fn handed_off(criterion: &mut Criterion) {
    let (engine, channel, text) = (engine(), &names(1)[0], text());
    criterion.bench_function("mailbox/wait, send", |bencher| {
        bencher.iter(|| {
            let received = engine.wait(black_box(channel), 0, None);
            (received, engine.send(black_box(channel), text.clone()))
        });
    });
}

fn full(criterion: &mut Criterion) {
    let (engine, channel, text) = (engine(), &names(1)[0], text());
    while engine.send(channel, text.clone()).is_ok() {}
    criterion.bench_function("mailbox/send to a full one", |bencher| {
        bencher.iter(|| engine.send(black_box(channel), text.clone()));
    });
}

criterion_group!(benches, queued, handed_off, full);
criterion_main!(benches);
