//! The two wire formats.

/// The wire format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The envelopes of headrace.
    Headrace,
    /// As `channels_redis.pubsub.RedisPubSubChannelLayer` sends and expects them.
    ChannelsRedis,
}
