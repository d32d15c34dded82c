//! What is done to a switchover under way.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt as _;
use rand::rngs::StdRng;
use regent_deploy::region::Region;
use regent_deploy::world::World;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the coordinator that leads; it is started again after a while.
    KillLeader,
    /// SIGKILL to the agent of the side that is left; started again at once, as a supervisor would.
    KillSource,
    /// The same of the side that takes over.
    KillTarget,
    /// SIGSTOP to the coordinator that leads, for a while.
    FreezeLeader,
    /// SIGSTOP to the agent of the side that is left, for a while.
    FreezeSource,
    /// The same of the side that takes over.
    FreezeTarget,
    /// The standby receives and does not replay, for a while.
    DelayReplay,
}

const ALL: [Fault; 7] = [
    Fault::KillLeader,
    Fault::KillSource,
    Fault::KillTarget,
    Fault::FreezeLeader,
    Fault::FreezeSource,
    Fault::FreezeTarget,
    Fault::DelayReplay,
];

/// How long what was stopped stands still.
const STILL: Duration = Duration::from_millis(1500);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillLeader => "leader killed",
            Self::KillSource => "old side's agent killed",
            Self::KillTarget => "new side's agent killed",
            Self::FreezeLeader => "leader stopped",
            Self::FreezeSource => "old side's agent stopped",
            Self::FreezeTarget => "new side's agent stopped",
            Self::DelayReplay => "replay stopped",
        })
    }
}

/// A fault whose place is known, so that nothing is asked any more when it strikes.
pub struct Ready<'a> {
    fault: Fault,
    from: &'a Region,
    to: &'a Region,
    leader: Option<&'a Region>,
    standby: Option<tokio_postgres::Client>,
}

/// What is to be mended later.
#[derive(Debug, Default)]
pub struct Pending {
    mend: tokio::sync::Mutex<Option<(Mend, Instant)>>,
}

#[derive(Debug, Clone)]
enum Mend {
    StartCoordinator(String),
    ThawCoordinator(String),
    ThawAgent(String),
    Replay(String),
}

impl Fault {
    /// One of them.
    pub fn draw(dice: &mut StdRng) -> Self {
        ALL.get(dice.random_range(0..ALL.len())).copied().unwrap_or(Self::KillLeader)
    }

    /// How long what it does lasts, beside what a kill leaves behind.
    #[must_use]
    pub const fn lasts(self) -> Duration {
        match self {
            Self::DelayReplay => STILL,
            // The step under way is what they are meant for.
            Self::KillLeader
            | Self::KillSource
            | Self::KillTarget
            | Self::FreezeLeader
            | Self::FreezeSource
            | Self::FreezeTarget => Duration::ZERO,
        }
    }

    /// Finds out whom it will strike.
    ///
    /// # Errors
    /// Nobody leads, or the standby does not answer.
    pub async fn ready<'a>(self, world: &'a World, from: &'a Region, to: &'a Region) -> Result<Ready<'a>> {
        let mut ready = Ready { fault: self, from, to, leader: None, standby: None };
        match self {
            Self::KillLeader | Self::FreezeLeader => {
                let id = world.ctl().status().await?.leader();
                let leads = world.regions().iter().find(|region| region.place().id == id).context("nobody leads")?;
                ready.leader = Some(leads);
            }
            Self::DelayReplay => ready.standby = Some(to.cluster()?.postgres.connect_as_agent().await?),
            Self::KillSource | Self::KillTarget | Self::FreezeSource | Self::FreezeTarget => {}
        }
        Ok(ready)
    }
}

impl Ready<'_> {
    /// Does it.
    ///
    /// # Errors
    /// It cannot be done.
    pub async fn strike(self) -> Result<Pending> {
        let later = Instant::now() + STILL;
        let Self { fault, from, to, leader, standby } = self;
        let mend = match fault {
            Fault::KillLeader => {
                let leads = leader.context("nobody leads")?;
                leads.coordinator().kill().await?;
                Some(Mend::StartCoordinator(leads.name().to_owned()))
            }
            Fault::FreezeLeader => {
                let leads = leader.context("nobody leads")?;
                leads.coordinator().process().context("it does not run")?.freeze();
                Some(Mend::ThawCoordinator(leads.name().to_owned()))
            }
            Fault::KillSource | Fault::KillTarget => {
                let side = if fault == Fault::KillSource { from } else { to };
                side.cluster()?.agent.kill().await?;
                side.start_agent().await?;
                None
            }
            Fault::FreezeSource | Fault::FreezeTarget => {
                let side = if fault == Fault::FreezeSource { from } else { to };
                side.cluster()?.agent.process().context("it does not run")?.freeze();
                Some(Mend::ThawAgent(side.name().to_owned()))
            }
            Fault::DelayReplay => {
                let session = standby.context("no standby answers")?;
                // It is no standby any more if the switchover was faster.
                session.execute("SELECT pg_wal_replay_pause()", &[]).await.ok();
                Some(Mend::Replay(to.name().to_owned()))
            }
        };
        Ok(Pending { mend: tokio::sync::Mutex::new(mend.map(|mend| (mend, later))) })
    }
}

impl Pending {
    /// Mends what has stood still long enough.
    ///
    /// # Errors
    /// It cannot be mended.
    pub async fn relieve(&self, world: &World) -> Result<()> {
        let due = self.mend.lock().await.as_ref().is_some_and(|(_, at)| *at <= Instant::now());
        if due { self.relieve_all(world).await } else { Ok(()) }
    }

    /// Mends everything.
    ///
    /// # Errors
    /// It cannot be mended.
    pub async fn relieve_all(&self, world: &World) -> Result<()> {
        let Some((mend, _)) = self.mend.lock().await.take() else { return Ok(()) };
        match mend {
            Mend::StartCoordinator(region) => world.region(&region)?.start_coordinator().await,
            Mend::ThawCoordinator(region) => {
                world.region(&region)?.coordinator().process().context("it does not run")?.thaw();
                Ok(())
            }
            Mend::ThawAgent(region) => {
                world.region(&region)?.cluster()?.agent.process().context("it does not run")?.thaw();
                Ok(())
            }
            Mend::Replay(region) => {
                let session = world.region(&region)?.cluster()?.postgres.connect_as_agent().await?;
                session.execute("SELECT pg_wal_replay_resume()", &[]).await.ok();
                Ok(())
            }
        }
    }
}
