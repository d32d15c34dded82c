//! How a fault is done, and how it is undone.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use regent_deploy::region::{Node, Region};

use super::plan::{Disk, Fault};
use crate::ballast::Ballast;
use crate::stage::Stage;

/// Begins it; gives what has to be held until it ends.
pub(super) async fn begin(stage: &Stage, fault: Option<Fault>) -> Result<Option<Ballast>> {
    let Some(fault) = fault else { return Ok(None) };
    let region = stage.region(fault.region());
    match fault {
        Fault::KillCoordinator(_) => region.coordinator().kill().await?,
        Fault::FreezeCoordinator(_) => signal(region.coordinator().process().map(|it| it.pid()), Signal::SIGSTOP),
        Fault::KillAgent(_) => region.cluster()?.agent.kill().await?,
        Fault::FreezeAgent(_) => signal(region.cluster()?.agent.process().map(|it| it.pid()), Signal::SIGSTOP),
        Fault::KillGuard(_) => signal(region.guard(), Signal::SIGKILL),
        Fault::FreezeGuard(_) => signal(region.guard(), Signal::SIGSTOP),
        Fault::KillPostgres(_) => region.cluster()?.postgres.kill_and_switch_off().await?,
        Fault::KillRedis(_) => region.cluster()?.redis.kill_and_switch_off().await?,
        Fault::FreezePostgres(_) | Fault::SuspendPostgres(_) => region.cluster()?.postgres.freeze(),
        Fault::FreezeRedis(_) | Fault::SuspendRedis(_) => region.cluster()?.redis.freeze(),
        Fault::LoseRegion(_) => region.lose().await.map(|_| ())?,
        Fault::FillDisk(_, disk) => {
            let (folder, _) = disk.of(fault.region());
            return Ballast::fill(&stage.world.folder().join(folder)).map(Some);
        }
        Fault::StepClock(_, seconds) => region.step_clock(seconds)?,
    }
    Ok(None)
}

/// Ends it.
pub(super) async fn end(stage: &Stage, fault: Option<Fault>, held: Option<Ballast>) -> Result<()> {
    drop(held);
    let Some(fault) = fault else { return Ok(()) };
    let region = stage.region(fault.region());
    match fault {
        Fault::KillCoordinator(_) => region.start_coordinator().await,
        Fault::FreezeCoordinator(_) => {
            signal(region.coordinator().process().map(|it| it.pid()), Signal::SIGCONT);
            Ok(())
        }
        Fault::KillAgent(_) => region.start_agent().await,
        Fault::FreezeAgent(_) => {
            signal(region.cluster()?.agent.process().map(|it| it.pid()), Signal::SIGCONT);
            Ok(())
        }
        Fault::KillGuard(_) => Ok(()),
        Fault::FreezeGuard(_) => {
            signal(region.guard(), Signal::SIGCONT);
            Ok(())
        }
        Fault::KillPostgres(_) | Fault::KillRedis(_) | Fault::FreezePostgres(_) | Fault::FreezeRedis(_) => {
            start_databases(region).await
        }
        // Resumed, and nothing more: whoever lives goes on where it stood.
        Fault::SuspendPostgres(_) => {
            region.cluster()?.postgres.thaw();
            Ok(())
        }
        Fault::SuspendRedis(_) => {
            region.cluster()?.redis.thaw();
            Ok(())
        }
        Fault::LoseRegion(_) => {
            region.give_back()?;
            if region.has_cluster() {
                start_databases(region).await?;
            }
            region.start_coordinator().await?;
            if region.has_cluster() { region.start_agent().await } else { Ok(()) }
        }
        // As a supervisor does with what gave up.
        Fault::FillDisk(_, Disk::Coordinator) if gave_up(region.coordinator()) => region.start_coordinator().await,
        Fault::FillDisk(_, Disk::Agent) if gave_up(&region.cluster()?.agent) => region.start_agent().await,
        Fault::FillDisk(_, Disk::Coordinator | Disk::Agent) => Ok(()),
        Fault::FillDisk(_, Disk::Postgres | Disk::Redis) => start_databases(region).await,
        Fault::StepClock(..) => region.step_clock(0),
    }
}

/// What was merely resumed and had been ended meanwhile, for good.
pub(super) async fn start_what_died(stage: &Stage, fault: Option<Fault>) -> Result<()> {
    match fault {
        Some(Fault::SuspendPostgres(region) | Fault::SuspendRedis(region)) => {
            start_databases(stage.region(region)).await
        }
        Some(_) | None => Ok(()),
    }
}

/// As somebody would who finds them down: closed at rest, whoever starts them.
async fn start_databases(region: &Region) -> Result<()> {
    let cluster = region.cluster()?;
    cluster.postgres.thaw();
    cluster.redis.thaw();
    cluster.postgres.switch_on()?;
    cluster.redis.switch_on()?;
    cluster.postgres.start().await?;
    cluster.redis.start().await
}

fn gave_up(node: &Node) -> bool {
    !node.process().is_some_and(|process| process.is_running())
}

/// A process that is gone is as good as one that got the signal.
fn signal(pid: Option<nix::unistd::Pid>, signal: Signal) {
    if let Some(pid) = pid {
        let _gone = kill(pid, signal);
    }
}
