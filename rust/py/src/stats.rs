//! Readings and reports as frozen Python records.

use headrace_core as core;
use pyo3::prelude::*;

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

record! {
    /// What a send to many did, in messages.
    SendReport from core::SendReport {
        /// Copies that reached a mailbox or a waiting receiver.
        delivered: usize,
        /// Copies that full mailboxes refused.
        dropped_full: usize,
        /// Copies that were lost in any other way; always 0 in one process.
        dropped_other: usize,
    }
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
