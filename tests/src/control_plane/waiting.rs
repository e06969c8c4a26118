//! Waiting for what a cluster does in its own time.

use std::time::Duration;

use anyhow::Context;

/// How long to wait on a machine that is busy with other tests. Nothing is asserted about how fast it comes.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
///
/// # Errors
/// Asking fails, or there is no answer for a long time.
pub async fn eventually<Answer>(
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<Answer>>,
) -> anyhow::Result<Answer> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.with_context(|| format!("waited for {what}"))?
}
