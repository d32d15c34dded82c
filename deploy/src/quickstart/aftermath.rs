//! After the failover: how the side that was left is taken back, and where to look further.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::verdict::Verdicts;
use super::{Terminal, follow};
use crate::config::APPLICATION;
use crate::region::Region;
use crate::script::quote_path;
use crate::world::World;
use crate::writer::Writer;
use crate::{place, wait};

const PATIENCE: Duration = Duration::from_secs(60);

/// The file in the world's folder that a shell reads to be an operator's.
const ENVIRONMENT: &str = "operator.env";

/// An operator takes the old region back: it is rewound or copied, and follows the new primary.
pub(super) async fn taking_back(
    world: &World,
    [old, new]: [&Region; 2],
    writer: &Writer,
    terminal: &Terminal,
    verdicts: &mut Verdicts,
) -> Result<()> {
    let (lost, target) = (old.cluster()?, new.cluster()?);
    for line in [
        format!("Until {} is a standby again, the application has no second leg to stand on.", lost.name),
        format!(
            "It may hold writes that {} never got, so Regent does not touch it before an operator says so.",
            target.name
        ),
        "PostgreSQL is rewound to where their histories part. Redis was killed and has forgotten its history: with"
            .into(),
        "--reclone it may be copied anew, and what it had is set aside.".into(),
        format!("$ regentctl rejoin {APPLICATION} {} --reclone", lost.name),
    ] {
        terminal.say(&line);
    }
    let said = world.ctl().run(&["rejoin", APPLICATION, &lost.name, "--reclone", "--detach"]).await?;
    terminal.block(&said);
    follow::run(world, writer, terminal, PATIENCE).await?;
    let candidate = wait::until("the next target", PATIENCE, || async {
        let why = world.ctl().why(APPLICATION).await?;
        ensure!(why.target == lost.name, "{}", why.reason());
        Ok(())
    });
    terminal.step("Waiting until it would be the target of the next failover", candidate).await?;
    let row = writer.acknowledged_anew(PATIENCE).await?.n;
    let here = wait::until("a new row at the standby", PATIENCE, || async {
        ensure!(lost.postgres.rows().await?.contains(&row), "row {row} is not in its PostgreSQL");
        ensure!(lost.redis.rows().await?.contains(&row), "row {row} is not in its Redis");
        Ok(())
    });
    let what = format!("Waiting until row {row}, written in {}, is in its databases, too", new.name());
    terminal.step(&what, here).await?;
    verdicts.add(true, &format!("{} follows {} again, and would take over from it", lost.name, target.name));
    Ok(())
}

/// Writes the file that [`look_around`] names.
pub(super) fn write_environment(world: &World) -> Result<()> {
    let endpoints: Vec<String> = world.regions().iter().map(|region| region.place().listen.to_string()).collect();
    let ctl = place::binary("regentctl")?;
    let programs = ctl.parent().context("regentctl stands nowhere")?;
    let text = format!(
        "export REGENT_ENDPOINTS={}\nexport REGENT_CERTS={}\nexport PATH={}:\"$PATH\"\n",
        endpoints.join(","),
        quote_path(&world.folder().join("certs")),
        quote_path(programs),
    );
    let path = world.folder().join(ENVIRONMENT);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// For whoever keeps it: dashboards, commands, and how to end it.
pub(super) fn look_around(world: &World, terminal: &Terminal) {
    let folder = quote_path(world.folder());
    terminal.title(&format!("It goes on running in {}", world.folder().display()));
    for region in world.regions() {
        terminal.line(&format!("  http://{}/  dashboard of {}", region.place().dashboard, region.name()));
    }
    terminal.line("\n  As an operator, in a shell:\n");
    terminal.line(&format!("    . {}", quote_path(&world.folder().join(ENVIRONMENT))));
    terminal.line("    regentctl status");
    terminal.line("\n  To end it and remove its folder:\n");
    terminal.line(&format!("    deploy/quickstart --down --dir {folder}"));
}
