//! What callers ask for.

use std::num::NonZeroU32;

use super::counts;
use super::group::Group;
use super::rows::{foreign, request, rows};
use super::tables::tables;
use crate::clock::Moment;
use crate::presence::{Owner, Presences};
use crate::redis::driver::context::Context;
use crate::redis::driver::presence_then::{Look, PresenceThen};
use crate::redis::host::Host;
use crate::redis::link::Reply;

/// Reads the hash for a caller in a process that keeps no copy.
pub(super) fn look<H: Host>(cx: &mut Context<H>, group: &str, look: Look) {
    let then = PresenceThen::Looked {
        group: group.to_owned(),
        look,
    };
    let request = request(cx, group, then);
    cx.submit(request);
}

/// The hash was read for a caller, who gets its list, or the sum of its counts.
pub(super) fn looked<H: Host>(cx: &mut Context<H>, group: &str, look: Look, replies: Vec<Reply>) {
    let (rows, counts) = rows(cx, group, replies);
    let call = match look {
        Look::List(call) => call,
        Look::Count(call) => {
            let all = counts.into_values().map(|(_, members)| members).sum();
            cx.calls
                .complete_part(call, |answer| answer.members = Some(all));
            return;
        }
    };
    let mut copy = Presences::new(cx.settings.presence.clone());
    let now = Moment::default();
    for row in rows {
        let owner = Owner::process(NonZeroU32::MIN);
        copy.apply(group, &foreign(row, owner), now);
    }
    copy.hasten(group, now);
    copy.tell(now);
    let listing = copy.list(group);
    cx.calls
        .complete_part(call, |answer| answer.listing = listing);
}

/// Gives a caller what is known of a group of which a copy is kept.
pub(super) fn answer<H: Host>(cx: &mut Context<H>, group: &str, known: &Group, look: Look) {
    let call = match look {
        Look::List(call) => call,
        Look::Count(call) => return counts::answer(cx, group, &known.counts, call),
    };
    let listing = tables(cx, |tables, _| tables.list(group));
    cx.calls
        .complete_part(call, |answer| answer.listing = listing);
}
