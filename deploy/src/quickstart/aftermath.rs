//! After the failover: what an operator is told of the side that was left, and where to look further.

use anyhow::{Context, Result};

use super::Terminal;
use crate::config::APPLICATION;
use crate::place;
use crate::region::Region;
use crate::script::quote_path;
use crate::world::World;

/// The file in the world's folder that a shell reads to be an operator's.
const ENVIRONMENT: &str = "operator.env";

/// What `regentctl why` says of the old region, and what taking it back takes; nothing is promised that is not there.
pub(super) async fn taking_back(world: &World, old: &Region, new: &Region, terminal: &Terminal) -> Result<()> {
    let (lost, target) = (old.cluster()?, new.cluster()?);
    terminal.say(&format!("$ regentctl why {APPLICATION}"));
    terminal.block(&world.ctl().run(&["why", APPLICATION]).await?);
    for line in [
        format!("Until {} is a standby again, the application has no second leg to stand on.", lost.name),
        format!(
            "It may hold writes that {} never got, so it is not simply started: its PostgreSQL must be",
            target.name
        ),
        "rewound to where their histories part, its Redis copied anew, and both must follow the new primary.".into(),
        "No command of this version does that yet; so long it stays closed, whatever is started there.".into(),
    ] {
        terminal.say(&line);
    }
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
