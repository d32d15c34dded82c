//! GitHub, September 2012: a primary under load fails its health checks, and is replaced while it works.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::keeper::Program;
use regent_deploy::wait;
use regent_tests::crew::Way;
use regent_tests::stage::{CENTRAL, Stage, WEST, play};

const D: Duration = Duration::from_secs(6);
/// More than there are processors.
const BUSY: usize = 6;

#[test]
fn slow_is_not_dead() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        let west = stage.region(WEST);
        let mut busy = Vec::new();
        for number in 0..BUSY {
            let name = format!("busy-{number}");
            let program = Program::new(&name, stage.world.folder(), ["/bin/sh", "-c", "while :; do :; done"]);
            busy.push(west.keeper().spawn(program).await?);
        }
        // Each write may take its time; the replica advances with it, all the while.
        let replica = stage.region(CENTRAL).cluster()?;
        for _ in 0..4 {
            stage.crew.keeps_writing(WEST, Way::Name, D, D).await?;
            let row = stage.crew.writes(WEST, Way::Name, D).await?.n;
            wait::until("a row of the busy primary at its replica", D * 2, || async {
                ensure!(replica.postgres.rows().await?.contains(&row), "row {row} is not in its PostgreSQL");
                ensure!(replica.redis.rows().await?.contains(&row), "row {row} is not in its Redis");
                Ok(())
            })
            .await?;
        }
        for process in busy {
            process.kill();
        }
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        stage.judge().await?;
        Ok(())
    })
}
