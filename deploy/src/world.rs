//! Three regions with a coordinator each; two of them have a cluster with real databases, an agent and a service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::config::{self, APPLICATION};
use crate::ctl::Ctl;
use crate::ground::Ground;
use crate::net::Net;
use crate::ports::Ports;
use crate::region::Region;
use crate::wait;
use crate::writer::{WriterOptions, resolve};

mod newcomer;
mod prepare;
mod service;
mod tenant;
mod traces;

pub use newcomer::Newcomer;
pub use tenant::{Side, Tenant};
use traces::Traces;
pub use traces::{take_down, take_down_all};

/// The regions, and the cluster in each; the last is the witness.
pub const REGIONS: [(&str, Option<&str>); 3] =
    [("eu-west", Some("eu-west-1")), ("eu-central", Some("eu-central-1")), ("eu-north", None)];

const PATIENCE: Duration = Duration::from_secs(60);

/// Set: the folders of worlds are kept; to `broken`: only of those whose test came to no good end.
pub const KEEP: &str = "REGENT_KEEP_WORLD";

/// Names of programs of this workspace.
#[derive(Debug, Clone, Copy)]
pub struct Programs {
    /// Also that of the guard and of the gate before a database.
    pub agent: &'static str,
    /// See [`Programs::agent`].
    pub coordinator: &'static str,
}

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it stands; made, and removed with the world.
    pub folder: PathBuf,
    /// D.
    pub failover_after: Duration,
    /// How often agents look at their databases.
    pub probe_interval: Duration,
    /// Tracing filter of coordinators and agents.
    pub log: String,
    /// What an automatic failover may lose.
    pub max_data_loss: Duration,
    /// What coordinators are told of replication; null: nothing.
    pub raft: serde_json::Value,
    /// The programs that agents and coordinators are.
    pub programs: Programs,
    /// What they are started with, beside what the harness itself has.
    pub environment: BTreeMap<String, String>,
    /// Folders below `folder` that are disks of their own and so many megabytes large; only on a ground of namespaces.
    pub disks: Vec<(PathBuf, u32)>,
    /// Coordinators and agents go by wall clocks of their regions, which can be stepped.
    pub wall_clocks: bool,
    /// By cluster the kubeconfig of an API server whose Deployment the service is; where there is none, a command starts
    /// it.
    pub kubernetes: BTreeMap<String, PathBuf>,
    /// How long transactions of PostgreSQL may take to end when it is quiesced; a switchover begins with that, where it is said.
    pub grace: Option<Duration>,
}

impl Options {
    /// D of 10 s, a probe every second.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            failover_after: Duration::from_secs(10),
            probe_interval: Duration::from_secs(1),
            log: "info".into(),
            max_data_loss: Duration::from_secs(5),
            raft: serde_json::Value::Null,
            programs: Programs { agent: "regent-agent", coordinator: "regent-coordinator" },
            environment: BTreeMap::new(),
            disks: Vec::new(),
            wall_clocks: false,
            kubernetes: BTreeMap::new(),
            grace: None,
        }
    }
}

/// See the module.
pub struct World {
    options: Options,
    ground: Arc<Ground>,
    regions: Vec<Region>,
    service_port: u16,
    ctl: Ctl,
    traces: Traces,
    /// Held until the end: no other world picks them.
    ports: Mutex<Ports>,
}

impl World {
    /// Makes a world and everything in it, and waits until the application is protected.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start(options: Options) -> Result<Self> {
        Self::start_on(Ground::Loopback, options).await
    }

    /// The same on a ground of choice.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start_on(ground: Ground, options: Options) -> Result<Self> {
        let world = Self::prepare_on(ground, options).await?;
        world.begin().await?;
        Ok(world)
    }

    /// Starts everything in a world that was prepared, and waits until the application is protected.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn begin(&self) -> Result<()> {
        self.start_databases().await?;
        self.start_coordinators().await?;
        self.start_agents().await?;
        self.apply().await?;
        self.protected(&self.regions[0], &self.regions[1]).await
    }

    /// Starts the first cluster's databases as primaries, the other's as their standbys, and the service at the first.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start_databases(&self) -> Result<()> {
        let (first, second) = (self.regions[0].cluster()?, self.regions[1].cluster()?);
        first.postgres.create_primary().await?;
        first.redis.create_primary().await?;
        second.postgres.create_standby(&first.postgres).await?;
        second.redis.create_standby(&first.redis).await?;
        if !self.options.kubernetes.is_empty() {
            // Its pods are started by whoever plays the machines of that cluster.
            return Ok(());
        }
        self.start_service(&self.regions[0]).await
    }

    /// Starts all coordinators and waits until they agree on a leader.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start_coordinators(&self) -> Result<()> {
        futures::future::try_join_all(self.regions.iter().map(Region::start_coordinator)).await?;
        wait::until("a leader", PATIENCE, || async {
            let status = self.ctl.status().await?;
            ensure!(status.has_quorum(), "no majority of coordinators is in contact");
            Ok(())
        })
        .await
    }

    /// Starts all agents.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start_agents(&self) -> Result<()> {
        let regions = self.regions.iter().filter(|region| region.has_cluster());
        futures::future::try_join_all(regions.map(Region::start_agent)).await?;
        Ok(())
    }

    /// Hands in the Application document; tries again while the agents are not known yet.
    ///
    /// # Errors
    /// It is refused.
    pub async fn apply(&self) -> Result<()> {
        let document = self.document();
        wait::until("the acceptance of the document", PATIENCE, || self.ctl.apply(&document)).await
    }

    /// Waits until the application is protected, by its status and by the databases themselves: `primary` serves under a
    /// confirmed lease, `standby` follows, and every coordinator's DNS points to the primary.
    ///
    /// # Errors
    /// It is not so after a minute; with what is missing.
    pub async fn protected(&self, primary: &Region, standby: &Region) -> Result<()> {
        let (primary, standby) = (primary.cluster()?, standby.cluster()?);
        wait::until("the protection of the application", PATIENCE, || async {
            let status = self.ctl.status().await?;
            let application = status.application(APPLICATION)?;
            ensure!(application.primary == primary.name, "its primary is {:?}", application.primary);
            ensure!(application.confirmed, "the primary's agent has not confirmed its terms");
            ensure!(application.holds_lease(&primary.name), "the primary's agent holds no lease");
            ensure!(!primary.postgres.is_in_recovery().await?, "PostgreSQL of {} is a standby", primary.name);
            ensure!(standby.postgres.is_in_recovery().await?, "PostgreSQL of {} is no standby", standby.name);
            ensure!(primary.postgres.streaming().await? > 0, "no standby streams from PostgreSQL of {}", primary.name);
            let link = standby.redis.info("master_link_status").await?;
            ensure!(link.as_deref() == Some("up"), "Redis of {} is not linked", standby.name);
            for region in &self.regions {
                let answer = resolve::ask(region.place().dns, config::NAME).await?;
                ensure!(IpAddr::V4(answer.address) == primary.address, "the name points to {}", answer.address);
            }
            Ok(())
        })
        .await
    }

    /// Has the coordinator of a region lead.
    ///
    /// # Errors
    /// It does not come to it.
    pub async fn lead_from(&self, region: &Region) -> Result<()> {
        let id = region.place().id;
        wait::until("the wanted leader", Duration::from_secs(30), || async {
            if self.ctl.status().await?.leader() != id {
                self.ctl.run(&["members", "transfer-leader", &id.to_string()]).await?;
            }
            let leader = self.ctl.status().await?.leader();
            ensure!(leader == id, "coordinator {leader} leads");
            Ok(())
        })
        .await
    }

    /// All regions; the first is the primary's at the start, the last has no cluster.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// A region by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn region(&self, name: &str) -> Result<&Region> {
        self.regions.iter().find(|region| region.name() == name).with_context(|| format!("there is no region {name}"))
    }

    /// The network between the regions.
    ///
    /// # Errors
    /// The world stands on loopback addresses.
    pub fn net(&self) -> Result<&Net> {
        self.ground.net()
    }

    /// The command line of an operator.
    #[must_use]
    pub const fn ctl(&self) -> &Ctl {
        &self.ctl
    }

    /// Where it stands.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.options.folder
    }

    /// The Application document.
    #[must_use]
    pub fn document(&self) -> PathBuf {
        self.options.folder.join("shop.yaml")
    }

    /// What a client needs that writes through the DNS name.
    #[must_use]
    pub fn writer(&self) -> WriterOptions {
        self.writer_in(0)
    }

    /// The same for a client in a region, which asks the servers there first.
    #[must_use]
    pub fn writer_in(&self, region: usize) -> WriterOptions {
        let mut servers: Vec<SocketAddr> = self.regions.iter().map(|region| region.place().dns).collect();
        let count = servers.len().max(1);
        servers.rotate_left(region % count);
        WriterOptions::new(config::NAME, self.service_port, servers)
    }

    /// Ends everything and removes every trace.
    ///
    /// # Errors
    /// Something does not end.
    pub async fn down(mut self) -> Result<()> {
        // Where only what broke is to be kept, a world that comes to its end is not.
        self.traces.keep &= std::env::var(KEEP).is_ok_and(|which| which != "broken");
        self.end().await
    }

    /// Ends everything and leaves its folder: logs, configuration and data.
    ///
    /// # Errors
    /// Something does not end.
    pub async fn down_to_its_folder(mut self) -> Result<()> {
        self.traces.keep = true;
        self.end().await
    }

    async fn end(self) -> Result<()> {
        futures::future::try_join_all(self.regions.iter().map(|region| region.keeper().end())).await?;
        Ok(())
    }

    /// Leaves it running when this process ends; [`take_down`] ends it.
    ///
    /// # Errors
    /// A keeper is gone.
    pub async fn leave(mut self) -> Result<()> {
        futures::future::try_join_all(self.regions.iter().map(|region| region.keeper().detach())).await?;
        self.traces.keep = true;
        Ok(())
    }
}
