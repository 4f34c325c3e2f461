//! Random numbers, for process ids and for jitter.

/// A random number, for ids.
///
/// # Errors
/// The system gives none.
pub(super) fn id() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

/// A number from zero to one; a half where the system gives none, because only the spread of retries depends on it.
pub(super) fn fraction() -> f64 {
    let drawn = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(drawn) / f64::from(u32::MAX)
}

/// An index below a bound that is not zero.
pub(super) fn below(bound: usize) -> usize {
    let drawn = getrandom::u32().unwrap_or(0);
    drawn as usize % bound.max(1)
}
