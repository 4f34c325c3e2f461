use super::super::super::settings::Settings;
use super::super::testing::{ME, OTHER, World, context, settings};
use super::announcements::MOST;
use super::*;
use crate::redis::fault::FaultKind;
use crate::redis::link::Reply;
use crate::redis::settings::Topology;

struct Process {
    cx: Context<World>,
    queues: Queues,
    members: Members,
}

impl Process {
    fn new() -> Self {
        let settings: Settings = settings(Topology::Shards);
        Self {
            cx: context(settings),
            queues: Queues::default(),
            members: Members::default(),
        }
    }

    /// One that has read that "work" is in the group "room".
    fn loaded() -> Self {
        let mut process = Self::new();
        process.members.load(&mut process.cx);
        process.read(&["work"]);
        assert_eq!(process.asked(), ["HGETALL"]);
        process
    }

    /// The requests that were made since, each by its first command and key.
    fn requests(&mut self) -> Vec<String> {
        let requests = std::mem::take(&mut self.cx.requests);
        let first = |request: Request| request.to_strings().into_iter().next();
        let commands = requests.into_iter().filter_map(first);
        let two = |words: String| words.split(' ').take(2).collect::<Vec<_>>().join(" ");
        commands.map(two).collect()
    }

    fn asked(&mut self) -> Vec<String> {
        let requests = self.requests().into_iter();
        let first = |words: String| words.split(' ').next().unwrap_or_default().to_owned();
        requests.map(first).collect()
    }

    fn send(&mut self) {
        let call = self.cx.call(0, Some(1));
        let room = ("room".to_owned(), Vec::new());
        let (cx, queues) = (&mut self.cx, &mut self.queues);
        self.members
            .send(cx, queues, room, vec![0; 40].into(), call);
    }

    /// The hash says that these channels are in the group "room".
    fn read(&mut self, channels: &[&str]) {
        let end = self.cx.shared.now() + 60_000;
        let memberships: Vec<_> = channels.iter().map(|channel| (*channel, end)).collect();
        self.read_ends(&memberships);
    }

    /// The hash says that these channels are in the group "room" until then.
    fn read_ends(&mut self, memberships: &[(&str, u64)]) {
        let word = |text: &str| Reply::BulkString(text.as_bytes().to_vec());
        let pair = |(channel, end): &(&str, u64)| {
            let field = member_field("room", channel);
            [word(&field), word(&end.to_string())]
        };
        let replies = vec![Reply::Array(memberships.iter().flat_map(pair).collect())];
        let (cx, queues) = (&mut self.cx, &mut self.queues);
        self.members.read(cx, queues, replies);
    }

    /// A process announces something.
    fn hear(&mut self, sender: ProcessId, number: u64, control: Control) {
        let cx = &mut self.cx;
        self.members.heard(cx, (sender, number), control);
    }

    /// Another process announces that a channel has joined the group "room", or left it.
    fn hear_of(&mut self, channel: &str, joins: bool) {
        let end = if joins { u64::MAX } else { 0 };
        self.hear(OTHER, 1, membership(channel, end));
    }

    fn in_room(&self) -> Vec<String> {
        let plain = self.cx.shared.plain.lock();
        plain.of_group("room", self.cx.shared.now())
    }

    /// Asks that "work" leaves the group "room".
    fn leave(&mut self) -> (MembershipChange, CallId) {
        let names = ("room".to_owned(), "work".to_owned());
        self.members.change(&mut self.cx, names, None, Some(1));
        let request = self.cx.requests.pop().expect("it is asked for");
        let Then::Membership { change, call } = request.then else {
            panic!("{request:?}")
        };
        (change, call)
    }

    fn changed(&mut self, (change, call): (MembershipChange, CallId)) {
        self.members.changed(&mut self.cx, change, b"", call);
    }
}

fn membership(channel: &str, end: u64) -> Control {
    Control::Membership {
        group: "room".to_owned(),
        channel: channel.to_owned(),
        end,
    }
}

#[test]
fn a_message_to_a_group_waits_until_its_members_have_been_read_once() {
    let mut process = Process::new();
    process.send();
    process.send();
    assert_eq!(process.asked(), ["HGETALL"]);
    process.read(&["work"]);
    assert_eq!(process.asked(), ["SADD", "RPUSH", "RPUSH"]);
    process.send();
    assert_eq!(process.asked(), ["RPUSH"]);
}

#[test]
fn members_that_change_somehow_while_they_are_read_are_read_again_once() {
    let mut process = Process::new();
    for _ in 0..3 {
        process.members.load(&mut process.cx);
    }
    assert_eq!(process.asked(), ["HGETALL"]);
    process.read(&["work"]);
    assert_eq!(process.asked(), ["HGETALL"]);
    process.read(&["work"]);
    assert_eq!(process.asked().len(), 0);
}

#[test]
fn what_waits_for_members_that_cannot_be_read_fails() {
    let mut process = Process::new();
    process.send();
    let lost = Fault::new(FaultKind::Lost, "lost");
    process.members.not_loaded(&mut process.cx, &lost);
    let answers = process.cx.calls.take_answers();
    assert!(matches!(answers.as_slice(), [(1, answer)] if answer.fault.is_some()));
    assert!(process.members.is_idle());
    process.asked();
    process.cx.now += RETRY;
    process.members.look_after(&mut process.cx);
    assert_eq!(process.asked(), ["HGETALL"]);
}

#[test]
fn what_is_announced_is_known_without_a_reading() {
    let mut process = Process::loaded();
    process.hear_of("mail", true);
    assert_eq!(process.in_room(), ["mail", "work"]);
    process.hear_of("work", false);
    process.hear(OTHER, 2, membership("late", 1));
    assert_eq!(process.in_room(), ["mail"]);
    assert_eq!(process.requests(), [""; 0]);
}

#[test]
fn what_is_announced_during_a_reading_is_not_forgotten_with_it() {
    let mut process = Process::loaded();
    process.members.load(&mut process.cx);
    process.hear_of("mail", true);
    process.hear_of("work", false);
    assert_eq!(process.in_room(), ["mail"]);
    process.read(&["work"]);
    assert_eq!(process.in_room(), ["mail"]);
    assert_eq!(process.asked(), ["HGETALL"]);
    process.members.load(&mut process.cx);
    process.read(&["work"]);
    assert_eq!(process.in_room(), ["work"], "that was before this reading");
}

#[test]
fn more_announcements_than_are_kept_during_a_reading_lead_to_another() {
    let mut process = Process::loaded();
    process.members.load(&mut process.cx);
    for number in 0..=KEPT {
        process.hear_of(&number.to_string(), true);
    }
    assert_eq!(process.asked(), ["HGETALL"]);
    process.read(&[]);
    assert_eq!(process.asked(), ["HGETALL"]);
    assert!(process.members.since.is_empty());
}

#[test]
fn an_announcement_with_names_that_are_none_is_counted_and_not_used() {
    let mut process = Process::loaded();
    process.hear_of(&format!("specific.{OTHER}!a"), true);
    assert_eq!(process.in_room(), ["work"]);
    assert_eq!(process.cx.shared.stats().malformed, 1);
}

#[test]
fn a_change_is_announced_and_repeated_for_earlier_releases() {
    let mut process = Process::loaded();
    let change = process.leave();
    process.changed(change);
    assert_eq!(process.in_room(), [""; 0]);
    assert_eq!(process.requests(), ["PUBLISH t:m", "PUBLISH t:c"]);
    process.hear(ME, 1, membership("work", 0));
    process.members.changed_somehow(&mut process.cx, ME);
    assert_eq!(process.requests(), [""; 0]);
}

#[test]
fn a_change_that_others_may_have_made_before_has_all_read_once() {
    let mut process = Process::loaded();
    let change = process.leave();
    process.hear_of("work", true);
    process.changed(change);
    process.asked();
    process.hear(ME, 1, membership("work", 0));
    assert_eq!(process.requests(), ["PUBLISH t:m"]);
    // It comes to all, this process included.
    process.hear(ME, 2, Control::ReadMembers);
    process.hear(OTHER, 2, Control::ReadMembers);
    assert_eq!(process.asked(), ["HGETALL"]);
    process.read(&["work"]);
    assert_eq!(process.in_room(), ["work"]);
    assert_eq!(process.asked(), ["HGETALL"], "for the second");
}

#[test]
fn a_change_of_another_membership_does_not_matter() {
    let mut process = Process::loaded();
    let change = process.leave();
    process.hear_of("mail", true);
    process.changed(change);
    process.asked();
    process.hear(ME, 1, membership("work", 0));
    assert_eq!(process.requests(), [""; 0]);
}

#[test]
fn what_may_have_changed_unannounced_is_told_when_that_is_possible() {
    let mut process = Process::loaded();
    let (change, _) = process.leave();
    let lost = Fault::new(FaultKind::Lost, "lost");
    process.members.failed(&change, &lost);
    process.members.look_after(&mut process.cx);
    assert_eq!(process.requests(), ["PUBLISH t:m", "PUBLISH t:c"]);
    process.members.look_after(&mut process.cx);
    assert_eq!(process.requests(), [""; 0], "it was told");
    process.hear(ME, 1, Control::MembersChanged);
    assert_eq!(process.asked(), ["HGETALL"]);
}

#[test]
fn what_was_announced_and_may_not_come_back_is_told_again() {
    let mut process = Process::loaded();
    let change = process.leave();
    process.changed(change);
    process.asked();
    let topics = [process.cx.keys.control(), process.cx.keys.members()];
    process.members.subscribed(&mut process.cx);
    assert_eq!(process.asked(), [""; 0], "not to both topics");
    process.cx.shared.topics.lock().extend(topics);
    process.members.subscribed(&mut process.cx);
    assert_eq!(process.asked(), ["HGETALL"]);
    process.members.look_after(&mut process.cx);
    assert_eq!(process.asked(), ["PUBLISH", "PUBLISH"]);
}

#[test]
fn members_are_read_when_a_process_of_an_earlier_release_changes_them() {
    let mut process = Process::loaded();
    process.members.changed_somehow(&mut process.cx, OTHER);
    assert_eq!(process.asked(), ["HGETALL"]);
    process.read(&["work"]);
    process.members.look_after(&mut process.cx);
    assert_eq!(process.asked(), [""; 0]);
    process.cx.now += OVERTAKEN;
    process.members.look_after(&mut process.cx);
    assert_eq!(process.asked(), ["HGETALL"], "it may have overtaken others");
    process.read(&["work"]);
    process.hear_of("mail", true);
    process.members.changed_somehow(&mut process.cx, OTHER);
    assert_eq!(process.asked(), [""; 0], "it is none");
}

#[test]
fn a_reading_that_is_due_sooner_is_not_put_off_by_one_that_comes_between() {
    let mut process = Process::loaded();
    process.members.load(&mut process.cx);
    process.members.changed_somehow(&mut process.cx, OTHER);
    process.read(&["work"]);
    process.read(&["work"]);
    process.asked();
    process.cx.now += OVERTAKEN;
    process.members.look_after(&mut process.cx);
    assert_eq!(process.asked(), ["HGETALL"]);
}

#[test]
fn a_flush_forgets_no_membership_before_it_removes_them() {
    let mut process = Process::loaded();
    flush(&mut process.cx, &mut process.queues, 1);
    assert_eq!(process.in_room(), ["work"]);
}

#[test]
fn a_change_that_the_server_refuses_is_not_announced() {
    let mut process = Process::loaded();
    let (change, _) = process.leave();
    let refused = Fault::new(FaultKind::Refused, "OOM");
    process.members.failed(&change, &refused);
    process.members.look_after(&mut process.cx);
    assert_eq!(process.asked(), [""; 0]);
}

#[test]
fn a_membership_that_ended_long_ago_is_removed_from_the_hash() {
    let mut process = Process::loaded();
    let now = process.cx.shared.now();
    let minutes_ago = |minutes: u64| now - minutes * 60_000;
    let ended = [("old", minutes_ago(61)), ("just", minutes_ago(59))];
    process.read_ends(&[ended[0], ended[1], ("work", now + 60_000)]);
    let removals = process.cx.requests.iter().map(Request::to_strings);
    let removals: Vec<_> = removals.flatten().collect();
    assert_eq!(removals, ["HDEL t:m room\0old"]);
    assert_eq!(process.in_room(), ["work"]);
}

#[test]
fn a_membership_that_was_renewed_while_it_was_read_is_not_removed() {
    let mut process = Process::loaded();
    process.members.load(&mut process.cx);
    process.hear_of("mail", true);
    process.asked();
    process.read_ends(&[("mail", 1)]);
    assert_eq!(process.requests(), [""; 0]);
    assert_eq!(process.in_room(), ["mail"]);
}

#[test]
fn announcements_that_do_not_come_back_are_given_up_when_there_are_many() {
    let mut process = Process::loaded();
    for _ in 0..=MOST {
        let change = process.leave();
        process.changed(change);
        process.cx.requests.retain(|request| !request.publishes());
    }
    assert_eq!(process.asked(), ["HGETALL"]);
    process.read(&[]);
    process.members.look_after(&mut process.cx);
    assert_eq!(process.requests(), ["PUBLISH t:m", "PUBLISH t:c"]);
    // All others read them then, and this process too.
    process.hear(ME, 1, membership("work", 0));
    assert_eq!(process.requests(), [""; 0], "it was given up");
}

#[test]
fn members_are_read_now_and_then() {
    let mut process = Process::loaded();
    process.cx.now += TRUSTED;
    process.members.look_after(&mut process.cx);
    process.members.look_after(&mut process.cx);
    assert_eq!(process.asked(), ["HGETALL"]);
}

#[test]
fn senders_are_forgotten_when_there_are_too_many() {
    let mut process = Process::loaded();
    for sender in 0..=SENDERS as u64 {
        process.hear(ProcessId(sender), 1, membership("work", u64::MAX));
    }
    assert_eq!(process.members.announcers.len(), 1);
    process.members.announcers.clear();
    process.members.shrink_if_sparse();
    assert_eq!(process.members.announcers.capacity(), 0);
}
