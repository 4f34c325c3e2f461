//! The listener against a server, its senders, and all that can be lost between them.

use proptest::prelude::*;

use super::*;

/// How many entries the stream of the model keeps.
const SIZE: usize = 6;

/// A server with one stream, the senders, and the listener: all that can happen between them.
#[derive(Default)]
struct Model {
    clock: u64,
    stream: Vec<Row>,
    /// All that was ever kept, in its order.
    kept: Vec<Identity>,
    /// What is on its way to the listener.
    pushes: VecDeque<Pushed>,
    is_subscribed: bool,
    senders: [(u64, u64); 3],
    listener: Listener,
    /// A reading: nothing, asked for, answered with so many pushes in front of the answer.
    reading: Option<(Option<Last>, bool, usize)>,
    /// What the members got since the last gap.
    given: Vec<Identity>,
    all_given: Vec<Identity>,
    gaps: usize,
    lost: bool,
    /// There was no stream: the epoch in which the listener begins one.
    beginning: Option<u64>,
    /// What was kept since the stream was lost, if the listener had its place in that, and while it holds all.
    since_lost: Option<Vec<Identity>>,
}

impl Model {
    fn newest(&self) -> Option<EntryId> {
        self.stream.last().map(|row| row.id)
    }

    fn publish(&mut self, push: Pushed) {
        if self.is_subscribed {
            self.pushes.push_back(push);
        }
    }

    fn add(&mut self, epoch: u64, message: Option<Identity>) {
        let newest = self.newest();
        let number = newest.filter(|id| id.epoch == epoch);
        let number = number.map_or(0, |id| id.number + 1);
        self.stream.push(row(epoch, number, message));
        if let Some(since) = &mut self.since_lost {
            since.extend(message);
        }
        if self.stream.len() > SIZE {
            self.stream.remove(0);
            self.since_lost = None;
        }
        self.kept.extend(message);
    }

    /// As `sending` does, one after the other: a message that is not kept is written again.
    fn send(&mut self, sender: usize) {
        let (mut epoch, sequence) = self.senders[sender];
        let message = identity(sender as u64 + 1, sequence + 1);
        loop {
            let newest = self.newest();
            let push = pushed(epoch, message.sender.0, message.sequence);
            let creates = epoch == 0;
            if creates {
                self.clock += 1;
                epoch = newest.map_or(self.clock, |newest| newest.epoch);
                self.clock = self.clock.max(epoch);
                if newest.is_none() {
                    self.add(epoch, Some(message));
                    self.publish(Pushed { epoch, ..push });
                    break;
                }
                continue;
            }
            self.publish(push);
            if newest.is_some_and(|newest| newest.epoch <= epoch) {
                self.add(epoch, Some(message));
                break;
            }
            epoch = 0;
        }
        self.senders[sender] = (epoch, sequence + 1);
    }

    fn do_all(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Give(pushed, _) => self.give(pushed.identity),
                Step::GiveRow(row) => {
                    let identity = row.identity().expect("it is no head");
                    self.give(identity);
                }
                Step::Skip(_) => {}
                Step::Gap(_) => {
                    self.check();
                    self.given.clear();
                    self.gaps += 1;
                }
                Step::Read => {
                    self.reading = Some((self.listener.read_from(), false, 0));
                    self.beginning = None;
                }
                Step::Refuse(_) => panic!("nothing is stale"),
            }
        }
    }

    fn give(&mut self, identity: Identity) {
        assert!(
            !self.all_given.contains(&identity),
            "{identity:?} came twice"
        );
        self.all_given.push(identity);
        self.given.push(identity);
    }

    /// What the members got since the last gap is a piece of what was kept, without a hole; the last may not be kept yet.
    fn check(&self) {
        if self.lost {
            return;
        }
        let Some(first) = self.given.first() else {
            return;
        };
        let from = self.kept.iter().position(|kept| kept == first);
        let from = from.expect("it was kept");
        let end = from + self.given.len();
        assert_eq!(self.kept.get(from..end), Some(&self.given[..]));
    }

    fn answer(&mut self) {
        let Some((from, answered @ false, _)) = self.reading else {
            return;
        };
        let _ = answered;
        let anew = self.beginning.is_some();
        if let Some(epoch) = self.beginning.take() {
            if self.newest().is_none_or(|newest| newest.epoch < epoch) {
                self.add(epoch, None);
            }
        } else if self.stream.is_empty() {
            self.clock += 1;
            self.beginning = Some(self.clock);
            return;
        }
        let from = from.filter(|_| !anew);
        let rows: Vec<Row> = if let Some(from) = from {
            let behind = self.stream.iter().filter(|row| row.id >= from.id);
            behind.cloned().collect()
        } else if anew {
            self.stream.clone()
        } else {
            Vec::new()
        };
        let newest = self.stream.last().cloned();
        assert!(self.listener.answered(Answer { rows, newest, anew }));
        self.reading = Some((from, true, self.pushes.len()));
    }

    fn pump(&mut self, most: usize) {
        for _ in 0..most {
            let Some(push) = self.pushes.pop_front() else {
                break;
            };
            let steps = self.listener.pushed(push);
            self.do_all(steps);
            if let Some((_, true, in_front)) = &mut self.reading {
                *in_front = in_front.saturating_sub(1);
            }
        }
    }

    fn settle(&mut self) {
        if let Some((_, true, in_front)) = self.reading {
            self.pump(in_front);
            self.reading = None;
            let steps = self.listener.settled();
            self.do_all(steps);
        }
    }

    fn subscribe(&mut self) {
        self.is_subscribed = true;
        let steps = self.listener.subscribed();
        self.do_all(steps);
    }

    fn step(&mut self, action: u8, argument: usize) {
        match action {
            0..=9 => self.send(argument % 3),
            10..=13 => self.pump(argument),
            14 | 15 => self.answer(),
            16 | 17 => self.settle(),
            18 => {
                // The connection is lost, and what is on its way.
                self.is_subscribed = false;
                self.pushes.clear();
                self.reading = None;
            }
            19 if !self.is_subscribed => self.subscribe(),
            20 => self.senders[argument % 3].0 = 0,
            21 if argument == 0 => {
                self.stream.clear();
                self.lost = true;
                self.since_lost = self.listener.read_from().map(|_| Vec::new());
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        if !self.is_subscribed {
            self.subscribe();
        }
        while self.reading.is_some() || !self.pushes.is_empty() {
            self.answer();
            self.settle();
            self.pump(1);
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is lost, and whenever it comes: no message comes twice, none is missing unless that was told, and the order is that
    /// of the stream.
    #[test]
    fn members_get_all_that_is_kept_once_and_in_order_or_are_told(
        steps in prop::collection::vec((0..21_u8, 0..6_usize), 0..150),
    ) {
        let mut model = Model::default();
        model.subscribe();
        for (action, argument) in steps {
            model.step(action, argument);
        }
        model.finish();
        if let Some(newest) = model.kept.last() {
            let has_all = model.all_given.last() == Some(newest);
            prop_assert!(has_all || model.gaps > 0 || model.all_given.is_empty());
        }
    }

    /// The same where streams are lost as well: what was heard is given once all the same, and all that was sent since the loss comes
    /// if the stream holds it.
    #[test]
    fn a_lost_stream_gives_nothing_twice(
        steps in prop::collection::vec((0..22_u8, 0..6_usize), 0..150),
    ) {
        let mut model = Model::default();
        model.subscribe();
        for (action, argument) in steps {
            model.step(action, argument);
        }
        model.finish();
        for missed in model.since_lost.iter().flatten() {
            prop_assert!(model.all_given.contains(missed), "{missed:?} is missing");
        }
        model.send(0);
        model.finish();
        prop_assert_eq!(model.all_given.last(), model.kept.last());
    }
}
