//! When a table gives back the memory that it needed at a peak.
//!
//! Tables grow by doubling. One that shrinks to twice what is used, when less than a quarter of it is, neither grows nor
//! shrinks again before as many entries have come or gone as it holds then: a removal costs constant time on average, as an
//! insertion does. One that is used for more than that keeps its room for what comes next.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

/// Tables with room for so many entries are left alone: they cost little, and are soon full again.
const KEPT: usize = if cfg!(any(test, loom)) { 4 } else { 1024 };

/// Whether a table has so few entries for its room that it is to be made smaller.
#[inline]
pub(crate) fn is_sparse(used: usize, room: usize) -> bool {
    room > KEPT && used < room / 4
}

/// A table that can be made smaller.
pub(crate) trait Shrink {
    /// Gives memory back if the table is sparse; to be called when entries were removed.
    fn shrink_if_sparse(&mut self);
}

macro_rules! shrink {
    ([$($generics:tt)*] $table:ty) => {
        impl<$($generics)*> Shrink for $table {
            #[inline]
            fn shrink_if_sparse(&mut self) {
                if is_sparse(self.len(), self.capacity()) {
                    self.shrink_to(2 * self.len());
                }
            }
        }
    };
}

shrink!([T] Vec<T>);
shrink!([T] VecDeque<T>);
shrink!([K: Eq + Hash, V, S: BuildHasher] std::collections::HashMap<K, V, S>);
shrink!([K: Eq + Hash, V, S: BuildHasher] hashbrown::HashMap<K, V, S>);
shrink!([T: Eq + Hash, S: BuildHasher] std::collections::HashSet<T, S>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_shrinks_when_less_than_a_quarter_is_used() {
        assert!(!is_sparse(0, KEPT));
        assert!(is_sparse(0, KEPT + 1));
        assert!(!is_sparse(25, 100));
        assert!(is_sparse(24, 100));
    }

    proptest! {
        /// However entries come and go, the room is bounded by what is used, and few entries are moved for those removed.
        #[test]
        fn the_room_is_bounded_and_moves_are_few(counts in prop::collection::vec(0..300_usize, 1..40)) {
            let mut table: Vec<u64> = Vec::new();
            let (mut removed, mut moved) = (0, 0);
            for count in counts {
                while table.len() < count {
                    table.push(0);
                }
                while table.len() > count {
                    table.pop();
                    removed += 1;
                    let before = table.capacity();
                    table.shrink_if_sparse();
                    moved += if table.capacity() < before { table.len() } else { 0 };
                    prop_assert!(table.capacity() <= KEPT.max(4 * table.len() + 3));
                }
            }
            prop_assert!(moved <= removed);
        }
    }
}
