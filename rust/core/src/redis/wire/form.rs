//! The two forms in which messages travel.

/// In which form messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// In envelopes of our own.
    Headrace,
    /// As `channels_redis.pubsub.RedisPubSubChannelLayer` sends and expects them.
    ChannelsRedis,
}
