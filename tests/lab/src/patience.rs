//! Waiting for a condition with a limit, and an error that says what was waited for. Nothing in
//! the lab waits for a time to pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Errors
/// After `limit`, with `what`.
pub async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    some(what, limit, async || condition().then_some(())).await
}

/// Waits until `look` finds something.
///
/// # Errors
/// After `limit`, with `what`.
pub async fn some<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            bail!("waited {limit:?} in vain: {what}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
