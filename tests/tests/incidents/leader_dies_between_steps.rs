//! orchestrator: the one that carried out the recovery died half-way, and the next one began again, or never.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::ctl::Run;
use regent_deploy::net::Net;
use regent_deploy::{tree, wait};
use regent_tests::crew::Way;
use regent_tests::stage::{CENTRAL, NORTH, Stage, WEST, play};

const D: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(45);

/// Where the run stands when its leader is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// As soon as there is a run.
    Begun,
    /// One of the two databases is promoted, the other one does not answer.
    InsidePromote,
    /// Both are promoted and the name has moved, the service cannot start.
    InsideActivate,
}

#[test]
fn leader_dies_between_steps() -> Result<()> {
    play(|net| dies_at(net, Moment::Begun))
}

#[test]
fn leader_dies_inside_the_promotion() -> Result<()> {
    play(|net| dies_at(net, Moment::InsidePromote))
}

#[test]
fn leader_dies_inside_the_activation() -> Result<()> {
    play(|net| dies_at(net, Moment::InsideActivate))
}

async fn dies_at(net: Net, moment: Moment) -> Result<()> {
    let stage = Stage::start(net, D).await?;
    stage.lead_from(NORTH).await?;
    let (west, central) = (stage.region(WEST).cluster()?, stage.region(CENTRAL).cluster()?);
    let hidden = central.service.with_extension("hidden");
    if moment == Moment::InsideActivate {
        std::fs::rename(&central.service, &hidden)?;
    }
    west.postgres.kill_and_switch_off().await?;
    if moment == Moment::InsidePromote {
        promoting(&stage).await?;
        central.redis.freeze();
    }
    wait::until("the moment", PATIENCE, || async {
        let runs = stage.world.ctl().runs().await?;
        let run = runs.first().context("there is no run")?;
        let there = match moment {
            Moment::Begun => true,
            Moment::InsidePromote => stands_in(run, "promote"),
            Moment::InsideActivate => stands_in(run, "activate"),
        };
        ensure!(there, "run {} has not come to it: {:?}", run.id, run.steps);
        Ok(())
    })
    .await?;
    stage.region(NORTH).coordinator().kill().await?;
    wait::until("another leader", PATIENCE, || async {
        let leader = stage.world.ctl().status().await?.leader();
        ensure!(leader != 0 && leader != stage.region(NORTH).place().id, "coordinator {leader} leads");
        Ok(())
    })
    .await?;
    match moment {
        Moment::Begun => {}
        Moment::InsidePromote => central.redis.thaw(),
        Moment::InsideActivate => std::fs::rename(&hidden, &central.service)?,
    }
    stage.failed_over_to(CENTRAL, PATIENCE).await?;
    stage.region(NORTH).start_coordinator().await?;
    stage.crew.keeps_writing(NORTH, Way::Name, Duration::from_secs(2), D).await?;

    // The same final state as without it, every effect once.
    ensure!(stage.changes().await? == 1, "the epoch rose more than once");
    ensure!(stage.world.ctl().runs().await?.len() == 1, "there is more than one run");
    let admin = central.postgres.connect_as_agent().await?;
    let file: String = admin.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await?.get(0);
    ensure!(file.starts_with("00000002"), "it was promoted more than once: {file}");
    drop(admin);
    let services = stage.region(CENTRAL).keeper().processes();
    let services = services.iter().filter(|pid| tree::words(**pid).get(1).is_some_and(|word| word == "run")).count();
    ensure!(services == 1, "{services} services run");
    stage.judge().await?;
    Ok(())
}

/// Waits until the promotion is near enough that what freezes now is promoted by nobody else.
async fn promoting(stage: &Stage) -> Result<()> {
    wait::until("the run", PATIENCE, || async {
        ensure!(!stage.world.ctl().runs().await?.is_empty(), "there is none");
        Ok(())
    })
    .await
}

fn stands_in(run: &Run, kind: &str) -> bool {
    run.steps.iter().any(|step| step.kind == kind && !matches!(step.state().as_str(), "pending" | "succeeded"))
}
