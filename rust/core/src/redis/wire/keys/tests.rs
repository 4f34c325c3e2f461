use proptest::prelude::*;

use super::*;

const PROCESS: ProcessId = ProcessId(0x0123_4567_89ab_cdef);

fn keys() -> Keys {
    Keys::new("asgi").expect("a plain prefix")
}

/// The same names, as `channels_redis` has them.
fn plain() -> Keys {
    keys().in_form(Wire::ChannelsRedis)
}

#[test]
fn names_are_those_of_the_protocol() {
    let keys = keys();
    for (name, expected) in [
        (keys.group("room.1"), "asgi:g:room.1"),
        (keys.history("room.1"), "asgi:h:{asgi:g:room.1}"),
        (keys.presence("room.1"), "asgi:v:{asgi:g:room.1}"),
        (keys.alive(), "asgi:a"),
        (keys.process(PROCESS), "asgi:p:0123456789abcdef"),
        (keys.queue("work"), "asgi:q:{work}"),
        (keys.wake("work"), "asgi:b:{work}"),
        (
            keys.taken("work", PROCESS),
            "asgi:t:{work}:0123456789abcdef",
        ),
        (keys.members(), "asgi:m"),
        (keys.control(), "asgi:c"),
        (keys.index(472_222), "asgi:i:472222"),
        (plain().group("room.1"), "asgi__group__room.1"),
        (member_field("room.1", "work"), "room.1\0work"),
    ] {
        assert_eq!(name, expected);
    }
}

#[test]
fn foreign_names_are_no_topics() {
    for name in [
        "",
        "asgi",
        "asgi:",
        "asgi:x:room",
        "asgi:g",
        "asgi:p:0123",
        "asgi:p:0123456789ABCDEF",
        "asgi:q:{work}",
        "asgi:b:work",
        "asgi:v:asgi:g:room",
        "asgi:v:{room}",
        "asgi:v:{other:g:room}",
        "asgi2:g:room",
        "other:c",
        "asgi__group__room",
    ] {
        assert_eq!(keys().topic(name), None, "{name}");
    }
    for name in ["asgi:g:room", "asgispecific.0f"] {
        assert_eq!(plain().topic(name), Some(Topic::Channel(name)));
        assert_eq!(plain().place(name), name);
    }
    assert_eq!(plain().own(PROCESS), [""; 0]);
}

#[test]
fn a_specific_channel_names_its_process() {
    for name in [
        "specific.0123456789abcdef!token",
        "a.b.c.0123456789abcdef!token",
        ".0123456789abcdef!",
    ] {
        assert_eq!(process_of(name), Some(PROCESS), "{name}");
    }
    for name in [
        "work",
        "specific.0123456789abcdef",
        "0123456789abcdef!token",
        "specific.0123456789abcde!token",
        "specific.00123456789abcdef!token",
        "specific.0123456789ABCDEF!token",
        "specific.+123456789abcdef!token",
        "specific!a.0123456789abcdef!token",
        "specific.0123456789abcdef.x!token",
        "",
        "!",
    ] {
        assert_eq!(process_of(name), None, "{name}");
    }
}

/// The check value of CRC-16/XMODEM and the examples of the cluster specification; the slots are redis-py's.
#[test]
fn slots_are_those_of_a_cluster() {
    assert_eq!(crc16(b"123456789"), 0x31c3);
    for (key, slot) in [
        ("123456789", 12_739),
        ("foo", 12_182),
        ("bar", 5_061),
        ("hello", 866),
        ("", 0),
        ("user1000", 3_443),
        ("{user1000}.following", 3_443),
        ("{user1000}.followers", 3_443),
        ("foo{}{bar}", 8_363),
        ("foo{{bar}}zap", 4_015),
        ("{bar", 4_015),
        ("foo{bar}{zap}", 5_061),
        ("foo{bar", 15_278),
        ("}{a}", 15_495),
    ] {
        assert_eq!(hash_slot(key.as_bytes()), slot, "{key}");
    }
}

#[test]
fn a_stray_brace_in_the_prefix_is_refused() {
    for prefix in ["{", "a{b", "}{", "{}", "{}{a}"] {
        let refused = Keys::new(prefix).map_err(|error| error.to_string());
        assert!(refused.is_err_and(|text| text.contains(prefix)), "{prefix}");
    }
    for prefix in ["", "asgi", "}", "{app}", "a{b}c{"] {
        assert!(Keys::new(prefix).is_ok(), "{prefix}");
    }
}

proptest! {
    #[test]
    fn a_topic_is_what_its_name_was_made_from(
        prefix in "[a-z:_{}]{0,8}",
        name in "[a-zA-Z0-9._-]{1,100}",
        process in any::<u64>(),
    ) {
        let Ok(keys) = Keys::new(prefix) else { return Ok(()) };
        let process = ProcessId(process);
        let own = [keys.process(process), keys.control(), keys.members()];
        prop_assert_eq!(keys.own(process), own.clone());
        let names = [keys.group(&name), keys.wake(&name), keys.presence(&name)].into_iter().chain(own);
        let own = [Topic::Process(process), Topic::Control, Topic::Members];
        let topics = [Topic::Group(&name), Topic::Wake(&name), Topic::Presence(&name)].into_iter().chain(own);
        for (made, topic) in names.zip(topics) {
            prop_assert_eq!(keys.topic(&made), Some(topic));
            let group = matches!(topic, Topic::Group(_)).then_some(name.as_str());
            prop_assert_eq!(keys.group_of(&made), group);
        }
        let plain = keys.clone().in_form(Wire::ChannelsRedis);
        let foreign = plain.group(&name);
        prop_assert_eq!(plain.group_of(&foreign), Some(name.as_str()));
        prop_assert_eq!(keys.topic(&foreign), None);
    }

    #[test]
    fn a_queue_is_in_one_slot(
        prefix in "[a-z:{}]{0,8}",
        name in "[a-zA-Z0-9._!-]{1,20}",
        process in any::<u64>(),
    ) {
        let Ok(keys) = Keys::new(prefix) else { return Ok(()) };
        let slot = hash_slot(keys.queue(&name).as_bytes());
        prop_assert_eq!(hash_slot(keys.wake(&name).as_bytes()), slot);
        prop_assert_eq!(hash_slot(keys.taken(&name, ProcessId(process)).as_bytes()), slot);
    }

    #[test]
    fn a_group_and_who_is_present_in_it_are_in_one_slot(
        prefix in "[a-z:{}]{0,8}",
        name in "[a-zA-Z0-9._-]{1,20}",
    ) {
        let Ok(keys) = Keys::new(prefix) else { return Ok(()) };
        if keys.can_tag_groups() {
            let slot = hash_slot(keys.group(&name).as_bytes());
            prop_assert_eq!(hash_slot(keys.presence(&name).as_bytes()), slot);
            prop_assert_eq!(hash_slot(keys.history(&name).as_bytes()), slot);
        }
    }

    #[test]
    fn process_ids_and_memberships_come_back(
        process in any::<u64>(),
        any in "\\PC{0,40}",
        group in "[a-z.]{1,9}",
        channel in "[a-z.!]{1,9}",
    ) {
        let process = ProcessId(process);
        prop_assert_eq!(ProcessId::parse(&process.to_string()), Some(process));
        prop_assert_eq!(process_of(&format!("specific.{process}!token")), Some(process));
        let field = member_field(&group, &channel);
        prop_assert_eq!(membership_of(&field), Some((&*group, &*channel)));
        // Whatever comes in, no panic.
        let _ = (process_of(&any), ProcessId::parse(&any), hash_slot(any.as_bytes()));
    }
}
