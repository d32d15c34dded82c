//! What a drill or a restore may have left: files in the folders for copies, and servers that run there.

use anyhow::{Result, ensure};
use regent_deploy::region::Region;

/// Nothing is left of any copy in this region.
///
/// # Errors
/// What is.
pub fn is_empty(region: &Region) -> Result<()> {
    let cluster = region.cluster()?;
    for folder in [cluster.postgres.scratch(), cluster.redis.scratch()] {
        let left = std::fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
        ensure!(left == 0, "{} is not empty", folder.display());
        let commands = std::process::Command::new("pgrep").args(["-af", &folder.display().to_string()]).output()?;
        let running = String::from_utf8_lossy(&commands.stdout).into_owned();
        ensure!(running.is_empty(), "there runs {running}");
    }
    Ok(())
}
