//! What would leave a switchover stuck behind the point of no return is seen before: it is refused, nothing is begun, and
//! whoever writes does not notice. Once it is mended the same switchover goes through.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::ctl::Ctl;
use regent_deploy::{redis, wait};

use super::scene::Scene;
use super::switchover::newest_run;
use super::verbs::refused;

/// A look of every agent may take half a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// The file without this key and all that stands under it.
fn without(text: &str, key: &str) -> Result<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = format!("{key}:");
    let at = text.lines().position(|line| line.trim() == own).with_context(|| format!("it has no {own}"))?;
    let depth = text.lines().nth(at).map_or(0, indent);
    let below = text.lines().skip(at + 1).take_while(|line| indent(line) > depth).count();
    ensure!(below > 0, "nothing stands under {own}");
    let kept = text.lines().take(at).chain(text.lines().skip(at + 1 + below));
    Ok(kept.map(|line| format!("{line}\n")).collect())
}

/// Once readiness says that this blocks, or that nothing does.
async fn blocked_by(ctl: &Ctl, code: Option<&str>) -> Result<()> {
    wait::until("the word of readiness", PATIENCE, || async {
        match (ctl.run(&["readiness", APPLICATION, "--now", "--fail-on", "blocker"]).await, code) {
            (Ok(_), None) => Ok(()),
            (Ok(said), Some(code)) => anyhow::bail!("no word of {code}: {said}"),
            (Err(error), None) => Err(error),
            (Err(error), Some(code)) => {
                let said = format!("{error:#}");
                // Of what passes, such as a stream that is made anew, it says nothing any more.
                let alone = said.contains(code) && !said.contains("not-heard") && !said.contains("stale");
                ensure!(said.contains("exit status: 3") && alone, "it said {said}");
                Ok(())
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_certain_to_fail_refuses_a_switchover_and_writers_do_not_notice() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let (ctl, old, other) = (scene.world.ctl(), scene.old().cluster()?, scene.other().cluster()?);
    let writer = scene.writer().await?;
    let words = ["switchover", APPLICATION, "--to", &other.name];

    // A service that the runbook starts there, and that its agent does not know any more.
    let whole = std::fs::read_to_string(other.agent.config())?;
    std::fs::write(other.agent.config(), without(&whole, "service")?)?;
    other.agent.stop().await?;
    scene.other().start_agent().await?;
    blocked_by(ctl, Some("resource-missing")).await?;
    refused(ctl, &words, "resource-missing").await?;
    std::fs::write(other.agent.config(), &whole)?;
    other.agent.stop().await?;
    scene.other().start_agent().await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    blocked_by(ctl, None).await?;

    // A right that its login lacks.
    let mut cache = old.redis.connect_as_agent().await?;
    ::redis::cmd("ACL").arg("SETUSER").arg(redis::REPLICATOR).arg("-info").query_async::<()>(&mut cache).await?;
    blocked_by(ctl, Some("permission-missing")).await?;
    refused(ctl, &words, "permission-missing").await?;
    ::redis::cmd("ACL").arg("SETUSER").arg(redis::REPLICATOR).arg("+info").query_async::<()>(&mut cache).await?;
    blocked_by(ctl, None).await?;
    drop(cache);

    ensure!(ctl.runs().await?.is_empty(), "a refused switchover began a run");
    writer.acknowledged_anew(PATIENCE).await?;
    let gap = writer.record().longest_gap().context("no rows")?.length();
    ensure!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
    ctl.run(&words).await?;
    let run = newest_run(&scene, "succeeded").await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    scene.judge(writer.stop().await?, run).await?;
    scene.end().await
}
