//! A message to be sent.

use crate::redis::wire::envelope::Draft;

/// A message to be sent. Its envelope has room for what is known only when it is written.
#[derive(Debug)]
pub(crate) enum Dispatch {
    /// To a channel.
    Channel { channel: String, entry: Draft },
    /// To a group.
    Group {
        group: String,
        exclude: Vec<String>,
        entry: Draft,
    },
}

impl Dispatch {
    /// How many bytes travel.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Channel { entry, .. } | Self::Group { entry, .. } => entry.len(),
        }
    }
}
