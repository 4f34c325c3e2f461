//! The entries of other processes, case by case.

use super::*;

/// `phoenix_pubsub` #74: in whatever order changes come, all processes have the same in the end.
#[test]
fn the_last_version_of_a_process_wins() {
    let mut table = table(0);
    assert_eq!(
        table.apply(&foreign(1, "a", "ann", 2, 5), at(0)),
        Arrival::Applied
    );
    assert_eq!(
        table.apply(&foreign(1, "a", "ann", 1, 4), at(0)),
        Arrival::Outdated
    );
    assert_eq!(
        table.apply_removal(owner(1), &"a".into(), 4, at(0)),
        Arrival::Outdated
    );
    assert_eq!(table.get("a"), Some(("ann", &[2][..], 5)));
    assert_eq!(
        table.apply_removal(owner(1), &"a".into(), 6, at(0)),
        Arrival::Applied
    );
    assert_eq!(table.get("a"), None);
}

#[test]
fn nobody_else_writes_the_entry_of_a_channel() {
    let mut table = table(0);
    set(&mut table, "a", "ann", 1, 0);
    assert_eq!(
        table.apply(&foreign(1, "a", "eve", 2, 99), at(0)),
        Arrival::Outdated
    );
    assert_eq!(
        table.apply_removal(owner(1), &"a".into(), 99, at(0)),
        Arrival::Outdated
    );
    assert_eq!(table.get("a"), Some(("ann", &[1][..], 0)));
    table.apply(&foreign(1, "b", "bob", 2, 1), at(0));
    assert_eq!(
        table.apply(&foreign(2, "b", "eve", 2, 99), at(0)),
        Arrival::Outdated
    );
    assert!(!table.update("b", &[3], 99, at(0)) && !table.remove("b", at(0)));
}

#[test]
fn the_entries_of_a_process_that_died_leave_together_and_do_not_linger() {
    let mut table = table(LINGER);
    table.apply(&foreign(1, "a", "ann", 1, 1), at(0));
    table.apply(&foreign(1, "b", "bob", 1, 2), at(0));
    table.apply(&foreign(2, "c", "bob", 1, 1), at(0));
    tell(&mut table, 1);
    table.remove_owner(owner(1), at(2));
    let mut told = changes(tell(&mut table, 3));
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("ann".into(), vec![], vec![1], Some(Turn::Offline)),
        ("bob".into(), vec![], vec![1], None),
    ];
    assert_eq!(told, expected);
    // One that was only away for too long writes its entries anew.
    assert_eq!(
        table.apply(&foreign(1, "a", "ann", 1, 1), at(4)),
        Arrival::Applied
    );
    assert_eq!(
        changes(tell(&mut table, 5)),
        [("ann".into(), vec![1], vec![], Some(Turn::Online))]
    );
    table.retain_owners(|known| known == owner(1), at(6));
    assert_eq!(
        changes(tell(&mut table, 7)),
        [("bob".into(), vec![], vec![1], Some(Turn::Offline))]
    );
}

#[test]
fn a_key_that_moves_to_another_process_is_no_event() {
    let mut table = table(LINGER);
    set(&mut table, "a", "ann", 1, 0);
    tell(&mut table, 1);
    table.remove("a", at(2));
    table.apply(&foreign(1, "b", "ann", 1, 1), at(3));
    assert_eq!(tell(&mut table, 99), None);
    assert_eq!(list(&table), of(&[("ann", &[1])]));
}

/// `phoenix_pubsub` #148: a state that was read replaces nothing that is newer.
#[test]
fn what_came_while_the_entries_were_read_is_newer() {
    let mut table = table(0);
    set(&mut table, "own", "own", 9, 0);
    for (channel, key) in [("gone", "g"), ("kept", "k")] {
        table.apply(&foreign(1, channel, key, 1, 1), at(0));
    }
    table.begin_load();
    table.apply(&foreign(1, "changed", "c", 2, 5), at(0));
    table.apply(&foreign(1, "removed", "r", 2, 5), at(0));
    table.apply_removal(owner(1), &"removed".into(), 6, at(0));
    assert!(table.is_loading());
    let read = [
        foreign(1, "changed", "c", 1, 3),
        foreign(1, "removed", "r", 1, 4),
        foreign(1, "kept", "k", 1, 1),
        foreign(2, "other", "o", 1, 1),
        foreign(2, "own", "own", 1, 99),
    ];
    assert_eq!(table.finish_load(read, at(0)), 3);
    assert!(!table.is_loading());
    tell(&mut table, 1);
    assert_eq!(
        list(&table),
        of(&[("c", &[2]), ("k", &[1]), ("o", &[1]), ("own", &[9])])
    );
}

#[test]
fn a_table_without_entries_stays_while_they_are_read() {
    let mut table = table(0);
    table.begin_load();
    assert!(!table.is_empty());
    table.abandon_load();
    assert!(table.is_empty());
}
