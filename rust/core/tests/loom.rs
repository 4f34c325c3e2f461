//! Models of the hand-off and the cancel: every interleaving of the threads below, tried by loom.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p headrace-core --test loom --release`
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a model that can't go on has failed")]

use std::time::Duration;

use headrace_core::{
    Capacities, Config, Envelope, HandOff, ManualClock, MemoryEngine, Phase, Received, Slot,
};
use loom::sync::Arc;
use loom::thread;

type Waiter = Arc<Slot<u32>>;
type Engine = MemoryEngine<u32, Waiter, ManualClock>;

fn engine() -> Arc<Engine> {
    let config = Config {
        expiry: Duration::from_secs(60),
        group_expiry: Duration::from_secs(60),
        capacities: Capacities::new(4),
        ..Config::default()
    };
    Arc::new(MemoryEngine::new(config, ManualClock::default()))
}

fn line_up(engine: &Engine) -> Waiter {
    let waiter = Waiter::default();
    assert!(matches!(
        engine.wait("c", waiter.clone(), None),
        Ok(Received::Waiting)
    ));
    waiter
}

/// What the bindings do with a hand-off.
fn deliver(engine: &Engine, mut next: Option<HandOff<u32, Waiter>>) {
    while let Some(HandOff { waiter, envelope }) = next {
        next = match waiter.fill(envelope) {
            Ok(()) => None,
            Err(envelope) => engine.give_back("c", envelope),
        };
    }
}

fn send(engine: &Engine, message: u32) {
    deliver(engine, engine.send("c", message).unwrap());
}

/// What the bindings do with a receiver that is cancelled.
fn cancel(engine: &Engine, waiter: &Waiter) {
    drop(engine.forget("c", |waiting| Arc::ptr_eq(waiting, waiter)));
    if let Some(envelope) = waiter.release() {
        deliver(engine, engine.give_back("c", envelope));
    }
}

fn taken(waiter: &Waiter) -> Vec<u32> {
    waiter
        .take()
        .map(|Envelope { message, .. }| message)
        .into_iter()
        .collect()
}

fn queued(engine: &Engine) -> Vec<u32> {
    std::iter::from_fn(|| engine.take("c").unwrap())
        .map(|envelope| envelope.message)
        .collect()
}

#[test]
fn a_cancelled_receiver_loses_no_message() {
    loom::model(|| {
        let engine = engine();
        let waiter = line_up(&engine);
        let sender = thread::spawn({
            let engine = engine.clone();
            move || send(&engine, 1)
        });
        cancel(&engine, &waiter);
        sender.join().unwrap();
        assert_eq!(taken(&waiter), []);
        assert_eq!(queued(&engine), [1]);
        let stats = engine.stats();
        assert_eq!((stats.sent, stats.delivered, stats.waiters), (1, 1, 0));
    });
}

#[test]
fn a_receiver_that_is_called_away_finds_its_message_later() {
    loom::model(|| {
        let engine = engine();
        let waiter = line_up(&engine);
        let sender = thread::spawn({
            let engine = engine.clone();
            move || send(&engine, 1)
        });
        let removed = engine.forget("c", |waiting| Arc::ptr_eq(waiting, &waiter));
        let mut received = Vec::new();
        if removed.is_some() {
            waiter.interrupt();
            // It has seen to the other thing, and waits again.
            assert!(waiter.reset());
            match engine.wait("c", waiter.clone(), None).unwrap() {
                Received::Ready(envelope) => received.push(envelope.message),
                Received::Waiting | Received::Empty => {}
            }
        }
        sender.join().unwrap();
        received.extend(taken(&waiter));
        assert_eq!(received, [1]);
        assert_eq!(queued(&engine), []);
    });
}

#[test]
fn two_messages_come_back_in_order() {
    loom::model(|| {
        let engine = engine();
        let waiter = line_up(&engine);
        let sender = thread::spawn({
            let engine = engine.clone();
            move || {
                send(&engine, 1);
                send(&engine, 2);
            }
        });
        cancel(&engine, &waiter);
        sender.join().unwrap();
        assert_eq!(queued(&engine), [1, 2]);
    });
}

#[test]
fn the_message_of_a_cancelled_receiver_goes_to_the_next() {
    loom::model(|| {
        let engine = engine();
        let (first, second) = (line_up(&engine), line_up(&engine));
        let sender = thread::spawn({
            let engine = engine.clone();
            move || send(&engine, 1)
        });
        cancel(&engine, &first);
        sender.join().unwrap();
        assert_eq!(taken(&second), [1]);
        assert_eq!(queued(&engine), []);
    });
}

#[test]
fn two_senders_and_two_receivers_meet_exactly_once() {
    loom::model(|| {
        let engine = engine();
        let waiters = [line_up(&engine), line_up(&engine)];
        let sender = thread::spawn({
            let engine = engine.clone();
            move || send(&engine, 1)
        });
        send(&engine, 2);
        sender.join().unwrap();
        let mut all: Vec<u32> = waiters.iter().flat_map(taken).collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn closing_ends_every_wait_one_way() {
    loom::model(|| {
        let engine = engine();
        let waiter = line_up(&engine);
        let sender = thread::spawn({
            let engine = engine.clone();
            move || {
                if let Ok(hand_off) = engine.send("c", 1) {
                    deliver(&engine, hand_off);
                }
            }
        });
        for waiting in engine.close() {
            waiting.close();
        }
        sender.join().unwrap();
        match waiter.phase() {
            Phase::Filled => assert_eq!(taken(&waiter), [1]),
            phase => assert_eq!(phase, Phase::Closed),
        }
    });
}
