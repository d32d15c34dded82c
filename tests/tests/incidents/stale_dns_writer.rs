//! Amazon, October 2025: a writer that was delayed overwrote a newer plan of the name with an older one, and then the name
//! was empty.
//!
//! (That an update which would leave no answer is refused is tried with every server by the agent's `drivers_edges`, and for
//! the embedded one by the core.)

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE, NAME};
use regent_deploy::wait;
use regent_deploy::world::World;
use regent_deploy::writer::resolve;
use regent_tests::crew::Way;
use regent_tests::stage::{ALL, CENTRAL, NORTH, Stage, WEST, play};
use serde_json::Value;

use super::name_servers::{Kind, NameServer, SlowWay};

const D: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(40);
/// Answers of a server to an update whose prerequisite is not met: the record is there, or is not, against what was read.
const NOT_AS_READ: [u8; 2] = [7, 8];

#[test]
fn stale_dns_writer() -> Result<()> {
    play(|net| async {
        let (mut servers, mut ways) = (Vec::new(), Vec::new());
        let prepare = async |world: &World| {
            for (kind, port) in [(Kind::Knot, 5301), (Kind::Bind, 5302)] {
                let north = &world.regions()[NORTH];
                let folder = world.folder().join(north.name()).join(format!("{kind:?}"));
                let first = world.regions()[WEST].cluster()?.address.to_string();
                let server = NameServer::start(kind, north, &folder, port, &first).await?;
                ways.push(SlowWay::lay(CENTRAL, world.net()?, server.address).await?);
                servers.push(server);
            }
            for region in [WEST, CENTRAL] {
                let way = |index: usize| if region == CENTRAL { ways[index].address } else { servers[index].address };
                let updates: Vec<_> = servers.iter().enumerate().map(|(index, it)| (*it, way(index))).collect();
                tell_agent(world, region, &updates)?;
            }
            tell_document(&world.document(), &servers)
        };
        let mut stage = Stage::start_on(net, D, |_| {}, prepare).await?;
        let west = stage.region(WEST).cluster()?.address;
        let central = stage.region(CENTRAL).cluster()?.name.clone();
        let old = stage.region(WEST).cluster()?.name.clone();

        // Epoch 2: the writer has read both names, and its updates are on their way.
        stage.world.ctl().run(&["switchover", APPLICATION, "--to", &central]).await?;
        for way in &ways {
            way.holds(PATIENCE).await?;
        }
        wait::until("the rejoin of the old side", PATIENCE, || async {
            let application = stage.application().await?;
            ensure!(application.epoch == 2 && application.confirmed, "{application:?}");
            // The terms that readmit the old side are newer than those that were confirmed for the move.
            let target = stage.world.ctl().why(APPLICATION).await?.target;
            ensure!(target == old, "a failover would go to {target:?}");
            Ok(())
        })
        .await?;
        // Epoch 3: the writer stands still, the other side takes over, and writes both names.
        let writer = stage.region(CENTRAL).cluster()?.agent.process().context("it runs")?;
        stage.cut_off_from_now();
        writer.freeze();
        stage.failed_over_to(WEST, PATIENCE).await?;
        for server in &servers {
            ensure!(of_epoch_three(*server, &west).await?, "{server:?} was not changed");
        }

        // Only now the updates of epoch 2 arrive.
        for (server, way) in servers.iter().zip(&ways) {
            let answers = way.arrive(PATIENCE).await?;
            println!("{:?} said {answers:?} to the stale updates", server.kind);
            let refused = answers.iter().all(|answer| NOT_AS_READ.contains(answer));
            ensure!(!answers.is_empty() && refused, "{server:?} took a stale update: {answers:?}");
        }
        writer.thaw();
        wait::until("word of the writer that woke", PATIENCE, || async {
            let known = stage.application().await?.stored_epoch(&central);
            ensure!(known == 3, "it knows epoch {known}");
            Ok(())
        })
        .await?;
        stage.crew.keeps_writing(NORTH, Way::Name, Duration::from_secs(2), D).await?;
        for server in &servers {
            ensure!(of_epoch_three(*server, &west).await?, "{server:?} was overwritten");
        }
        for region in ALL {
            let answer = resolve::ask(stage.region(region).place().dns, NAME).await?;
            ensure!(IpAddr::V4(answer.address) == west, "region {region} answers {}", answer.address);
        }
        ensure!(stage.changes().await? == 2, "the epoch rose again");
        stage.judge().await?;
        Ok(())
    })
}

/// One answer and no other, and the record beside it that says by whom.
async fn of_epoch_three(server: NameServer, address: &IpAddr) -> Result<bool> {
    let answer = server.dig(&server.name(), "A").await?;
    let guard = server.dig(&format!("_regent.{}", server.name()), "TXT").await?;
    println!("{:?}: {answer}, {guard}", server.kind);
    Ok(answer == address.to_string() && guard == format!("\"regent=1 application={APPLICATION} epoch=3\""))
}

fn tell_agent(world: &World, region: usize, updates: &[(NameServer, SocketAddr)]) -> Result<()> {
    let cluster = world.regions()[region].cluster()?;
    let text = std::fs::read_to_string(cluster.agent.config())?;
    let mut file: Value = serde_saphyr::from_str(&text)?;
    for (server, update) in updates {
        file["applications"][APPLICATION][server.resource()] = server.options(&cluster.address.to_string(), *update);
    }
    regent_deploy::config::write(cluster.agent.config(), &file)
}

/// After a failover both names follow with the embedded one; after a switchover they come last, when the old side follows.
fn tell_document(path: &Path, servers: &[NameServer]) -> Result<()> {
    let mut text = std::fs::read_to_string(path)?;
    let names: Vec<&str> = servers.iter().map(|server| server.resource()).collect();
    let (names, mut resources) = (names.join(", "), String::new());
    for server in servers {
        let (resource, name) = (server.resource(), server.name());
        resources.push_str(&format!("    {resource}: {{ kind: dns, name: {name}, ttl: 1s, provider: rfc2136 }}\n"));
    }
    let failover = format!("    failover:\n      - promote: [{DATABASE}, {CACHE}]\n      - redirect: ");
    for (what, instead) in [
        ("    checks: {".to_owned(), format!("{resources}    checks: {{")),
        (format!("{failover}[www]"), format!("{failover}[www, {names}]")),
        ("- deactivate: [service]".to_owned(), format!("- redirect: [{names}]")),
    ] {
        ensure!(text.matches(&what).count() == 1, "the document has no {what:?} any more");
        text = text.replace(&what, &instead);
    }
    Ok(std::fs::write(path, text)?)
}
