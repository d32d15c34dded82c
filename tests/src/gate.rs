//! A gate in the way of a step: a process of the world that comes to it stops there and waits, until it is let through or
//! killed. So a test ends a leader or an agent at exactly the point of its choice.
//!
//! ```text
//!  leader:  intent committed │Intent│ dispatched …           … outcome committed │Outcome│
//!  agent:                        received, stored, under its lease │Before│ effect │After│ reported
//! ```
//!
//! The processes are `gated-coordinator` and `gated-agent`: the product's own libraries with somebody looking on. The
//! programs of the product have nobody, and nothing that could be told to stop.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use regent_coordinator::node::Node;
use regent_coordinator::replica::AppliedEvent;
use regent_core::effect::Effect;
use regent_core::id::{RunId, StepId};
use regent_core::run::StepState;
use regent_deploy::wait;
use serde::{Deserialize, Serialize};

/// Names the folder of the gate to the processes.
const FOLDER: &str = "REGENT_GATE";
/// Between two looks of a process that waits.
const LOOK: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The leader has the committed intent, and has sent nothing.
    Intent,
    /// The acting agent has stored the step, and has done nothing.
    Before,
    /// The acting agent has done it, and has told nobody.
    After,
    /// The leader has the committed outcome.
    Outcome,
}

impl Place {
    /// In their order.
    pub const ALL: [Self; 4] = [Self::Intent, Self::Before, Self::After, Self::Outcome];

    /// It is the leader who stops there.
    #[must_use]
    pub const fn is_the_leaders(self) -> bool {
        matches!(self, Self::Intent | Self::Outcome)
    }
}

/// Which step is waited for, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// In the first run above this one that comes to it.
    pub after_run: u64,
    /// Its number in the plan.
    pub step: u64,
    /// Where.
    pub place: Place,
}

impl Mark {
    fn is_at(&self, place: Place, run: u64, step: u64) -> bool {
        self.place == place && run > self.after_run && step == self.step
    }
}

/// The test's side.
#[derive(Debug)]
pub struct Gate(PathBuf);

impl Gate {
    /// An open gate in a folder of its own.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder.to_owned()))
    }

    /// What processes are started with that shall stop there.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(FOLDER.to_owned(), self.0.display().to_string())])
    }

    /// Closes it for the first process that comes to this point.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn close(&self, mark: &Mark) -> Result<()> {
        // Never half a file.
        let (draft, armed) = (self.0.join("draft"), armed(&self.0));
        std::fs::write(&draft, serde_json::to_vec(mark)?)?;
        std::fs::rename(draft, armed).context("cannot close the gate")
    }

    /// Waits until a process stands there, and gives its number.
    ///
    /// # Errors
    /// None came in time.
    pub async fn holds(&self, within: Duration) -> Result<Pid> {
        wait::until("a process at the gate", within, || async {
            let text = std::fs::read_to_string(held(&self.0)).context("none has come")?;
            Ok(Pid::from_raw(text.parse().context("it has not said who it is")?))
        })
        .await
    }

    /// Lets through who stands there, and everybody from now on.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self) -> Result<()> {
        for file in [armed(&self.0), held(&self.0)] {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn armed(folder: &Path) -> PathBuf {
    folder.join("closed")
}

fn held(folder: &Path) -> PathBuf {
    folder.join("held")
}

/// The folder that a process was started with.
fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(|folder: OsString| folder.into())
}

/// True if this process is the one that stops: whoever moves the file has come first.
fn stops(folder: &Path, is_it: impl FnOnce(&Mark) -> bool) -> bool {
    let Ok(text) = std::fs::read(armed(folder)) else { return false };
    let mark = serde_json::from_slice::<Mark>(&text);
    let first = mark.is_ok_and(|mark| is_it(&mark)) && std::fs::rename(armed(folder), held(folder)).is_ok();
    // Without its number the test ends by its own time limit.
    first && std::fs::write(held(folder), std::process::id().to_string()).is_ok()
}

/// The agent's side: it goes on with everything but the step.
pub struct AtSteps;

#[async_trait::async_trait]
impl regent_agent::steps::Onlooker for AtSteps {
    async fn before(&self, order: &regent_agent::steps::order::Order) {
        pass(Place::Before, order).await;
    }

    async fn after(&self, order: &regent_agent::steps::order::Order) {
        pass(Place::After, order).await;
    }
}

async fn pass(place: Place, order: &regent_agent::steps::order::Order) {
    let Some(folder) = folder() else { return };
    if stops(&folder, |mark| mark.is_at(place, order.name.run, order.name.step.into())) {
        while held(&folder).exists() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The coordinator's side: it stands still altogether, before anybody else in the process has heard of the entry.
pub fn watch(node: &Node) {
    let Some(folder) = folder() else { return };
    let (node, mut events) = (node.clone(), node.replica.listen());
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let leads = node.replica.leadership().borrow().is_leader();
            if leads && stops(&folder, |mark| mark.place.is_the_leaders() && has_come(&node, &event, mark)) {
                while held(&folder).exists() {
                    std::thread::sleep(LOOK);
                }
            }
        }
    });
}

fn has_come(node: &Node, event: &AppliedEvent, mark: &Mark) -> bool {
    let ended = |run: RunId| {
        node.replica.read(|state| {
            let step = state.runs.get(&run).and_then(|run| run.step(StepId(mark.step)));
            step.is_some_and(|(_, progress)| progress.state == StepState::Succeeded)
        })
    };
    event.effects.iter().any(|effect| match effect {
        Effect::Dispatch(run, step) => mark.is_at(Place::Intent, run.0, step.0),
        Effect::RunChanged(run) => mark.is_at(Place::Outcome, run.0, mark.step) && ended(*run),
        Effect::TermsChanged(_)
        | Effect::VoteStands { .. }
        | Effect::VoteWithdrawn { .. }
        | Effect::AnswerChanged(..)
        | Effect::CoordinatorsChanged
        | Effect::Audited => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_who_comes_stops_and_no_other() {
        let place = tempfile::tempdir().unwrap();
        let gate = Gate::new(place.path()).unwrap();
        assert!(!stops(place.path(), |_| true), "it is open");
        let mark = Mark { after_run: 4, step: 2, place: Place::Before };
        gate.close(&mark).unwrap();
        for (at, run, step) in [(Place::After, 5, 2), (Place::Before, 4, 2), (Place::Before, 5, 3)] {
            assert!(!stops(place.path(), |mark| mark.is_at(at, run, step)));
        }
        assert!(gate.holds(Duration::ZERO).await.is_err());
        assert!(stops(place.path(), |mark| mark.is_at(Place::Before, 5, 2)));
        assert!(!stops(place.path(), |_| true), "one stands there");
        assert_eq!(gate.holds(Duration::ZERO).await.unwrap(), Pid::this());
        gate.open().unwrap();
        gate.open().unwrap();
        assert!(!stops(place.path(), |_| true));
    }
}
