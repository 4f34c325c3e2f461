//! Readings and reports as frozen Python records.

use std::hash::{Hash, Hasher};

use headrace_core as core;
use headrace_core::history::Stamp;
use headrace_core::redis::Answer;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::position::text_of;

/// Defines a frozen record that mirrors a plain struct of the core, field by field.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident from $source:ty { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[pyclass(frozen, eq, hash, get_all, skip_from_py_object, module = "headrace")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) struct $name {
            $($(#[$field_doc])* $field: $type,)*
        }

        #[pymethods]
        impl $name {
            #[new]
            #[allow(clippy::too_many_arguments, reason = "one for each field, and they have names")]
            fn new($($field: $type),*) -> Self {
                Self { $($field),* }
            }

            fn __repr__(&self) -> String {
                let fields = [$(format!(concat!(stringify!($field), "={}"), self.$field)),*];
                format!(concat!(stringify!($name), "({})"), fields.join(", "))
            }
        }

        impl From<$source> for $name {
            fn from(source: $source) -> Self {
                Self { $($field: source.$field,)* }
            }
        }
    };
}

/// Where a message stands: a text that was given, or a position whose text is made when it is asked for.
#[derive(Clone, Debug)]
enum Place {
    Text(String),
    Stamp(Stamp),
}

impl Place {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Stamp(stamp) => stamp.token().as_str().to_owned(),
        }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

/// What a send to many did, in copies of messages.
#[pyclass(frozen, eq, hash, skip_from_py_object, module = "headrace")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SendReport {
    /// Copies that reached a mailbox or a waiting receiver, in all processes. None over Redis, where no process knows that of the
    /// others.
    #[pyo3(get)]
    delivered: Option<usize>,
    /// Those of them that are known here: in memory all. Over Redis those to channels of this process, as they were before the
    /// server had the message, and those that queues took.
    #[pyo3(get)]
    delivered_here: usize,
    /// Copies that full mailboxes refused. Over Redis those that full queues refused, and of `send_many` the full mailboxes of
    /// this process.
    #[pyo3(get)]
    dropped_full: usize,
    /// Copies that were lost in any other way.
    #[pyo3(get)]
    dropped_other: usize,
    /// Processes that it reached; of several messages the sum. Over Redis those that the server passed it on to, or None if the
    /// server was not waited for. In memory 1, or 0 where there was no channel to send to.
    #[pyo3(get)]
    processes: Option<usize>,
    position: Option<Place>,
}

#[pymethods]
impl SendReport {
    #[new]
    #[pyo3(signature = (delivered, dropped_full, dropped_other, *, delivered_here=None, processes=None, position=None))]
    fn new(
        delivered: Option<usize>,
        dropped_full: usize,
        dropped_other: usize,
        delivered_here: Option<usize>,
        processes: Option<usize>,
        position: Option<String>,
    ) -> Self {
        Self {
            delivered,
            delivered_here: delivered_here.or(delivered).unwrap_or_default(),
            dropped_full,
            dropped_other,
            processes,
            position: position.map(Place::Text),
        }
    }

    /// Where the message stands in the stream of its group: what `group_add` and its like take as `since`. None if the group has
    /// no history, and of several messages.
    #[getter]
    fn position<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        Some(match self.position.as_ref()? {
            Place::Text(text) => PyString::new(py, text),
            Place::Stamp(stamp) => text_of(py, *stamp),
        })
    }

    /// The report of both sends. What one of them does not know is not known of both.
    fn __add__(&self, other: &Self) -> Self {
        let both = |one: Option<usize>, other: Option<usize>| Some(one?.saturating_add(other?));
        Self {
            delivered: both(self.delivered, other.delivered),
            delivered_here: self.delivered_here.saturating_add(other.delivered_here),
            dropped_full: self.dropped_full.saturating_add(other.dropped_full),
            dropped_other: self.dropped_other.saturating_add(other.dropped_other),
            processes: both(self.processes, other.processes),
            position: None,
        }
    }

    // Python would find the other one as well: this one is here for the stub to name it.
    fn __radd__(&self, other: &Self) -> Self {
        other.__add__(self)
    }

    fn __repr__(&self) -> String {
        let shown =
            |count: Option<usize>| count.map_or("None".to_owned(), |count| count.to_string());
        let position = self.position.as_ref();
        let position = position.map_or_else(String::new, |place| {
            format!(", position='{}'", place.text().escape_debug())
        });
        format!(
            "SendReport(delivered={}, delivered_here={}, dropped_full={}, dropped_other={}, processes={}{position})",
            shown(self.delivered),
            self.delivered_here,
            self.dropped_full,
            self.dropped_other,
            shown(self.processes)
        )
    }
}

impl SendReport {
    /// Of what stays in this process, and reached it so often.
    pub(crate) fn of_memory(report: core::SendReport, processes: usize) -> Self {
        Self {
            delivered: Some(report.delivered),
            delivered_here: report.delivered,
            dropped_full: report.dropped_full,
            dropped_other: report.dropped_other,
            processes: Some(processes),
            position: None,
        }
    }

    /// The same of a message that was kept.
    pub(crate) fn with_position(self, stamp: Option<Stamp>) -> Self {
        let position = stamp.map(Place::Stamp);
        Self { position, ..self }
    }

    /// Of what goes through a server that was not waited for, to so many members in this process.
    pub(crate) fn of_unanswered(here: usize) -> Self {
        Self {
            delivered: None,
            delivered_here: here,
            dropped_full: 0,
            dropped_other: 0,
            processes: None,
            position: None,
        }
    }

    /// Of what a server has answered.
    pub(crate) fn of_answer(answer: &Answer, here: usize, full_here: usize) -> Self {
        let copies = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            delivered_here: here + copies(answer.queued),
            dropped_full: full_here + copies(answer.full),
            processes: Some(copies(answer.receivers)),
            ..Self::of_unanswered(0)
        }
        .with_position(answer.position)
    }
}

/// How many processes a message to a group in memory has reached.
pub(crate) fn reached(report: &core::SendReport) -> usize {
    usize::from(report.delivered + report.dropped_full > 0)
}

record! {
    /// A reading of a layer. `sent == delivered + depth + dropped_expired + dropped_replaced + dropped_other` at any moment.
    LayerStats from core::LayerStats {
        /// Channels that hold messages, waiting receivers or memberships.
        channels: usize,
        /// Groups with members.
        groups: usize,
        /// Memberships of channels in groups.
        memberships: usize,
        /// Receivers that wait.
        waiters: usize,
        /// Messages in mailboxes.
        depth: usize,
        /// The bytes of those messages; one that waits in several mailboxes counts in each.
        bytes: usize,
        /// Messages accepted since the layer was made; each member of a fan-out counts.
        sent: u64,
        /// Messages given to receivers for good.
        delivered: u64,
        /// Messages that came back from cancelled receivers, to be delivered again.
        returned: u64,
        /// Messages refused by full mailboxes.
        dropped_full: u64,
        /// Messages that nobody took in time.
        dropped_expired: u64,
        /// Messages given up for newer ones, by channels whose owner wants that.
        dropped_replaced: u64,
        /// How often a mailbox was full by its bytes, while another message would have fit. What was dropped then is in
        /// `dropped_full` or `dropped_replaced`.
        full_by_bytes: u64,
        /// Messages thrown away by `flush`, `close` or `close_channel`.
        dropped_other: u64,
        /// Messages that are kept in the histories of groups.
        history_messages: usize,
        /// What those count against `history_bytes`: their bytes and 64 each, and 256 for each group.
        history_bytes: usize,
        /// Groups whose history was dropped because all together were over `history_bytes`.
        history_evicted: u64,
        /// Channels that are present in groups, with those whose leave is not told yet.
        presence_entries: usize,
        /// Diffs of who is present that were told; each goes to all members of a group.
        presence_diffs: u64,
        /// Diffs that named nobody, because more than `max` were present.
        presence_hidden: u64,
        /// Changes of other processes that were dropped because a later one was known.
        presence_outdated: u64,
    }
}

record! {
    /// A reading of one channel; its counters begin anew when a channel that was gone comes back.
    ChannelStats from core::ChannelStats {
        /// Messages in its mailbox.
        depth: usize,
        /// How many fit.
        capacity: usize,
        /// The bytes of the messages in its mailbox.
        bytes: usize,
        /// How many bytes fit behind the first message.
        capacity_bytes: usize,
        /// Receivers that wait.
        waiters: usize,
        /// Groups that it is in.
        groups: usize,
        /// Messages given to its receivers.
        delivered: u64,
        /// Messages refused because it was full.
        dropped_full: u64,
        /// Messages that nobody took in time.
        dropped_expired: u64,
        /// Messages given up for newer ones, by channels whose owner wants that.
        dropped_replaced: u64,
        /// How often it was full by its bytes, while another message would have fit.
        full_by_bytes: u64,
    }
}

record! {
    /// A reading of one group; its counters begin anew when a group that was gone comes back.
    GroupStats from core::GroupStats {
        /// Its channels.
        members: usize,
        /// How often it was sent to.
        sends: u64,
        /// Copies that reached a mailbox or a waiting receiver.
        delivered: u64,
        /// Copies that full mailboxes refused.
        dropped_full: u64,
    }
}
