//! How many members groups have in this process, where that is told to the others.

use super::Presence;
use super::counts::here;
use crate::redis::driver::context::Context;
use crate::redis::driver::topics::Topics;
use crate::redis::host::Host;
use crate::redis::wire::keys::ProcessId;

impl Presence {
    /// The members of a group in this process may have changed.
    pub(in crate::redis::driver) fn recount<H: Host>(&mut self, cx: &Context<H>, group: &str) {
        if !cx.settings.counted.has(group) {
            return;
        }
        let members = here(cx, group);
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        if known.counts.note_own(members, self.versions + 1) {
            self.versions += 1;
            self.unwritten.insert(group.to_owned());
        }
    }

    /// The same; if it has any, a copy of the group is kept.
    pub(in crate::redis::driver) fn note_members<H: Host>(
        &mut self,
        cx: &mut Context<H>,
        topics: &mut Topics,
        group: &str,
    ) {
        if here(cx, group) > 0 {
            self.want(cx, topics, group);
        } else {
            self.recount(cx, group);
        }
    }

    /// The same, of all groups.
    pub(super) fn recount_all<H: Host>(&mut self, cx: &Context<H>) {
        if cx.settings.counted.is_empty() {
            return;
        }
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        for group in groups {
            self.recount(cx, &group);
        }
    }

    pub(super) fn count_heard(
        &mut self,
        group: &str,
        sender: ProcessId,
        (version, members): (u64, u64),
    ) {
        if let Some(known) = self.groups.get_mut(group) {
            known.counts.hear(sender, version, members);
        }
    }
}
