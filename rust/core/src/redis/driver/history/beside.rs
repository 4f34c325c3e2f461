//! Messages of a group that no history keeps, while what was published before them is not given yet.
//!
//! They come behind all that is held with them, and before what their sender has sent later.

use super::listener::Step;
use crate::redis::wire::envelope::Payload;
use crate::redis::wire::history::Identity;

/// A message of a group that keeps its history, which is not kept itself.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::redis::driver) struct Unkept {
    pub(in crate::redis::driver) identity: Identity,
    pub(in crate::redis::driver) exclude: Vec<String>,
    pub(in crate::redis::driver) payload: Payload,
}

/// What is to be done for the members, in its order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Steps(Vec<Step>),
    Give(Unkept),
}

/// Puts messages that are not kept among steps; those for which more is to be waited for are left.
pub(super) fn in_turn(waiting: &mut Vec<Unkept>, steps: Vec<Step>, is_reading: bool) -> Vec<Turn> {
    let places = waiting.iter().map(|unkept| {
        let is_later = |step: &Step| {
            let given = given(step);
            given.is_some_and(|given| {
                given.sender == unkept.identity.sender && given.sequence > unkept.identity.sequence
            })
        };
        let later = steps.iter().position(is_later);
        later.or((!is_reading).then_some(steps.len()))
    });
    let places: Vec<Option<usize>> = places.collect();
    let (mut due, mut left) = (Vec::new(), Vec::new());
    for (place, unkept) in places.into_iter().zip(waiting.drain(..)) {
        match place {
            Some(place) => due.push((place, unkept)),
            None => left.push(unkept),
        }
    }
    *waiting = left;
    due.sort_by_key(|(place, _)| *place);
    let (mut turns, mut steps, mut at) = (Vec::new(), steps, 0);
    for (place, unkept) in due {
        let rest = steps.split_off(place - at);
        at = place;
        turns.push(Turn::Steps(std::mem::replace(&mut steps, rest)));
        turns.push(Turn::Give(unkept));
    }
    turns.push(Turn::Steps(steps));
    turns
}

/// The message that a step gives to the members.
fn given(step: &Step) -> Option<Identity> {
    match step {
        Step::Give(pushed, _) => Some(pushed.identity),
        Step::GiveRow(row) => row.identity(),
        Step::Skip(_) | Step::Gap(_) | Step::Read | Step::Refuse(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::listener::Pushed;
    use super::*;
    use crate::redis::wire::keys::ProcessId;

    fn identity(sender: u64, sequence: u64) -> Identity {
        Identity {
            sender: ProcessId(sender),
            sequence,
        }
    }

    fn unkept(sender: u64, sequence: u64) -> Unkept {
        Unkept {
            identity: identity(sender, sequence),
            exclude: Vec::new(),
            payload: Vec::new().into(),
        }
    }

    fn give(sender: u64, sequence: u64) -> Step {
        let pushed = Pushed {
            epoch: 5,
            identity: identity(sender, sequence),
            exclude: Vec::new(),
            payload: Vec::new().into(),
            stale: false,
        };
        Step::Give(pushed, None)
    }

    /// The order in which messages are given, as their senders and numbers.
    fn order(turns: Vec<Turn>) -> Vec<(u64, u64)> {
        let of = |identity: Identity| (identity.sender.0, identity.sequence);
        let turns = turns.into_iter().flat_map(|turn| match turn {
            Turn::Steps(steps) => steps.iter().filter_map(given).collect(),
            Turn::Give(unkept) => vec![unkept.identity],
        });
        turns.map(of).collect()
    }

    #[test]
    fn what_is_not_kept_overtakes_nothing_and_is_not_overtaken_by_its_sender() {
        let mut waiting = vec![unkept(1, 2), unkept(2, 7), unkept(1, 4)];
        let steps = || vec![give(2, 6), give(1, 1), give(1, 3), give(3, 1)];
        let turns = in_turn(&mut waiting, steps(), false);
        let expected = [(2, 6), (1, 1), (1, 2), (1, 3), (3, 1), (2, 7), (1, 4)];
        assert_eq!(order(turns), expected);
        assert_eq!(waiting, []);
    }

    #[test]
    fn what_is_not_kept_waits_as_long_as_something_is_read() {
        let mut waiting = vec![unkept(1, 2), unkept(1, 4)];
        let steps = vec![give(1, 1), give(1, 3), Step::Read];
        let turns = in_turn(&mut waiting, steps, true);
        assert_eq!(order(turns), [(1, 1), (1, 2), (1, 3)]);
        assert_eq!(waiting, [unkept(1, 4)]);
    }
}
