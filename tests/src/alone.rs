//! Rows that one side alone has: what it acknowledged and its standby never got. When it is left, they lie beyond the
//! history of the new primary.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::wait;

use crate::stage::Stage;

/// Their numbers: no writer of a crew has these.
pub const ROWS: Range<i64> = 9_000_000..9_000_020;

const PATIENCE: Duration = Duration::from_secs(30);

/// Cuts the PostgreSQL of `to` off from what it follows, and has that of `from` commit [`ROWS`], each by itself. The world
/// has to allow that much to be lost.
///
/// # Errors
/// It goes on streaming, or a row is refused.
pub async fn has(stage: &Stage, from: usize, to: usize) -> Result<()> {
    let primary = &stage.region(from).cluster()?.postgres;
    let standby = stage.region(to).cluster()?.postgres.connect_as_agent().await?;
    standby.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'", &[]).await?;
    standby.execute("SELECT pg_reload_conf()", &[]).await?;
    wait::until("the end of replication", PATIENCE, || async {
        ensure!(primary.streaming().await? == 0, "it streams");
        Ok(())
    })
    .await?;
    for n in ROWS {
        primary.insert(n).await?;
    }
    Ok(())
}
