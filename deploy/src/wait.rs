//! Waiting on state: a condition, a deadline, and what was last seen instead.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const PACE: Duration = Duration::from_millis(20);

/// Waits until `probe` gives a value; its errors mean "not yet" and why.
///
/// # Errors
/// The deadline passed: what was waited for, how long, and the last reason.
pub async fn until<T, F, R>(what: &str, within: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T>>,
{
    let start = Instant::now();
    let deadline = start + within;
    let mut last = None;
    loop {
        let error = match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            // The look before it says more.
            Err(_) => last.take().unwrap_or_else(|| anyhow::anyhow!("the first look at it did not end")),
        };
        if Instant::now() >= deadline {
            return Err(error).with_context(|| format!("waited {:.1} s for {what}", start.elapsed().as_secs_f32()));
        }
        last = Some(error);
        sleep(PACE).await;
    }
}
