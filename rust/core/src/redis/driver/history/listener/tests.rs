use super::*;

mod model;

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

#[test]
fn what_a_lost_stream_had_is_given_though_it_comes_while_another_one_is_begun() {
    let mut listener = listener();
    assert_eq!(listener.doubt(), [Step::Read]);
    let [first, second] = [2, 3].map(|sequence| pushed(5, A, sequence));
    for message in [&first, &second] {
        assert_eq!(listener.pushed(message.clone()), []);
    }
    let head = row(6, 0, None);
    assert!(listener.answered(Answer {
        rows: vec![head.clone()],
        newest: Some(head),
        anew: true,
    }));
    assert_eq!(
        listener.settled(),
        [
            Step::Skip(last(6, 0, None)),
            Step::Give(first, None),
            Step::Give(second.clone(), None)
        ]
    );
    assert!(!listener.is_reading());
    // Its sender has written it again, because the transaction that published it kept nothing.
    let again = pushed(6, A, second.identity.sequence);
    let at = last(6, 1, Some(again.identity));
    assert_eq!(listener.pushed(again), [Step::Skip(at)]);
}
