//! Who is told when something is due.

use std::fmt;
use std::sync::OnceLock;

use crate::sync::assert_unlocked;

/// Whom to tell that something is due earlier than before.
#[derive(Default)]
pub(super) struct Bell(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl Bell {
    /// Has a function called; the first one stays.
    pub(super) fn hang(&self, ring: impl Fn() + Send + Sync + 'static) {
        self.0.get_or_init(|| Box::new(ring));
    }

    #[cold]
    pub(super) fn ring(&self) {
        assert_unlocked();
        if let Some(ring) = self.0.get() {
            ring();
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell(..)")
    }
}
