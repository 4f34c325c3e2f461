//! The beats of this process, and what becomes of the processes that have none.

use std::collections::HashMap;

use tokio::time::Instant;

use super::Presence;
use super::beats::BEATS;
use super::commands::{LASTS, removal, remove_beat};
use super::group::AGAIN;
use super::tables::tables;
use crate::presence::ForeignEntry;
use crate::redis::driver::context::Context;
use crate::redis::driver::presence_then::PresenceThen;
use crate::redis::driver::reply::{integer, text, words};
use crate::redis::driver::request::{Request, Then};
use crate::redis::host::Host;
use crate::redis::link::{Command, Reply};
use crate::redis::wire::keys::{ProcessId, process_of};

impl Presence {
    /// Counts, and reads what the others count, if it is time.
    pub(super) fn count_due<H: Host>(&mut self, cx: &mut Context<H>) {
        let counting = &mut self.counting;
        let is_due = counting.next.is_none_or(|next| next <= cx.now);
        if !is_due || counting.is_asked || counting.is_over {
            return;
        }
        counting.count += 1;
        counting.is_asked = true;
        counting.next = Some(cx.now + cx.settings.presence_limit / BEATS);
        let key = cx.keys.alive();
        let count = Command::new("HSET").text(&key).text(cx.me.to_string());
        let commands = vec![
            count.number(counting.count),
            Command::expire(&key, LASTS),
            Command::new("HGETALL").text(&key),
        ];
        let then = Then::Presence(PresenceThen::Counted);
        cx.submit(Request::new("", &key, commands, cx.until(), then).safe());
    }

    /// The server has answered that.
    pub(super) fn counted<H: Host>(&mut self, cx: &mut Context<H>, mut replies: Vec<Reply>) {
        self.counting.is_asked = false;
        let is_new = integer(replies.first()) > 0;
        if is_new && self.counting.count > 1 {
            // Others took this process for dead, or the server was flushed.
            self.write_all();
        }
        let mut counts = HashMap::new();
        let mut words = words(replies.pop().into_iter().collect()).into_iter();
        while let (Some(process), Some(count)) = (words.next(), words.next()) {
            let process = text(process).and_then(|text| ProcessId::parse(&text));
            let count = text(count).and_then(|text| text.parse().ok());
            counts.extend(process.zip(count).filter(|(process, _)| *process != cx.me));
        }
        let (dead, is_back) = self.living.read(&counts);
        for process in dead {
            self.bury(cx, process);
        }
        if is_back {
            // What it has written may have been ignored, because it was dead.
            let groups: Vec<String> = self.groups.keys().cloned().collect();
            for group in groups {
                self.distrust(cx, &group);
            }
        }
    }

    /// Nobody knows who has counted: the server may have been away for all.
    pub(super) fn not_counted(&mut self, now: Instant) {
        self.counting.is_asked = false;
        self.living.begin_anew();
        let soon = now + AGAIN;
        self.counting.next = self.counting.next.map(|next| next.max(soon));
    }

    /// This process will not count any more.
    pub(super) fn stop_counting<H: Host>(&mut self, cx: &mut Context<H>) {
        if self.counting.count > 0 {
            self.counting.is_over = true;
            remove_beat(cx, cx.me);
        }
    }

    /// A process has died: its entries leave here, and are removed from the hashes.
    ///
    /// A process that was taken for dead sees that its count is gone, and writes its entries again. So that is removed behind them.
    fn bury<H: Host>(&mut self, cx: &mut Context<H>, dead: ProcessId) {
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        for group in groups {
            let others = tables(cx, |tables, _| tables.others_of(&group));
            let is_of_dead = |entry: &&ForeignEntry| process_of(&entry.channel) == Some(dead);
            let name = dead.to_string();
            let counts = self.groups.get_mut(&group).map(|known| &mut known.counts);
            let count = counts.is_some_and(|counts| counts.forget(dead));
            let fields: Vec<&str> = others
                .iter()
                .filter(is_of_dead)
                .map(|entry| &*entry.channel)
                .chain(count.then_some(name.as_str()))
                .collect();
            if fields.is_empty() || !self.removes_for_others(cx, &group, &others) {
                continue;
            }
            let key = cx.keys.presence(&group);
            let command = removal(&key, fields.into_iter());
            let then = Then::Presence(PresenceThen::Removed { process: dead });
            let request = Request::new(&group, &key, vec![command], cx.until(), then);
            cx.submit(request.safe());
        }
        let owner = self.owners.of(dead);
        tables(cx, |tables, now| tables.remove_owner(owner, now));
        if self.living.is_lowest(cx.me) {
            remove_beat(cx, dead);
        }
    }

    /// Whether this process removes what the dead have left of a group: the lowest does that lives and has entries there; if none has,
    /// each that has members.
    fn removes_for_others<H: Host>(
        &mut self,
        cx: &Context<H>,
        group: &str,
        others: &[ForeignEntry],
    ) -> bool {
        let processes = others.iter().filter_map(|entry| process_of(&entry.channel));
        let lowest = processes.filter(|process| self.living.met(*process)).min();
        let has_own = !tables(cx, |tables, _| tables.own_channels(group)).is_empty();
        lowest.is_none_or(|lowest| has_own && cx.me < lowest)
    }
}
