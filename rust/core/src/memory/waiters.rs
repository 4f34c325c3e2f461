//! The waiters of a mailbox, first in, first out.
//!
//! There is nearly always one. It is stored in the mailbox itself, and only a second one costs an allocation: that saves
//! eighty bytes for each idle channel, and an access to memory for each delivery.

use std::collections::VecDeque;

use crate::shrink::Shrink;

#[derive(Debug)]
pub(crate) struct Waiters<W> {
    /// `None` only if there is no waiter.
    first: Option<W>,
    others: VecDeque<W>,
}

impl<W> Default for Waiters<W> {
    fn default() -> Self {
        Self {
            first: None,
            others: VecDeque::new(),
        }
    }
}

impl<W> Waiters<W> {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn push(&mut self, waiter: W) {
        if self.first.is_none() {
            self.first = Some(waiter);
        } else {
            self.others.push_back(waiter);
        }
    }

    pub(crate) fn next(&mut self) -> Option<W> {
        let next = self.first.take();
        self.first = self.others.pop_front();
        if self.first.is_some() {
            self.others.shrink_if_sparse();
        }
        next
    }

    /// Removes the first waiter that the caller recognises.
    pub(crate) fn take(&mut self, mut is_it: impl FnMut(&W) -> bool) -> Option<W> {
        if self.first.as_ref().is_some_and(&mut is_it) {
            return self.next();
        }
        let place = self.others.iter().position(is_it)?;
        self.others.remove(place)
    }

    /// Removes every waiter that the caller recognises.
    pub(crate) fn take_all(&mut self, mut is_it: impl FnMut(&W) -> bool, taken: &mut Vec<W>) {
        for _ in 0..self.len() {
            if let Some(waiter) = self.next() {
                if is_it(&waiter) {
                    taken.push(waiter);
                } else {
                    self.push(waiter);
                }
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &W> {
        self.first.iter().chain(&self.others)
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = W> {
        self.first.into_iter().chain(self.others)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the obvious model: a vector.
        #[test]
        fn behaves_like_a_vector(steps in prop::collection::vec((0..4_u8, 0..5_u8), 0..40)) {
            let (mut waiters, mut model) = (Waiters::default(), Vec::new());
            for (action, waiter) in steps {
                match action {
                    0 => {
                        waiters.push(waiter);
                        model.push(waiter);
                    }
                    1 => {
                        let next = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(waiters.next(), next);
                    }
                    2 => {
                        let place = model.iter().position(|waiting| *waiting == waiter);
                        prop_assert_eq!(waiters.take(|waiting| *waiting == waiter), place.map(|place| model.remove(place)));
                    }
                    _ => {
                        let mut taken = Vec::new();
                        waiters.take_all(|waiting| *waiting == waiter, &mut taken);
                        let before = model.len();
                        model.retain(|waiting| *waiting != waiter);
                        prop_assert_eq!(taken, vec![waiter; before - model.len()]);
                    }
                }
                prop_assert_eq!(waiters.iter().copied().collect::<Vec<_>>(), model.clone());
                prop_assert_eq!((waiters.len(), waiters.is_empty()), (model.len(), model.is_empty()));
            }
            prop_assert_eq!(waiters.into_iter().collect::<Vec<_>>(), model);
        }
    }
}
