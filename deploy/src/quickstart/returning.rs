//! A lost region comes back: its databases must not take a single write.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Terminal;
use super::verdict::Verdicts;
use crate::config::APPLICATION;
use crate::region::{Cluster, Region};
use crate::wait;
use crate::world::World;

/// A number that the client never gets to.
const INTRUDER: i64 = 1_000_000_000;

const PATIENCE: Duration = Duration::from_secs(60);

/// Its databases are started by hand, while no agent is there to keep watch.
pub(super) async fn closed_at_rest(region: &Region, terminal: &Terminal, verdicts: &mut Verdicts) -> Result<()> {
    let cluster = region.cluster()?;
    region.give_back()?;
    terminal
        .step("Starting its databases by hand, as a careless person would, without an agent", start(cluster))
        .await?;
    terminal.say("They were closed at rest, so they come up without accepting writes:");
    for (what, refused) in writes(cluster).await {
        terminal.say(&format!("  {what}: {}", refused.as_deref().unwrap_or("accepted!")));
        verdicts.add(refused.is_some(), &format!("Without its agent, the old primary refuses a write {what}"));
    }
    Ok(())
}

/// Then its coordinator and its agent are started, too.
pub(super) async fn quarantined(
    world: &World,
    region: &Region,
    terminal: &Terminal,
    verdicts: &mut Verdicts,
) -> Result<()> {
    let cluster = region.cluster()?;
    terminal.step("Starting its coordinator", region.start_coordinator()).await?;
    terminal.step("Starting its agent", region.start_agent()).await?;
    let heard = wait::until("word of the old primary's agent", PATIENCE, || async {
        let status = world.ctl().status().await?;
        let application = status.application(APPLICATION)?;
        ensure!(!application.is_primary(&cluster.name), "{} is called the primary", cluster.name);
        ensure!(application.stored_epoch(&cluster.name) == application.epoch, "its agent knows an older epoch");
        Ok(application.epoch)
    });
    let epoch = terminal.step("Waiting until its agent knows the new epoch", heard).await?;
    terminal.say("It has learned that it is no primary any more, and keeps its databases closed:");
    for (what, refused) in writes(cluster).await {
        terminal.say(&format!("  {what}: {}", refused.as_deref().unwrap_or("accepted!")));
        let text = format!("With its agent, in epoch {epoch}, the old primary refuses a write {what}");
        verdicts.add(refused.is_some(), &text);
    }
    Ok(())
}

async fn start(cluster: &Cluster) -> Result<()> {
    cluster.postgres.start().await?;
    cluster.redis.start().await
}

/// Tries to write in every way that a client has; gives the refusals.
async fn writes(cluster: &Cluster) -> [(&'static str, Option<String>); 3] {
    let refusal = |outcome: Result<()>| outcome.err().map(|error| format!("{error:#}"));
    [
        ("into PostgreSQL as its owner", refusal(cluster.postgres.insert(INTRUDER).await)),
        ("into PostgreSQL as a superuser", refusal(cluster.postgres.insert_as_superuser(INTRUDER + 1).await)),
        ("into Redis", refusal(cluster.redis.set("intruder", "1").await)),
    ]
}
