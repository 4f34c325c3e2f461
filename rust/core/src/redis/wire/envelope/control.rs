//! Control messages, from engine to engine, and how they are written.

use super::error::{Malformed, Unsendable};
use super::reader::{Reader, put_name};

const JOIN: u8 = 1;
const LEAVE: u8 = 2;
const DONE: u8 = 3;
const MEMBERS_CHANGED: u8 = 4;
const FLUSH: u8 = 5;
const MEMBERSHIP: u8 = 6;
const READ_MEMBERS: u8 = 7;

/// A message from one engine to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Add a channel of the process that reads this to a group. Answered by `Done`.
    Join {
        /// Chosen by the sender; the answer carries it.
        request: u64,
        /// The group.
        group: String,
        /// The channel.
        channel: String,
        /// The membership ends after so many milliseconds; 0: when it is discarded.
        expiry_ms: u64,
    },
    /// Take a channel of the process that reads this out of a group. Answered by `Done`.
    Leave {
        /// Chosen by the sender; the answer carries it.
        request: u64,
        /// The group.
        group: String,
        /// The channel.
        channel: String,
    },
    /// A request was carried out.
    Done {
        /// Which one.
        request: u64,
    },
    /// Plain channels joined or left groups, or may have: read the members hash again.
    MembersChanged,
    /// Everything is removed: forget messages and memberships.
    Flush,
    /// A plain channel joined a group or left it.
    Membership {
        /// The group.
        group: String,
        /// The channel.
        channel: String,
        /// When the membership ends, in milliseconds since the Unix epoch by the server's clock; 0: it has ended.
        end: u64,
    },
    /// A membership was changed by several processes at once, so that it is not known which change was the last: read the
    /// members hash again.
    ReadMembers,
}

impl Control {
    /// Whether it belongs on the pub/sub channel that announces changes of memberships, and nowhere else.
    pub fn is_announcement(&self) -> bool {
        matches!(self, Self::Membership { .. } | Self::ReadMembers)
    }

    pub(super) fn put(&self, bytes: &mut Vec<u8>) -> Result<(), Unsendable> {
        match self {
            Self::Join {
                request,
                group,
                channel,
                expiry_ms,
            } => {
                bytes.push(JOIN);
                bytes.extend(request.to_be_bytes());
                put_name(bytes, group)?;
                put_name(bytes, channel)?;
                bytes.extend(expiry_ms.to_be_bytes());
            }
            Self::Leave {
                request,
                group,
                channel,
            } => {
                bytes.push(LEAVE);
                bytes.extend(request.to_be_bytes());
                put_name(bytes, group)?;
                put_name(bytes, channel)?;
            }
            Self::Done { request } => {
                bytes.push(DONE);
                bytes.extend(request.to_be_bytes());
            }
            Self::MembersChanged => bytes.push(MEMBERS_CHANGED),
            Self::Flush => bytes.push(FLUSH),
            Self::Membership {
                group,
                channel,
                end,
            } => {
                bytes.push(MEMBERSHIP);
                put_name(bytes, group)?;
                put_name(bytes, channel)?;
                bytes.extend(end.to_be_bytes());
            }
            Self::ReadMembers => bytes.push(READ_MEMBERS),
        }
        Ok(())
    }

    /// Bytes behind the message stay in the reader.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.byte()? {
            JOIN => Self::Join {
                request: reader.number()?,
                group: reader.group()?,
                channel: reader.channel()?,
                expiry_ms: reader.number()?,
            },
            LEAVE => Self::Leave {
                request: reader.number()?,
                group: reader.group()?,
                channel: reader.channel()?,
            },
            DONE => Self::Done {
                request: reader.number()?,
            },
            MEMBERS_CHANGED => Self::MembersChanged,
            FLUSH => Self::Flush,
            MEMBERSHIP => Self::Membership {
                group: reader.group()?,
                channel: reader.channel()?,
                end: reader.number()?,
            },
            READ_MEMBERS => Self::ReadMembers,
            operation => return Err(Malformed::Operation(operation)),
        })
    }
}
