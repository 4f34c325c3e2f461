mod model;

use std::time::Duration;

use super::group::{AGAIN, RENEWAL};
use super::*;
use crate::presence::{PresenceRule, PresenceRules};
use crate::redis::driver::testing::{ME, OTHER, World, context, settings};
use crate::redis::fault::FaultKind;
use crate::redis::settings::Topology;
use crate::redis::wire::presence;

const GROUP: &str = "room";
const HASH: &str = "t:v:{t:g:room}";
/// Nil.
const META: &[u8] = b"\xc0";

struct Part {
    cx: Context<World>,
    topics: Topics,
    presence: Presence,
}

impl Part {
    /// A process that has a member in the group, and has read that nobody is there.
    fn reading() -> Self {
        let second = Duration::from_secs(1);
        let rule = PresenceRule::new("presence.diff", second, Duration::ZERO, 10);
        let mut settings = settings(Topology::Shards);
        settings.presence = PresenceRules::default().with_rule("*", rule);
        let mut part = Self {
            cx: context(settings),
            topics: Topics::default(),
            presence: Presence::default(),
        };
        part.presence.want(&mut part.cx, &mut part.topics, GROUP);
        part.presence.distrust(&mut part.cx, GROUP);
        part
    }

    fn loaded() -> Self {
        let mut part = Self::reading();
        part.read(&[]);
        part.count(&[]);
        part
    }

    /// What is asked of the servers after some events: the words, and what follows.
    fn asked(&mut self) -> Vec<(String, PresenceThen)> {
        self.presence.act(&mut self.cx);
        let requests = std::mem::take(&mut self.cx.requests).into_iter();
        let words = |request: Request| {
            let words = request.to_strings();
            let names = words.iter().map(|words| {
                let mut words = words.split(' ');
                let name = words.next().unwrap_or_default();
                format!("{name} {}", words.next().unwrap_or_default())
            });
            let names: Vec<String> = names.collect();
            let then = match request.then {
                Then::Presence(then) => then,
                _ => PresenceThen::Counted,
            };
            (names.join(", "), then)
        };
        requests.map(words).collect()
    }

    /// The same, in words alone.
    fn words(&mut self) -> Vec<String> {
        self.asked().into_iter().map(|(words, _)| words).collect()
    }

    fn answered(&mut self, then: PresenceThen, replies: Vec<Reply>) {
        self.presence.answered(&mut self.cx, then, replies);
    }

    /// Has the reading that is waited for answered.
    fn read(&mut self, rows: &[(ProcessId, &str, u64)]) {
        let reading = self.presence.groups[GROUP].reading.expect("it is read");
        self.cx.requests.clear();
        let value = |owner, channel: &str, version| {
            let value = presence::value((HASH, channel), (owner, version), ("ada", META), None);
            value.expect("it needs no randomness").to_vec()
        };
        let pairs = rows.iter().flat_map(|(owner, token, version)| {
            let channel = format!("specific.{owner}!{token}");
            let value = value(*owner, &channel, *version);
            [channel.into_bytes(), value].map(Reply::BulkString)
        });
        let then = PresenceThen::Read {
            group: GROUP.to_owned(),
            reading,
        };
        self.answered(then, vec![Reply::Array(pairs.collect())]);
    }

    /// Has this process count, and read what the others count. Gives what it asks for then.
    fn count(&mut self, others: &[(ProcessId, u64)]) -> Vec<String> {
        self.count_again(0, others)
    }

    fn count_again(&mut self, is_new: i64, others: &[(ProcessId, u64)]) -> Vec<String> {
        self.cx.now += Duration::from_secs(3);
        let asked = self.words();
        assert!(
            asked
                .iter()
                .any(|words| words == "HSET t:a, EXPIRE t:a, HGETALL t:a")
        );
        let text = |text: String| Reply::BulkString(text.into_bytes());
        let counts = others
            .iter()
            .flat_map(|(process, count)| [process.to_string(), count.to_string()].map(text));
        let counts = Reply::Array(counts.collect());
        let replies = vec![Reply::Int(is_new), Reply::Int(1), counts];
        self.answered(PresenceThen::Counted, replies);
        self.words()
    }

    fn add(&self, token: &str) {
        let channel = format!("specific.{ME}!{token}");
        let added = self.cx.local.presence_add(GROUP, &channel, "bob", META);
        assert_eq!(added, Ok(true));
    }

    /// Another process says that a channel of its own is there, or has left.
    fn hear(&mut self, token: &str, version: u64, is_here: bool) {
        let channel = format!("specific.{OTHER}!{token}");
        let change = if is_here {
            Change::Here {
                channel,
                version,
                key: "ada".to_owned(),
                meta: META.into(),
            }
        } else {
            Change::Gone { channel, version }
        };
        self.presence
            .heard(&mut self.cx, GROUP, OTHER, vec![change]);
    }

    /// The tokens of the channels of other processes that are present.
    fn others(&self) -> Vec<String> {
        let others = tables(&self.cx, |tables, _| tables.others_of(GROUP));
        let token = |entry: &ForeignEntry| entry.channel.split('!').nth(1).map(str::to_owned);
        let mut tokens: Vec<String> = others.iter().filter_map(token).collect();
        tokens.sort_unstable();
        tokens
    }
}

#[test]
fn what_changes_is_written_and_announced_together_and_what_follows_behind_it() {
    let mut part = Part::loaded();
    part.add("a");
    part.add("b");
    let mut asked = part.asked();
    let (words, written) = asked.pop().expect("it is written");
    assert_eq!(words, format!("HSET {HASH}, EXPIRE {HASH}, PUBLISH {HASH}"));
    assert!(asked.is_empty());
    part.add("c");
    part.cx.now += Duration::from_secs(1);
    assert!(part.words().is_empty(), "the answer is waited for");
    part.answered(written, vec![Reply::Int(2), Reply::Int(1), Reply::Int(1)]);
    assert_eq!(part.words().len(), 1);
    assert!(part.cx.shared.present.lock().contains(GROUP));
}

#[test]
fn what_was_not_written_is_written_again_and_the_others_read_it() {
    let mut part = Part::loaded();
    part.add("a");
    let (_, written) = part.asked().pop().expect("it is written");
    let lost = Fault::new(FaultKind::Lost, "lost");
    assert_eq!(part.presence.failed(&mut part.cx, written, &lost), None);
    assert!(part.words().is_empty(), "not at once");
    let channel = format!("specific.{ME}!a");
    assert_eq!(part.cx.local.presence_discard(GROUP, &channel), Ok(true));
    part.cx.now += AGAIN;
    let known = part.presence.groups.get_mut(GROUP);
    let known = known.expect("it is known");
    assert!(known.is_unannounced);
    let (words, written) = part.asked().pop().expect("it is written again");
    assert_eq!(words, format!("HDEL {HASH}, PUBLISH {HASH}"));
    let denied = crate::redis::driver::testing::refused("NOPERM no");
    part.answered(written, vec![Reply::Int(1), denied]);
    part.cx.now += AGAIN;
    assert_eq!(part.words().len(), 1, "a refusal of any of it counts");
}

#[test]
fn a_removal_is_written_though_nobody_here_is_a_member_any_more() {
    let mut part = Part::loaded();
    part.add("a");
    let (_, written) = part.asked().pop().expect("it is written");
    let channel = format!("specific.{ME}!a");
    part.cx
        .local
        .group_discard(GROUP, &channel)
        .expect("a name");
    part.presence.forget(&mut part.cx, GROUP);
    assert!(!part.cx.shared.present.lock().contains(GROUP));
    part.cx.now += Duration::from_secs(1);
    part.answered(written, vec![Reply::Int(1), Reply::Int(1), Reply::Int(1)]);
    let (words, written) = part.asked().pop().expect("the removal is written");
    assert_eq!(words, format!("HDEL {HASH}, PUBLISH {HASH}"));
    part.answered(written, vec![Reply::Int(1), Reply::Int(1)]);
    assert!(part.presence.groups.is_empty());
}

#[test]
fn what_others_say_is_in_the_copy_and_an_older_version_is_not() {
    let mut part = Part::loaded();
    part.hear("a", 5, true);
    part.hear("b", 6, true);
    part.hear("a", 7, false);
    assert_eq!(part.others(), ["b"]);
    part.hear("b", 4, false);
    assert_eq!(part.others(), ["b"]);
    let change = Change::Gone {
        channel: format!("specific.{OTHER}!b"),
        version: 9,
    };
    let forger = ProcessId(7);
    part.presence
        .heard(&mut part.cx, GROUP, forger, vec![change]);
    assert_eq!(
        part.others(),
        ["b"],
        "a process speaks for its own channels"
    );
    assert_eq!(part.cx.shared.stats().malformed, 1);
}

#[test]
fn what_is_announced_during_a_reading_is_newer() {
    let mut part = Part::reading();
    part.hear("left", 5, false);
    part.hear("new", 6, true);
    part.presence.distrust(&mut part.cx, GROUP);
    part.read(&[(OTHER, "left", 1), (OTHER, "there", 2)]);
    assert_eq!(part.others(), ["new", "there"]);
    assert!(
        part.presence.groups[GROUP].reading.is_some(),
        "it is read again"
    );
}

#[test]
fn who_is_missing_in_two_readings_has_left() {
    let mut part = Part::reading();
    part.read(&[(OTHER, "a", 1), (OTHER, "b", 2)]);
    assert_eq!(part.others(), ["a", "b"]);
    // The server was flushed, and the other process has not written all of it yet.
    part.presence.distrust(&mut part.cx, GROUP);
    part.read(&[(OTHER, "b", 3)]);
    assert_eq!(part.others(), ["a", "b"]);
    assert!(part.presence.groups[GROUP].read_at < part.cx.now + TRUSTED_AT_LEAST);
    part.presence.distrust(&mut part.cx, GROUP);
    part.read(&[(OTHER, "b", 3)]);
    assert_eq!(part.others(), ["b"]);
}

const TRUSTED_AT_LEAST: Duration = Duration::from_secs(60);

#[test]
fn what_the_hash_has_of_this_process_is_made_what_it_should_be() {
    let mut part = Part::loaded();
    part.add("a");
    part.words();
    part.presence
        .groups
        .get_mut(GROUP)
        .expect("it is known")
        .writing = None;
    part.presence.distrust(&mut part.cx, GROUP);
    part.read(&[(ME, "gone", 1)]);
    part.cx.now += Duration::from_secs(1);
    let words = part.words();
    let whole = format!("HSET {HASH}, EXPIRE {HASH}, PUBLISH {HASH}");
    assert_eq!(words, [format!("HDEL {HASH}"), whole.clone()]);
    // Somebody has put back what was there before, under another key.
    part.presence
        .groups
        .get_mut(GROUP)
        .expect("it is known")
        .writing = None;
    part.presence.distrust(&mut part.cx, GROUP);
    part.read(&[(ME, "a", 1)]);
    part.cx.now += Duration::from_secs(1);
    assert!(part.words().contains(&whole));
}

#[test]
fn the_entries_of_a_process_that_does_not_count_leave_and_are_removed() {
    let mut part = Part::loaded();
    part.hear("a", 1, true);
    for count in 1..4 {
        assert!(part.count(&[(OTHER, count)]).is_empty());
    }
    assert!(part.count(&[(OTHER, 3)]).is_empty());
    assert!(part.count(&[(OTHER, 3)]).is_empty());
    assert_eq!(part.others(), ["a"]);
    let words = part.count(&[(OTHER, 3)]);
    assert_eq!(words, [format!("HDEL {HASH}"), "HDEL t:a".to_owned()]);
    assert!(part.others().is_empty());
    // It is read while it is not removed yet.
    part.presence.distrust(&mut part.cx, GROUP);
    part.read(&[(OTHER, "a", 1)]);
    assert!(part.others().is_empty());
    part.answered(
        PresenceThen::Removed { process: OTHER },
        vec![Reply::Int(1)],
    );
    let words = part.words();
    assert_eq!(words, [format!("HDEL {HASH}"), "HDEL t:a".to_owned()]);
    // It was only stopped: it comes back with what it has.
    part.hear("a", 2, true);
    assert_eq!(part.others(), ["a"]);
}

#[test]
fn the_lowest_process_with_entries_removes_those_of_the_dead() {
    let (low, dead) = (ProcessId(1), ProcessId(2));
    let mut part = Part::reading();
    part.read(&[(low, "a", 1), (dead, "b", 1)]);
    part.count(&[]);
    for count in 1..3 {
        assert!(part.count(&[(low, count)]).is_empty());
    }
    assert!(part.others() == ["a"], "it leaves here all the same");
}

#[test]
fn after_a_failure_the_others_are_waited_for_anew() {
    let mut part = Part::loaded();
    part.hear("a", 1, true);
    for _ in 0..5 {
        assert!(part.count(&[]).is_empty());
        assert!(part.count(&[]).is_empty());
        let fault = Fault::new(FaultKind::Unreachable, "away");
        let failed = part
            .presence
            .failed(&mut part.cx, PresenceThen::Counted, &fault);
        assert_eq!(failed, None);
    }
    assert_eq!(part.others(), ["a"]);
}

#[test]
fn a_process_that_was_taken_for_dead_writes_its_entries_again() {
    let mut part = Part::loaded();
    part.add("a");
    let (_, written) = part.asked().pop().expect("it is written");
    part.answered(written, vec![Reply::Int(1), Reply::Int(1), Reply::Int(1)]);
    assert!(part.count(&[]).is_empty());
    let words = part.count_again(1, &[]);
    assert_eq!(
        words,
        [format!("HSET {HASH}, EXPIRE {HASH}, PUBLISH {HASH}")]
    );
}

#[test]
fn a_hash_that_is_gone_is_written_again() {
    let mut part = Part::loaded();
    part.add("a");
    let (_, written) = part.asked().pop().expect("it is written");
    part.answered(written, vec![Reply::Int(1), Reply::Int(1), Reply::Int(1)]);
    part.cx.now += RENEWAL;
    part.count(&[]);
    part.presence.look_after(&mut part.cx);
    let (words, renewed) = part.asked().pop().expect("it is looked after");
    assert_eq!(words, format!("EXPIRE {HASH}"));
    part.answered(renewed, vec![Reply::Int(0)]);
    assert_eq!(part.words().len(), 1);
}

#[test]
fn a_caller_waits_for_the_reading_and_is_told_why_it_failed() {
    let mut part = Part::reading();
    let call = part.cx.call(1, Some(7));
    part.presence.look(&mut part.cx, GROUP, Look::List(call));
    assert!(part.cx.calls.take_answers().is_empty());
    part.read(&[(OTHER, "a", 1)]);
    let answers = part.cx.calls.take_answers();
    let listing = answers[0].1.listing.as_ref().expect("it has a presence");
    assert_eq!(listing.counts.channels, 1);
    assert_eq!(listing.list, b"\x81\xa3ada\x91\xc0");
    // One that keeps no copy asks the server.
    let call = part.cx.call(1, Some(8));
    part.presence.look(&mut part.cx, "hall", Look::List(call));
    let asked = part.asked().into_iter();
    let mut looked = asked.filter(|(words, _)| words == "HGETALL t:v:{t:g:hall}");
    let (_, looked) = looked.next_back().expect("it is asked");
    let lost = Fault::new(FaultKind::Lost, "lost");
    assert_eq!(
        part.presence.failed(&mut part.cx, looked, &lost),
        Some(call)
    );
}

#[test]
fn a_flush_removes_the_hash_and_one_by_another_the_own_entries() {
    let mut part = Part::loaded();
    part.add("a");
    part.words();
    part.presence.flushed(&mut part.cx, None);
    assert_eq!(part.words(), [format!("HDEL {HASH}")]);
    let call = part.cx.call(1, None);
    part.presence.flushed(&mut part.cx, Some(call));
    assert_eq!(part.words(), [format!("DEL {HASH}")]);
    assert!(part.others().is_empty());
}

#[test]
fn at_its_end_a_process_takes_its_entries_with_it() {
    let mut part = Part::loaded();
    part.add("a");
    part.words();
    part.presence.leave_all(&mut part.cx);
    let words = part.words();
    assert_eq!(
        words,
        [
            format!("HDEL {HASH}, PUBLISH {HASH}"),
            "HDEL t:a".to_owned()
        ]
    );
    part.cx.now += Duration::from_secs(60);
    assert!(part.words().is_empty(), "it does not count any more");
}
