//! Redis' own documentation warns of it, and many had it: a primary that keeps nothing crashes, is started again at once,
//! and its replicas take over that it is empty.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::wait;
use regent_tests::stage::{CENTRAL, Stage, WEST, play};

const PATIENCE: Duration = Duration::from_secs(40);

/// The bound is long: nothing here waits for it.
const D: Duration = Duration::from_secs(20);

#[test]
fn forgetful_primary() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        let (west, central) = (stage.region(WEST).cluster()?, stage.region(CENTRAL).cluster()?);
        // The server rewrites its file, and what closes it at rest is gone from there; its agent puts that back.
        west.redis.keep_nothing().await?;
        wait::until("what closes it at rest", PATIENCE, || async {
            let text = std::fs::read_to_string(west.redis.config_file())?;
            for line in ["appendonly no", "min-replicas-to-write 65535", "repl-diskless-sync-delay 2147483647"] {
                ensure!(text.contains(line), "the file has no {line}:\n{text}");
            }
            Ok(())
        })
        .await?;
        wait::until("the alert", PATIENCE, || async {
            let told = stage.world.ctl().run(&["describe", APPLICATION]).await?;
            ensure!(told.contains("taken out and put back"), "{told}");
            Ok(())
        })
        .await?;

        let before = central.redis.rows().await?;
        ensure!(!before.is_empty(), "nothing was written yet");
        // Before its agent has looked: it comes up and answers, as if nothing had been.
        west.redis.kill().await?;
        west.redis.start().await?;
        ensure!(west.redis.rows().await?.is_empty(), "it has kept something");
        stage.failed_over_to(CENTRAL, PATIENCE).await?;
        let after = central.redis.rows().await?;
        let gone: Vec<&i64> = before.difference(&after).collect();
        ensure!(gone.is_empty(), "the replica has lost {gone:?}");
        ensure!(stage.changes().await? == 1, "the epoch rose more than once");
        stage.judge().await?;
        Ok(())
    })
}
