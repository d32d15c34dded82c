//! A coordinator that joins a world which runs.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use anyhow::Result;

use super::World;
use crate::certs;
use crate::config::{self, CoordinatorPlace, Credentials};
use crate::region::{Node, Region};

/// A coordinator beside those that the world began with, in the region of one of them.
pub struct Newcomer {
    /// Where it listens.
    pub place: CoordinatorPlace,
    /// Its process.
    pub coordinator: Node,
}

impl World {
    /// Makes the files of a coordinator that joins, with an id of its own, in a region. It does not run yet.
    ///
    /// # Errors
    /// Something cannot be made.
    pub async fn newcomer(&self, region: usize, id: u64) -> Result<Newcomer> {
        let pick = || self.ports.lock().unwrap_or_else(PoisonError::into_inner).pick();
        let address = self.ground.node(region)?;
        let place = CoordinatorPlace {
            id,
            listen: SocketAddr::new(address, pick()?),
            dashboard: SocketAddr::new(self.ground.pages(), pick()?),
            dns: SocketAddr::new(address, pick()?),
        };
        let certificates = self.options.folder.join("certs");
        certs::coordinator_certificate(&certificates, id, address).await?;
        let home = &self.regions[region];
        let folder = self.options.folder.join(home.name()).join(format!("newcomer-{id}"));
        std::fs::create_dir_all(&folder)?;
        let mut all: Vec<CoordinatorPlace> = self.regions.iter().map(Region::place).collect();
        all.push(place);
        let credentials = Credentials::of(&certificates, &certs::coordinator(id));
        let data = folder.join("data");
        let mut file = config::coordinator(&place, home.name(), &all, &data, &credentials, &self.options.log);
        file["bootstrap"] = false.into();
        file["join"] = true.into();
        let path = folder.join("coordinator.yaml");
        config::write(&path, &file)?;
        Ok(Newcomer { place, coordinator: Node::new(self.options.programs.coordinator, &folder, &path) })
    }

    /// Starts a newcomer and waits until it listens.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn start_newcomer(&self, region: usize, newcomer: &Newcomer) -> Result<()> {
        let home = &self.regions[region];
        newcomer.coordinator.start(&Arc::clone(home.keeper()), home.environment()).await?;
        home.answers(&newcomer.coordinator, newcomer.place.dashboard).await
    }
}
