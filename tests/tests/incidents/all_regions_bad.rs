//! Facebook, October 2021: every region looked bad at once, the health checks withdrew every answer, and nobody could log in
//! to put them back.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::config::{APPLICATION, NAME};
use regent_deploy::wait;
use regent_deploy::writer::resolve;
use regent_tests::crew::Way;
use regent_tests::stage::{ALL, CENTRAL, NORTH, Stage, WEST, play};

use super::coordinators::metric;

const D: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn all_regions_bad() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        let agents = [WEST, CENTRAL].map(|region| stage.region(region).cluster().unwrap().agent.process().unwrap());
        for agent in &agents {
            agent.freeze();
        }
        wait::until("the breaker", PATIENCE, || async {
            let why = stage.world.ctl().run(&["why", APPLICATION]).await?;
            ensure!(why.contains("frozen"), "{why}");
            Ok(())
        })
        .await?;
        frozen(&stage, 1.0).await?;
        // Many times D; the guard fences the primary, and nobody takes its place.
        stage.crew.is_refused(NORTH, Way::Name, PATIENCE).await?;
        stage.crew.takes_nothing(NORTH, Way::Name, D * 4).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        let kept = stage.region(WEST).cluster()?.address;
        for region in ALL {
            let answer = resolve::ask(stage.region(region).place().dns, NAME).await?;
            ensure!(IpAddr::V4(answer.address) == kept, "region {region} answers {}", answer.address);
        }

        for agent in &agents {
            agent.thaw();
        }
        stage.crew.writes_to(NORTH, &stage.world, WEST, PATIENCE).await?;
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        frozen(&stage, 0.0).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        stage.judge().await?;
        Ok(())
    })
}

/// Who is to be woken looks at the metric: every coordinator shows it, since any of them may be the one that is looked at.
async fn frozen(stage: &Stage, wanted: f64) -> Result<()> {
    wait::until("the metric of the breaker", PATIENCE, || async {
        for region in ALL {
            let shown = metric(stage, region, "regent_frozen").await?;
            ensure!((shown - wanted).abs() < f64::EPSILON, "region {region} shows {shown} and not {wanted}");
        }
        Ok(())
    })
    .await
}
