//! GitHub, September 2012: a primary under load fails its health checks, and is replaced while it works.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, DATABASE};
use regent_deploy::postgres::Postgres;
use regent_deploy::wait;
use regent_tests::crew::Way;
use regent_tests::stage::{CENTRAL, Stage, WEST, play};

const D: Duration = Duration::from_secs(6);
/// A probe gives a silent server up after a second; what it then says is on its way for a heartbeat.
const SILENCE: Duration = Duration::from_secs(4);
/// It never ends by itself.
const BUSY: &str = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$";
/// What is said of a database whose probe was given up.
const NO_ANSWER: &str = "no answer within";

/// The whole server stands still, longer than a probe waits and shorter than D, and goes on, again and again: four times D
/// in all.
#[test]
fn slow_is_not_dead() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        let primary = &stage.region(WEST).cluster()?.postgres;
        let replica = stage.region(CENTRAL).cluster()?;
        let (began, mut failed) = (Instant::now(), 0);
        while began.elapsed() < D * 4 {
            stands_still(&stage, primary).await?;
            failed += 1;
            // Each write may take its time; the replica advances with it, all the while.
            stage.crew.keeps_writing(WEST, Way::Name, D, Duration::from_secs(1)).await?;
            let row = stage.crew.writes(WEST, Way::Name, D).await?.n;
            wait::until("a row of the slow primary at its replica", D * 2, || async {
                ensure!(replica.postgres.rows().await?.contains(&row), "row {row} is not in its PostgreSQL");
                ensure!(replica.redis.rows().await?.contains(&row), "row {row} is not in its Redis");
                Ok(())
            })
            .await?;
        }
        println!("it failed its probes {failed} times");
        ensure!(failed > 2, "it stood still {failed} times only");
        // Those who write noticed it each time, too.
        let written = stage.crew.record(WEST, Way::Postgres)?;
        let gap = written.longest_gap().context("nobody wrote beside it")?.length();
        ensure!(gap > Duration::from_secs(1), "the longest time without a row was {gap:?}: it was not slow");
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        stage.judge().await?;
        Ok(())
    })
}

/// Every core is taken by queries of the primary's, for four times D: each write waits for its turn.
#[test]
fn slow_is_not_dead_at_full_load() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        let primary = &stage.region(WEST).cluster()?.postgres;
        let replica = stage.region(CENTRAL).cluster()?;
        let hogs = 2 * std::thread::available_parallelism()?.get();
        let mut busy = Vec::new();
        for _ in 0..hogs {
            let client = primary.connect_as_agent().await?;
            busy.push(tokio::spawn(async move { client.batch_execute(BUSY).await }));
        }
        let began = Instant::now();
        while began.elapsed() < D * 4 {
            stage.crew.keeps_writing(WEST, Way::Name, D, Duration::from_secs(1)).await?;
            let row = stage.crew.writes(WEST, Way::Name, D).await?.n;
            wait::until("a row of the busy primary at its replica", D * 2, || async {
                ensure!(replica.postgres.rows().await?.contains(&row), "row {row} is not in its PostgreSQL");
                Ok(())
            })
            .await?;
        }
        ensure!(busy.iter().all(|hog| !hog.is_finished()), "a query that should have kept it busy has ended");
        let admin = primary.connect_as_agent().await?;
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %'";
        ensure!(admin.query(ended, &[]).await?.len() == hogs, "they are not all there");
        for hog in busy {
            ensure!(hog.await?.is_err(), "a query that was ended has succeeded");
        }
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        stage.judge().await?;
        Ok(())
    })
}

/// Until operators are told that it does not answer.
async fn stands_still(stage: &Stage, primary: &Postgres) -> Result<()> {
    wait::until("an answer of the database", D * 2, || async {
        let told = silence(stage).await?;
        ensure!(told.is_none(), "it is said: {told:?}");
        Ok(())
    })
    .await?;
    let began = Instant::now();
    primary.freeze();
    let told = wait::until("word of the silent database", SILENCE, || async {
        silence(stage).await?.context("nothing is said of it")
    });
    let told = told.await;
    primary.thaw();
    println!("{}", told?);
    ensure!(began.elapsed() < D, "it stood still for {:?}, and D is {D:?}", began.elapsed());
    Ok(())
}

/// What operators are told of a PostgreSQL that does not answer.
async fn silence(stage: &Stage) -> Result<Option<String>> {
    let told = stage.world.ctl().run(&["describe", APPLICATION]).await?;
    let line = told.lines().find(|line| line.contains(DATABASE) && line.contains(NO_ANSWER));
    Ok(line.map(|line| line.trim().to_owned()))
}
