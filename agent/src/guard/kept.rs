//! The agent.yaml that the running deadlines were armed by.
//!
//! A guard that is started anew reads the agent.yaml of then, which may name a database no more for which a deadline
//! stands: it could not end it. So the file is kept, in memory like the deadlines, as long as it is the last one that
//! named everything that is armed.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use regent_core::id::{ApplicationId, ResourceId};

use crate::guard::{Drivers, Table, WatchState};

fn kept(runtime: &Path) -> PathBuf {
    runtime.join("guard.agent.yaml")
}

/// Armed, and not known to these drivers.
fn missing(runtime: &Path, boot: &str, drivers: &Drivers) -> Vec<(ApplicationId, ResourceId)> {
    // A table that cannot be read is told of where the guard begins with it.
    let Ok(table) = Table::load(&runtime.join("guard.json"), boot) else { return Vec::new() };
    let armed = table.entries().iter().filter(|(_, watched)| watched.state != WatchState::Fired);
    armed
        .flat_map(|(application, watched)| watched.resources.iter().map(move |one| (application.clone(), one.clone())))
        .filter(|(application, resource)| !drivers.get(application).is_some_and(|all| all.contains_key(resource)))
        .collect()
}

/// Adds what a deadline stands for and the present file does not name, from the kept one.
pub fn take_up(
    runtime: &Path,
    boot: &str,
    mut drivers: Drivers,
    load: impl Fn(&Path) -> Result<Drivers, String>,
) -> Drivers {
    let missing = missing(runtime, boot, &drivers);
    if missing.is_empty() {
        return drivers;
    }
    match load(&kept(runtime)) {
        Ok(before) => {
            for (application, resource) in missing {
                let Some(driver) = before.get(&application).and_then(|all| all.get(&resource)) else { continue };
                tracing::warn!(
                    %application, %resource,
                    "a deadline stands for it, though agent.yaml names it no more: it is known from the file of before"
                );
                drivers.entry(application).or_default().insert(resource, driver.clone());
            }
        }
        Err(error) => {
            tracing::error!(error, "the agent.yaml of before cannot be read: a deadline stands for what is not known")
        }
    }
    drivers
}

/// Keeps this file, if what it names covers all that is armed.
pub fn keep(runtime: &Path, boot: &str, file: &Path, drivers: &Drivers) {
    if !missing(runtime, boot, drivers).is_empty() {
        return;
    }
    let kept = kept(runtime);
    let new = kept.with_extension("new");
    let write = || -> std::io::Result<()> {
        let text = std::fs::read(file)?;
        std::fs::create_dir_all(runtime)?;
        let mut copy = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        copy.write_all(&text)?;
        std::fs::rename(&new, &kept)
    };
    if let Err(error) = write() {
        tracing::warn!(error = crate::journal::chain(&error), "agent.yaml cannot be kept for the next guard");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use regent_core::id::{Epoch, Token};
    use regent_core::time::Span;

    use super::*;
    use crate::driver::Driver;
    use crate::driver::command::CommandDriver;
    use crate::guard::clock;
    use crate::lease::Arm;

    /// One line a name.
    fn load(path: &Path) -> Result<Drivers, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let driver = || -> Arc<dyn Driver> {
            let options = serde_json::from_str("{}").unwrap();
            Arc::new(CommandDriver::new(options, &crate::driver::process::children::Children::default()))
        };
        let all: BTreeMap<_, _> = text.lines().map(|name| (ResourceId::new(name).unwrap(), driver())).collect();
        Ok(Drivers::from([(ApplicationId::new("shop").unwrap(), all)]))
    }

    fn names(drivers: &Drivers) -> Vec<String> {
        drivers.values().flat_map(|all| all.keys().map(ToString::to_string)).collect()
    }

    #[test]
    fn what_is_armed_stays_known_to_the_next_guard() {
        let place = tempfile::tempdir().unwrap();
        let (runtime, file) = (place.path().join("run"), place.path().join("agent.yaml"));
        std::fs::create_dir(&runtime).unwrap();
        let mut table = Table::new("boot".to_owned());
        let until = clock::of_this_machine().reading().after(Span::from_secs(60));
        let span = Span::from_secs(60);
        let arm = Arm { epoch: Epoch(1), terms: Token::default(), until, span, paused: false, early: false };
        let armed = ["cache", "db"].map(|name| ResourceId::new(name).unwrap());
        table.arm(&ApplicationId::new("shop").unwrap(), armed.into(), arm);
        table.store(&runtime.join("guard.json")).unwrap();

        std::fs::write(&file, "cache\ndb\nqueue").unwrap();
        keep(&runtime, "boot", &file, &load(&file).unwrap());
        std::fs::write(&file, "cache").unwrap();
        let less = load(&file).unwrap();
        keep(&runtime, "boot", &file, &less);
        assert_eq!(names(&take_up(&runtime, "boot", less.clone(), load)), ["cache", "db"], "no more than is armed");
        assert_eq!(names(&take_up(&runtime, "another boot", less, load)), ["cache"], "nothing is armed there");
    }
}
