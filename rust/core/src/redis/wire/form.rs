//! The two wire formats, and what each of them has.

/// The wire format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The envelopes of headrace.
    Headrace,
    /// As `channels_redis.pubsub.RedisPubSubChannelLayer` sends and expects them.
    ChannelsRedis,
}

impl Wire {
    /// Whether a message travels in an envelope, with its sender, its number and its deadline. Otherwise it travels alone.
    pub const fn has_envelopes(self) -> bool {
        matches!(self, Self::Headrace)
    }

    /// Whether a plain channel is a queue on a server, of which each message goes to one receiver. Otherwise it is a pub/sub
    /// channel, and each process that listens gets every message.
    pub const fn has_queues(self) -> bool {
        matches!(self, Self::Headrace)
    }

    /// Whether the processes of a fleet talk to each other: who is there, what changes, and when to begin anew.
    pub const fn has_peers(self) -> bool {
        matches!(self, Self::Headrace)
    }
}
