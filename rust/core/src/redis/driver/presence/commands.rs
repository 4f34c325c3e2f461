//! The commands that several parts of this one ask for.

use crate::redis::driver::context::Context;
use crate::redis::driver::request::{Request, Then};
use crate::redis::host::Host;
use crate::redis::link::Command;
use crate::redis::wire::keys::ProcessId;

/// How long a hash outlives the last process that wrote to it, in milliseconds.
pub(super) const LASTS: u64 = 60 * 60 * 1000;

/// The command that removes fields.
pub(super) fn removal<'a>(key: &str, fields: impl Iterator<Item = &'a str>) -> Command {
    fields.fold(Command::new("HDEL").text(key), Command::text)
}

/// Removes fields of the hash of a group, if there are any to be removed.
pub(super) fn remove_fields<'a, H: Host>(
    cx: &mut Context<H>,
    group: &str,
    fields: impl Iterator<Item = &'a str>,
) {
    let mut fields = fields.peekable();
    if fields.peek().is_some() {
        let key = cx.keys.presence(group);
        let command = removal(&key, fields);
        let request = Request::new(group, &key, vec![command], cx.until(), Then::Ignored);
        cx.submit(request.safe());
    }
}

/// Removes a process from those that count.
pub(super) fn remove_beat<H: Host>(cx: &mut Context<H>, process: ProcessId) {
    let key = cx.keys.alive();
    let command = removal(&key, std::iter::once(process.to_string().as_str()));
    cx.submit(Request::new("", &key, vec![command], cx.until(), Then::Ignored).safe());
}
