//! How long an answer is waited for.

use std::future::Future;
use std::time::Duration;

use crate::redis::fault::{Fault, FaultKind};

/// How long a Sentinel, or a server that is asked for the map, may take.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn in_time<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let late = |_| Fault::new(FaultKind::Timeout, "the server did not answer in time");
    tokio::time::timeout(timeout, answer).await.map_err(late)?
}
