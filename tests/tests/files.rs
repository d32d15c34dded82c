//! The files that a world writes are the files that the programs read.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use regent_deploy::place;
use regent_deploy::world::{Options, World};

#[tokio::test]
async fn coordinators_agents_and_the_core_accept_what_a_world_writes() -> Result<()> {
    let parent = tempfile::Builder::new().prefix("regent-").tempdir_in("/var/tmp")?;
    place::passable(parent.path())?;
    let folder = parent.path().join("world");
    let world = World::prepare(Options::new(&folder)).await?;
    // An agent's file refers to files of passwords and certificates: reading it shows that they are there.
    for region in world.regions() {
        let config = regent_coordinator::config::Config::load(region.coordinator().config())?;
        ensure!(config.region.to_string() == region.name());
        ensure!(config.peers.len() == 3);
        if let Ok(cluster) = region.cluster() {
            let config = regent_agent::config::Config::load(cluster.agent.config())?;
            ensure!(config.cluster.to_string() == cluster.name);
            ensure!(config.coordinators.len() == 3);
        }
    }
    let document = std::fs::read_to_string(world.document())?;
    let application = regent_core::application::parse(&document)
        .map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))
        .context("the document has mistakes")?;
    ensure!(application.clusters.len() == 2 && application.guarded().len() == 2);
    let bootstraps: BTreeSet<u64> = world.regions().iter().map(|region| region.place().id).collect();
    ensure!(bootstraps.len() == 3);
    world.down().await?;
    ensure!(!folder.exists(), "the folder is left");
    Ok(())
}
