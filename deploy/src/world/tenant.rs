//! More applications in a world: each has a PostgreSQL of its own in both clusters, and the same agents look after it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{PATIENCE, World};
use crate::config::{self, DATABASE};
use crate::place;
use crate::postgres::{Passwords, Postgres};
use crate::region::{Region, SWITCH};
use crate::script::Gate;
use crate::wait;

/// An application beside the one that every world has; its database is called as that one's is. It goes before its world.
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// What it has in each cluster, in the order of the regions.
    pub sides: Vec<Side>,
    document: PathBuf,
}

/// What an application has in one cluster.
pub struct Side {
    /// The cluster's name.
    pub cluster: String,
    /// Where the database listens.
    pub address: IpAddr,
    /// The database.
    pub postgres: Postgres,
}

impl World {
    /// Makes one more application with this D, and starts its databases: the primary in the region `home`. An agent reads
    /// its file when it starts, so this comes before [`World::begin`].
    ///
    /// # Errors
    /// Something cannot be made, or a database does not come up.
    pub async fn tenant(&self, name: &str, home: usize, failover_after: Duration) -> Result<Tenant> {
        let port = self.ports.lock().unwrap_or_else(PoisonError::into_inner).pick()?;
        let passwords = Passwords::random();
        let regions: Vec<&Region> = self.regions.iter().filter(|region| region.has_cluster()).collect();
        let sides: Vec<Side> =
            regions.iter().map(|region| self.side(name, region, port, &passwords)).collect::<Result<_>>()?;
        for (region, own) in regions.iter().zip(&sides) {
            tell_agent(region, name, own, &sides)?;
        }
        let primary = sides.get(home).with_context(|| format!("the region {home} has no cluster"))?;
        let clusters = std::iter::once(primary).chain(sides.iter().filter(|side| side.cluster != primary.cluster));
        let clusters: Vec<&str> = clusters.map(|side| side.cluster.as_str()).collect();
        let document = self.options.folder.join(format!("{name}.yaml"));
        let text = application(name, &clusters, failover_after, self.options.max_data_loss);
        std::fs::write(&document, text).with_context(|| format!("cannot write {}", document.display()))?;
        primary.postgres.create_primary_of_its_own().await?;
        for standby in sides.iter().filter(|side| side.cluster != primary.cluster) {
            standby.postgres.create_standby(&primary.postgres).await?;
        }
        Ok(Tenant { name: name.to_owned(), sides, document })
    }

    fn side(&self, name: &str, region: &Region, port: u16, passwords: &Passwords) -> Result<Side> {
        let (cluster, folder) = (region.cluster()?, self.options.folder.join(region.name()));
        let file = cluster.agent.config().to_owned();
        let program = place::binary(self.options.programs.agent)?.display().to_string();
        let gate = Gate {
            switches: vec![folder.join(SWITCH)],
            command: [program.as_str(), "gate", name, DATABASE, "--config", &file.display().to_string()]
                .map(String::from)
                .to_vec(),
            file,
        };
        let (keeper, own) = (Arc::clone(region.keeper()), folder.join(format!("{name}-db")));
        let postgres = Postgres::new(keeper, &own, cluster.address, port, passwords.clone(), gate)?;
        postgres.write_passwords()?;
        Ok(Side { cluster: cluster.name.clone(), address: cluster.address, postgres })
    }
}

/// Adds the application to the file of the region's agent.
fn tell_agent(region: &Region, name: &str, own: &Side, sides: &[Side]) -> Result<()> {
    let path = region.cluster()?.agent.config();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut file: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not the file of an agent", path.display()))?;
    let others = sides.iter().filter(|side| side.cluster != own.cluster);
    let others: Vec<(&str, &Postgres)> = others.map(|side| (side.cluster.as_str(), &side.postgres)).collect();
    file["applications"][name] = json!({ DATABASE: config::database(&own.postgres, &others)? });
    config::write(path, &file)
}

impl Tenant {
    /// Hands in its document; tries again while the agents are not known yet.
    ///
    /// # Errors
    /// It is refused.
    pub async fn apply(&self, world: &World) -> Result<()> {
        wait::until("the acceptance of the document", PATIENCE, || world.ctl().apply(&self.document)).await
    }

    /// Waits until it is protected, by its status and by the databases themselves: that of the region `primary` serves under
    /// a confirmed lease, and the other one follows.
    ///
    /// # Errors
    /// It is not so after a minute; with what is missing.
    pub async fn protected(&self, world: &World, primary: usize) -> Result<()> {
        let primary = self.sides.get(primary).with_context(|| format!("the region {primary} has no cluster"))?;
        wait::until(&format!("the protection of {}", self.name), PATIENCE, || async {
            let status = world.ctl().status().await?;
            let application = status.application(&self.name)?;
            ensure!(application.primary == primary.cluster, "its primary is {:?}", application.primary);
            ensure!(application.confirmed, "the primary's agent has not confirmed its terms");
            ensure!(application.holds_lease(&primary.cluster), "the primary's agent holds no lease");
            ensure!(!primary.postgres.is_in_recovery().await?, "PostgreSQL of {} is a standby", primary.cluster);
            for standby in self.sides.iter().filter(|side| side.cluster != primary.cluster) {
                ensure!(standby.postgres.is_in_recovery().await?, "PostgreSQL of {} is no standby", standby.cluster);
            }
            ensure!(primary.postgres.streaming().await? > 0, "no standby streams from {}", primary.cluster);
            Ok(())
        })
        .await
    }
}

/// Its document: one database, and runbooks that move nothing else.
fn application(name: &str, clusters: &[&str], failover_after: Duration, max_data_loss: Duration) -> String {
    format!(
        "apiVersion: regent/v1
kind: Application
metadata:
  name: {name}
spec:
  objectives: {{ rto: 1m, rpo: 5s }}
  clusters: [{clusters}]
  resources:
    {DATABASE}: {{ kind: postgres }}
  automation:
    mode: automatic
    failoverAfter: {failover_after}ms
    cooldown: 1h
    maxDataLoss: {max_data_loss}ms
    beyondMaxDataLoss: refuse
    onCoordinatorLoss: failsafe
  runbooks:
    failover:
      - promote: [{DATABASE}]
    switchover:
      - catchUp: [{DATABASE}]
      - promote: [{DATABASE}]
      - rejoin: [{DATABASE}]
",
        clusters = clusters.join(", "),
        failover_after = failover_after.as_millis(),
        max_data_loss = max_data_loss.as_millis(),
    )
}
