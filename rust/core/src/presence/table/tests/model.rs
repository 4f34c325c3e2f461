//! Members who follow what they are told, against what is there.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, u8),
    Update(u8, u8),
    Remove(u8),
    Apply(u8, u8, u8),
    RemoveForeign(u8),
    Die(u8),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..6_u8, 0..4_u8, 0..3_u8).prop_map(|(channel, key, meta)| Step::Set(channel, key, meta)),
        2 => (0..6_u8, 0..3_u8).prop_map(|(channel, meta)| Step::Update(channel, meta)),
        3 => (0..6_u8).prop_map(Step::Remove),
        3 => (0..6_u8, 0..4_u8, 0..3_u8).prop_map(|(channel, key, meta)| Step::Apply(channel, key, meta)),
        2 => (0..6_u8).prop_map(Step::RemoveForeign),
        1 => (1..3_u8).prop_map(Step::Die),
        3 => (0..12_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// A member who begins with the list at any time and follows all diffs has the list; and when nothing is to come, that is
    /// what is there.
    #[test]
    fn a_member_who_follows_has_the_list(steps in steps(), linger in 0..4_u64, begin in 0..40_usize) {
        let mut table = table(linger);
        // What is there: its key and its meta, by channel.
        let mut model: BTreeMap<String, (String, u8)> = BTreeMap::new();
        let mut member: Option<List> = None;
        let (mut now, mut version) = (0, 0);
        for (number, step) in steps.into_iter().chain([Step::Wait(30)]).enumerate() {
            if number == begin {
                member = Some(list(&table));
            }
            version += 1;
            // Processes 1 and 2 have the even and the odd channels.
            let process = |channel: u8| u32::from(channel % 2) + 1;
            match step {
                Step::Set(channel, key, meta) => {
                    let (channel, key) = (format!("c{channel}"), format!("k{key}"));
                    table.set(&channel.as_str().into(), &key, &[meta], version, at(now));
                    model.insert(channel, (key, meta));
                }
                Step::Update(channel, meta) => {
                    let channel = format!("c{channel}");
                    let updated = table.update(&channel, &[meta], version, at(now));
                    prop_assert_eq!(updated, model.contains_key(&channel));
                    model.entry(channel).and_modify(|entry| entry.1 = meta);
                }
                Step::Remove(channel) => {
                    let channel = format!("c{channel}");
                    prop_assert_eq!(table.remove(&channel, at(now)), model.remove(&channel).is_some());
                }
                Step::Apply(channel, key, meta) => {
                    let (name, key) = (format!("f{channel}"), format!("k{key}"));
                    table.apply(&foreign(process(channel), &name, &key, meta, version), at(now));
                    model.insert(name, (key, meta));
                }
                Step::RemoveForeign(channel) => {
                    let name = format!("f{channel}");
                    table.apply_removal(owner(process(channel)), &name.as_str().into(), version, at(now));
                    model.remove(&name);
                }
                Step::Die(number) => {
                    table.remove_owner(owner(number.into()), at(now));
                    model.retain(|name, _| {
                        let channel: u8 = name[1..].parse().expect("a number");
                        !name.starts_with('f') || process(channel) != u32::from(number)
                    });
                }
                Step::Wait(seconds) => {
                    for _ in 0..seconds {
                        now += 1;
                        let before = table.version();
                        if let Some(diff) = tell(&mut table, now) {
                            prop_assert_eq!(diff.previous, before);
                            if let Some(member) = &mut member {
                                follow(member, &diff);
                            }
                        }
                        let told = list(&table);
                        prop_assert!(table.due().is_none_or(|due| due > at(now)));
                        if let Some(member) = &member {
                            prop_assert_eq!(member, &told);
                        }
                        if !table.is_hidden() {
                            let channels = told.values().map(Vec::len).sum();
                            prop_assert_eq!(table.counts(), Counts { keys: told.len(), channels });
                        }
                    }
                }
            }
        }
        let keys: BTreeSet<&String> = model.values().map(|(key, _)| key).collect();
        prop_assert_eq!(table.counts(), Counts { keys: keys.len(), channels: model.len() });
        prop_assert_eq!(table.len(), model.len());
        let mut expected = List::new();
        for (key, meta) in model.values() {
            expected.entry(key.clone()).or_default().push(*meta);
        }
        for metas in expected.values_mut() {
            metas.sort_unstable();
        }
        if table.is_hidden() {
            expected.clear();
        }
        prop_assert_eq!(list(&table), expected);
    }
}
