//! A cursor over messages that are to be given once more.

use std::sync::Arc;

/// The messages that somebody missed, oldest first.
///
/// All cursors of a moment share one list, which is dropped with the last of them: ten thousand that resume cost ten
/// thousand cursors and no copies.
#[derive(Clone, Debug)]
pub struct Replay<M> {
    messages: Arc<Vec<M>>,
    next: usize,
    end: usize,
}

impl<M: Clone> Replay<M> {
    /// The last `count` of these messages.
    pub(super) fn of_last(messages: Arc<Vec<M>>, count: usize) -> Self {
        let end = messages.len();
        Self {
            messages,
            next: end.saturating_sub(count),
            end,
        }
    }

    /// Leaves out all but the first `most`.
    #[must_use]
    pub fn limited(mut self, most: usize) -> Self {
        self.end = self.end.min(self.next.saturating_add(most));
        self
    }

    /// The message that it gives next.
    pub fn peek(&self) -> Option<&M> {
        self.messages[..self.end].get(self.next)
    }

    /// How many messages it has still to give.
    pub fn len(&self) -> usize {
        self.end - self.next
    }

    /// Whether it has given all.
    pub fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// Ends it: puts what it has still to give in a list, and what nobody else refers to any more in another. Neither is dropped
    /// here.
    pub fn finish(self, rest: &mut Vec<M>, unused: &mut Vec<M>) {
        rest.extend(
            self.messages
                .get(self.next..self.end)
                .into_iter()
                .flatten()
                .cloned(),
        );
        unused.extend(Arc::into_inner(self.messages).into_iter().flatten());
    }
}

impl<M: Clone> Iterator for Replay<M> {
    type Item = M;

    fn next(&mut self) -> Option<M> {
        let message = self.messages[..self.end].get(self.next)?.clone();
        self.next += 1;
        Some(message)
    }
}
