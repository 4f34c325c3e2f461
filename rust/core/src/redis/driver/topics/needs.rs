//! Which topics this process needs, and how long it keeps the others.

use std::time::Duration;

use crate::redis::driver::context::Context;
use crate::redis::host::Host;
use crate::redis::wire::keys::Topic;

/// Whether this process needs a topic: also if somebody waits to go on in its group.
pub(super) fn is_used<H: Host>(
    cx: &Context<H>,
    topic: &str,
    is_awaited: impl Fn(&str) -> bool,
) -> bool {
    let has_members = |group: &str| cx.local.group_count(group).unwrap_or(0) > 0;
    match cx.keys.topic(topic) {
        Some(Topic::Group(group)) => has_members(group) || is_awaited(group),
        Some(Topic::Presence(group)) => has_members(group),
        Some(Topic::Wake(channel)) => cx.local.waiters(channel) > 0,
        Some(Topic::Channel(channel)) => cx.local.is_held(channel),
        Some(Topic::Process(_) | Topic::Control | Topic::Members) => true,
        None => false,
    }
}

/// How long a topic is kept that this process does not need.
pub(super) fn linger<H: Host>(cx: &Context<H>, topic: &str) -> Duration {
    let settings = &cx.settings;
    match cx.keys.topic(topic) {
        // Between two receives of a channel its handler runs. A message that comes then is kept as long as in a mailbox.
        Some(Topic::Channel(_)) => settings.subscription_linger.max(settings.expiry),
        _ => settings.subscription_linger,
    }
}
