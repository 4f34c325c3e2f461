//! What becomes of a message for a channel whose owner does not keep up.

/// What a full mailbox does with one message more. An alarm, if the owner left one, is given out either way.
#[derive(Clone, Copy, Debug)]
pub enum Overflow<M> {
    /// Refuse the new message.
    DropNew,
    /// Let the oldest message give way.
    DropOld,
    /// Let those give way that the new message makes out of date, or the oldest if there are none. The function returns
    /// whether the first message replaces the second. It is called under the engine's lock, and must run no foreign code.
    Coalesce(fn(&M, &M) -> bool),
}
