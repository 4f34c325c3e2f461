use proptest::prelude::*;

use super::*;

const A: u64 = 1;

fn identity(sender: u64, sequence: u64) -> Identity {
    Identity {
        sender: ProcessId(sender),
        sequence,
    }
}

fn pushed(epoch: u64, sender: u64, sequence: u64) -> Pushed {
    Pushed {
        epoch,
        identity: identity(sender, sequence),
        exclude: Vec::new(),
        payload: Vec::new().into(),
        stale: false,
    }
}

fn row(epoch: u64, number: u64, message: Option<Identity>) -> Row {
    let value = message.map_or_else(Vec::new, |Identity { sender, sequence }| {
        let mut value = vec![1, 3];
        value.extend(sender.0.to_be_bytes());
        value.extend(sequence.to_be_bytes());
        value.extend([0; 16]);
        value
    });
    Row {
        id: EntryId { epoch, number },
        value,
    }
}

fn last(epoch: u64, number: u64, message: Option<Identity>) -> Last {
    Last::of(&row(epoch, number, message))
}

/// A listener that has had the entry 5-0 of A.
fn listener() -> Listener {
    let mut listener = Listener::default();
    assert_eq!(listener.subscribed(), [Step::Read]);
    let newest = Some(row(5, 0, Some(identity(A, 1))));
    assert!(listener.answered(Answer {
        newest,
        ..Answer::default()
    }));
    let at = last(5, 0, Some(identity(A, 1)));
    assert_eq!(listener.settled(), [Step::Skip(at)]);
    assert_eq!(listener.last(), Some(at));
    listener
}

fn answer(listener: &mut Listener, rows: Vec<Row>, newest: Option<Row>) -> Vec<Step> {
    let newest = newest.or_else(|| rows.last().cloned());
    assert!(listener.answered(Answer {
        rows,
        newest,
        anew: false,
    }));
    listener.settled()
}

#[test]
fn a_message_of_the_same_epoch_has_the_next_number() {
    let mut listener = listener();
    for number in 1..4 {
        let message = pushed(5, A, number + 1);
        let at = last(5, number, Some(message.identity));
        let steps = listener.pushed(message.clone());
        assert_eq!(steps, [Step::Give(message, Some(at))]);
    }
}

#[test]
fn the_number_of_a_message_that_is_not_kept_is_not_missing() {
    let mut listener = listener();
    for (number, unkept, sequence) in [(1, 2..3, 3), (2, 4..6, 6)] {
        for unkept in unkept {
            listener.note_unkept(identity(A, unkept));
        }
        let message = pushed(5, A, sequence);
        let at = last(5, number, Some(message.identity));
        let steps = listener.pushed(message.clone());
        assert_eq!(steps, [Step::Give(message, Some(at))]);
    }
    listener.note_unkept(identity(A, 7));
    assert_eq!(listener.pushed(pushed(5, A, 9)), [Step::Read]);
}

#[test]
fn what_was_missed_while_the_subscription_was_interrupted_is_given_once_and_in_order() {
    let mut listener = listener();
    assert_eq!(listener.subscribed(), [Step::Read]);
    let (third, fourth) = (pushed(5, A, 4), pushed(5, A, 5));
    assert_eq!(listener.pushed(third.clone()), []);
    assert_eq!(listener.pushed(fourth.clone()), []);
    let rows: Vec<Row> = (0..4)
        .map(|n| row(5, n, Some(identity(A, n + 1))))
        .collect();
    let steps = answer(&mut listener, rows.clone(), None);
    let at = last(5, 4, Some(fourth.identity));
    let [_, missed @ ..] = &rows[..] else {
        unreachable!("there are four")
    };
    let mut expected: Vec<Step> = missed.iter().cloned().map(Step::GiveRow).collect();
    expected.push(Step::Give(fourth, Some(at)));
    assert_eq!(steps, expected);
}

#[test]
fn what_is_not_in_the_stream_any_more_is_a_gap_and_what_came_since_is_given() {
    let mut listener = listener();
    listener.subscribed();
    let message = pushed(9, A, 7);
    listener.pushed(message.clone());
    let newest = row(9, 3, Some(message.identity));
    let steps = answer(&mut listener, Vec::new(), Some(newest.clone()));
    let give = Step::Give(message, Some(Last::of(&newest)));
    assert_eq!(steps, [Step::Gap(0), give]);
}

#[test]
fn a_stream_that_was_lost_while_all_was_heard_is_no_gap() {
    let mut listener = listener();
    // Published, and not kept; then written again.
    let unkept = pushed(5, A, 2);
    assert_eq!(listener.pushed(unkept.clone()).len(), 1);
    assert_eq!(listener.pushed(pushed(9, A, 2)), [Step::Read]);
    let newest = row(9, 0, Some(unkept.identity));
    let steps = answer(&mut listener, Vec::new(), Some(newest.clone()));
    assert_eq!(steps, [Step::Skip(Last::of(&newest))]);
}

#[test]
fn a_new_stream_is_given_from_its_beginning_behind_the_gap_if_it_has_that() {
    for first in [0, 1] {
        let mut listener = listener();
        listener.subscribed();
        let (came, unkept) = (pushed(9, A, 5), pushed(9, 2, 1));
        listener.pushed(came.clone());
        listener.pushed(unkept.clone());
        let rows: Vec<Row> = (first..4)
            .map(|n| row(9, n, Some(identity(A, n + 2))))
            .collect();
        let steps = answer(&mut listener, rows.clone(), None);
        let place = last(9, 3, Some(came.identity));
        let mut expected = vec![Step::Gap(0)];
        if first == 0 {
            expected.extend(rows.into_iter().take(3).map(Step::GiveRow));
        }
        expected.push(Step::Give(came, Some(place)));
        let behind = last(9, 4, Some(unkept.identity));
        expected.push(Step::Give(unkept, Some(behind)));
        assert_eq!(steps, expected);
    }
}

#[test]
fn what_was_written_while_a_listener_began_the_stream_is_given_in_its_place() {
    let mut listener = Listener::default();
    listener.subscribed();
    let message = pushed(7, A, 1);
    listener.pushed(message.clone());
    let rows = vec![row(7, 0, Some(message.identity)), row(8, 0, None)];
    assert!(listener.answered(Answer {
        newest: rows.last().cloned(),
        rows,
        anew: true,
    }));
    let at = last(7, 0, Some(message.identity));
    let expected = [Step::Give(message, Some(at)), Step::Skip(last(8, 0, None))];
    assert_eq!(listener.settled(), expected);
}

#[test]
fn a_message_that_was_not_kept_is_given_when_it_is_written_again() {
    let mut listener = listener();
    // Its sender did not know the epoch of the stream.
    assert_eq!(listener.pushed(pushed(4, 2, 1)), [Step::Read]);
    let rows = vec![row(5, 0, Some(identity(A, 1)))];
    assert_eq!(answer(&mut listener, rows, None), []);
    let again = pushed(5, 2, 1);
    let at = last(5, 1, Some(again.identity));
    let steps = listener.pushed(again.clone());
    assert_eq!(steps, [Step::Give(again, Some(at))]);
}

#[test]
fn a_hole_in_the_numbers_of_a_sender_is_read_and_told_only_if_it_is_gone() {
    for is_there in [true, false] {
        let mut listener = listener();
        listener.pushed(pushed(5, A, 2));
        assert_eq!(listener.pushed(pushed(5, A, 4)), [Step::Read]);
        let rows: Vec<Row> = (1..4)
            .map(|n| row(5, n, Some(identity(A, n + 1))))
            .collect();
        let newest = rows.last().cloned();
        let rows = if is_there { rows } else { Vec::new() };
        let steps = answer(&mut listener, rows, newest);
        let gaps = steps.iter().filter(|step| **step == Step::Gap(1)).count();
        assert_eq!(gaps, usize::from(!is_there), "{steps:?}");
    }
}

#[test]
fn what_cannot_be_read_is_given_without_its_place() {
    let mut listener = listener();
    listener.subscribed();
    let message = pushed(5, A, 3);
    listener.pushed(message.clone());
    let steps = listener.unread();
    assert_eq!(steps, [Step::Gap(0), Step::Give(message, None)]);
    assert_eq!(listener.last(), None);
    assert_eq!(listener.pushed(pushed(5, A, 4)).len(), 1);
    assert_eq!(listener.doubt(), [Step::Read]);
    let newest = row(5, 3, Some(identity(A, 4)));
    let steps = answer(&mut listener, Vec::new(), Some(newest.clone()));
    assert_eq!(steps, [Step::Skip(Last::of(&newest))]);
}

#[test]
fn a_recorded_message_of_an_unknown_sender_is_refused_unless_it_is_in_the_stream() {
    for is_there in [true, false] {
        let mut listener = listener();
        let message = Pushed {
            stale: true,
            ..pushed(5, 2, 1)
        };
        assert_eq!(listener.pushed(message.clone()), [Step::Read]);
        let mut rows = vec![row(5, 0, Some(identity(A, 1)))];
        let kept = row(5, 1, Some(message.identity));
        rows.extend(is_there.then(|| kept.clone()));
        let expected = if is_there {
            Step::GiveRow(kept)
        } else {
            Step::Refuse(message)
        };
        assert_eq!(answer(&mut listener, rows, None), [expected]);
    }
}

#[test]
fn what_is_remembered_of_senders_is_bounded() {
    let mut listener = listener();
    for sender in 0..3 * SENDERS as u64 {
        listener.pushed(pushed(5, sender + 10, 1));
    }
    assert!(listener.senders.len() <= SENDERS);
    assert_eq!(listener.recent.len(), RECENT);
}

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
