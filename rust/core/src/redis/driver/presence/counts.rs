//! How many members a group has in all processes, where that is counted.

use std::collections::{HashMap, HashSet};

use crate::redis::driver::calls::CallId;
use crate::redis::driver::context::Context;
use crate::redis::host::Host;
use crate::redis::link::Command;
use crate::redis::wire::envelope::Unsendable;
use crate::redis::wire::keys::ProcessId;
use crate::redis::wire::presence::{self, Change};

/// The members of a group in each process that has any.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Of the other processes, each with its version.
    others: HashMap<ProcessId, (u64, u64)>,
    /// Those that were heard since the reading that is waited for was asked for.
    heard: HashSet<ProcessId>,
    /// Those that the last reading did not have, though they live.
    absent: HashSet<ProcessId>,
    /// Of this process, as it was written last.
    own: u64,
    own_version: u64,
    /// That is to be written.
    pub(super) has_changed: bool,
}

impl Counts {
    /// Another process says how many it has.
    pub(super) fn hear(&mut self, process: ProcessId, version: u64, members: u64) {
        let known = self.others.get(&process).map_or(0, |(version, _)| *version);
        if version > known {
            self.others.insert(process, (version, members));
            self.heard.insert(process);
        }
    }

    /// The others are being read.
    pub(super) fn begin(&mut self) {
        self.heard.clear();
    }

    /// They were read. What was heard meanwhile is newer; whoever is missing twice has none.
    pub(super) fn read(
        &mut self,
        me: ProcessId,
        mut read: HashMap<ProcessId, (u64, u64)>,
        mut lives: impl FnMut(ProcessId) -> bool,
    ) {
        let own = read.remove(&me).map_or(0, |(_, members)| members);
        self.has_changed |= own != self.own;
        read.retain(|process, _| lives(*process));
        let mut absent = HashSet::new();
        for (process, known) in &self.others {
            let is_heard = self.heard.contains(process);
            match read.get(process) {
                Some(found) if !is_heard || found.0 >= known.0 => {}
                Some(_) => drop(read.insert(*process, *known)),
                None if is_heard => drop(read.insert(*process, *known)),
                None if lives(*process) && !self.absent.contains(process) => {
                    absent.insert(*process);
                    read.insert(*process, *known);
                }
                None => {}
            }
        }
        (self.others, self.absent) = (read, absent);
    }

    /// Whether somebody lives that the last reading did not have.
    pub(super) fn has_absent(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Forgets a process; gives whether it had any.
    pub(super) fn forget(&mut self, process: ProcessId) -> bool {
        self.others.remove(&process).is_some()
    }

    pub(super) fn clear(&mut self) {
        *self = Self {
            own_version: self.own_version,
            ..Self::default()
        };
    }

    /// Whether this process has any, as it was written last.
    pub(super) fn has_own(&self) -> bool {
        self.own > 0
    }

    /// Has that of this process be written once more.
    pub(super) fn write_again(&mut self) {
        self.has_changed |= self.own > 0;
    }

    /// This process will have none.
    pub(super) fn end(&mut self) {
        if self.own > 0 {
            self.own = 0;
            self.own_version += 1;
            self.has_changed = true;
        }
    }

    /// Notes how many this process has; gives whether that has changed, by the version of the change.
    pub(super) fn note_own(&mut self, members: u64, version: u64) -> bool {
        let has_changed = members != self.own;
        if has_changed {
            self.own = members;
            self.own_version = version;
            self.has_changed = true;
        }
        has_changed
    }

    /// All members: those of this process are counted now.
    fn all(&self, here: u64) -> u64 {
        let others = self.others.values().map(|(_, members)| members);
        others.fold(here, |all, members| all.saturating_add(*members))
    }

    /// What writes that of this process, if it has changed, and what announces it.
    pub(super) fn write<H: Host>(
        &mut self,
        cx: &Context<H>,
        group: &str,
    ) -> Result<Option<(Command, Change)>, Unsendable> {
        if !std::mem::take(&mut self.has_changed) {
            return Ok(None);
        }
        let key = cx.keys.presence(group);
        let (version, members) = (self.own_version, self.own);
        let command = if members == 0 {
            Command::new("HDEL").text(key).text(cx.me.to_string())
        } else {
            let value = presence::count(&key, (cx.me, version), members, cx.seal())?;
            let command = Command::new("HSET").text(key);
            command.text(cx.me.to_string()).bytes(value)
        };
        Ok(Some((command, Change::Count { version, members })))
    }
}

/// The members in this process.
pub(super) fn here<H: Host>(cx: &Context<H>, group: &str) -> u64 {
    cx.local.group_count(group).unwrap_or(0) as u64
}

/// Answers how many members a group has of which a copy is kept.
pub(super) fn answer<H: Host>(cx: &mut Context<H>, group: &str, counts: &Counts, call: CallId) {
    let all = counts.all(here(cx, group));
    cx.calls
        .complete_part(call, |answer| answer.members = Some(all));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ProcessId = ProcessId(0);
    const A: ProcessId = ProcessId(1);
    const B: ProcessId = ProcessId(2);

    fn read(counts: &mut Counts, of: &[(ProcessId, (u64, u64))]) {
        let of = of.iter().copied().collect();
        counts.read(ME, of, |process| process != B);
    }

    #[test]
    fn the_members_of_all_processes_that_live_are_counted() {
        let mut counts = Counts::default();
        read(&mut counts, &[(A, (1, 3)), (B, (1, 5))]);
        assert_eq!(counts.all(2), 5);
        counts.hear(A, 3, 10);
        counts.hear(A, 2, 7);
        assert_eq!(counts.all(2), 12);
        assert!(counts.forget(A) && !counts.forget(A));
        assert_eq!(counts.all(2), 2);
    }

    #[test]
    fn what_is_heard_during_a_reading_is_newer() {
        let mut counts = Counts::default();
        counts.begin();
        counts.hear(A, 5, 1);
        read(&mut counts, &[(A, (4, 9))]);
        assert_eq!(counts.all(0), 1);
        counts.begin();
        read(&mut counts, &[(A, (6, 9))]);
        assert_eq!(counts.all(0), 9);
    }

    #[test]
    fn who_is_missing_in_two_readings_has_none() {
        let mut counts = Counts::default();
        read(&mut counts, &[(A, (1, 3))]);
        read(&mut counts, &[]);
        assert!(counts.has_absent());
        assert_eq!(counts.all(0), 3);
        read(&mut counts, &[]);
        assert!(!counts.has_absent());
        assert_eq!(counts.all(0), 0);
    }

    #[test]
    fn what_the_server_has_of_this_process_is_written_again_if_it_is_wrong() {
        let mut counts = Counts::default();
        read(&mut counts, &[]);
        assert!(!counts.has_changed);
        read(&mut counts, &[(ME, (1, 3))]);
        assert!(counts.has_changed);
    }
}
