//! The steps of drills. They concern copies in scratch folders, so they have nothing to do with the tokens, the locks and
//! the journal of the real things: a drill that is cleaned up beside a failover must never make a step of that failover
//! look old, nor hold it up.
//!
//! What they must still know after a restart stands in a small file of its own: the highest token of each resource, so
//! that a command that was under way for long makes no copy after the clean-up, and how the last one ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::id::{ApplicationId, Epoch, ResourceId, Token};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::carry_out::{Side, outcome, refused};
use super::order::{Order, Refused, Rehearse};
use super::{Bench, Locks};
use crate::driver::process::disk::{self, Durability};
use crate::driver::{Driver, DriverResult};
use crate::journal::Outcome;

/// Name of the file in the data directory.
const FILE: &str = "drills.json";

/// How long the file may take.
const STORED_WITHIN: Duration = Duration::from_secs(10);

/// What drills have done here.
pub struct Ledger {
    file: PathBuf,
    known: Arc<Mutex<Known>>,
    writing: Arc<tokio::sync::Mutex<()>>,
    locks: Mutex<Locks>,
}

type Known = BTreeMap<ApplicationId, BTreeMap<ResourceId, Line>>;

/// Of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    /// The highest that was begun.
    token: Token,
    /// How that ended; none while it has not.
    outcome: Option<Outcome>,
}

impl Ledger {
    /// Reads what there is.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        let file = directory.join(FILE);
        let known = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::error!(path = %file.display(), %error, "what drills have done is not known any more");
                Known::new()
            }),
            Err(_) => Known::new(),
        };
        Self { file, known: Arc::new(Mutex::new(known)), writing: Arc::default(), locks: Mutex::default() }
    }

    /// The highest token of the order's resource.
    #[must_use]
    pub fn highest(&self, order: &Order) -> Token {
        self.line(order).map(|line| line.token).unwrap_or_default()
    }

    /// How the step of this very token ended.
    #[must_use]
    pub fn outcome(&self, order: &Order) -> Option<Outcome> {
        self.line(order).filter(|line| line.token == order.name.token).and_then(|line| line.outcome)
    }

    fn line(&self, order: &Order) -> Option<Line> {
        self.known().get(&order.application)?.get(order.resource.as_ref()?).cloned()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores that it has begun: on the disk before it makes anything.
    async fn begin(&self, order: &Order) -> Result<(), Refused> {
        self.note(order, None)?;
        store(self.file.clone(), self.known.clone(), self.writing.clone()).await
    }

    /// Stores how it ended: the same command is answered from there. As with other steps the word of it does not wait for
    /// the disk: what is lost in a crash runs again.
    pub(super) fn end(&self, order: &Order, outcome: &Outcome) {
        if self.note(order, Some(outcome)).is_err() {
            return;
        }
        let storing = store(self.file.clone(), self.known.clone(), self.writing.clone());
        tokio::spawn(async move {
            if let Err(refused) = storing.await {
                tracing::warn!(code = refused.code, error = refused.message, "the end of a drill's step is not stored");
            }
        });
    }

    fn note(&self, order: &Order, outcome: Option<&Outcome>) -> Result<(), Refused> {
        let Some(resource) = &order.resource else { return Ok(()) };
        let mut known = self.known();
        let line = known.entry(order.application.clone()).or_default().entry(resource.clone()).or_default();
        if order.name.token < line.token {
            return Err(stale(order, line.token));
        }
        *line = Line { token: order.name.token, outcome: outcome.cloned() };
        Ok(())
    }

    fn lock(&self, order: &Order) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let name = (order.application.clone(), order.resource.clone()?);
        Some(self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone())
    }
}

/// Writes what is known when its turn has come.
async fn store(file: PathBuf, known: Arc<Mutex<Known>>, writing: Arc<tokio::sync::Mutex<()>>) -> Result<(), Refused> {
    let _one_at_a_time = writing.lock().await;
    let text = serde_json::to_vec(&*known.lock().unwrap_or_else(PoisonError::into_inner));
    let stored = disk::bounded("journal-full", STORED_WITHIN, "writing drills.json", move || {
        disk::replace(&file, &text.map_err(std::io::Error::other)?, Durability::Synced)
    });
    stored.await.map_err(refused)
}

/// Whether a step of a drill may begin.
pub(super) fn check(order: &Order, seen: Epoch, highest: Token) -> Result<(), Refused> {
    if order.epoch < seen && !order.action.cleans_up() {
        let message = format!("epoch {} is below {seen}, which this agent has seen", order.epoch);
        return Err(Refused::new("stale-epoch", message));
    }
    if order.name.token < highest {
        return Err(stale(order, highest));
    }
    Ok(())
}

fn stale(order: &Order, highest: Token) -> Refused {
    let message = format!("token {} is below {highest}, the highest of this resource's drills", order.name.token);
    Refused::new("stale-token", message)
}

impl Bench {
    /// One step of a drill. `ending` are the steps that a clean-up has ended.
    pub(super) async fn rehearse(
        &self,
        order: &Order,
        ending: &[CancellationToken],
        waits: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Outcome, Refused> {
        let [(_, driver)] = &self.targets(order)?.into_iter().collect::<Vec<_>>()[..] else {
            return Err(Refused::new("bad-command", "this step names no resource"));
        };
        let cleans_up = order.action.cleans_up();
        if !cleans_up && self.is_primary(order) {
            return Err(Refused::new(
                "drill-primary",
                "this cluster is the primary; a drill is done where a standby is",
            ));
        }
        let noted = self.drills.begin(order).await;
        // What fills the disk is taken away all the same.
        if !cleans_up || noted.as_ref().is_err_and(|refused| refused.code == "stale-token") {
            noted?;
        }
        futures::future::join_all(ending.iter().map(CancellationToken::cancelled)).await;
        let lock = self.drills.lock(order).ok_or_else(|| Refused::new("bad-command", "this step names no resource"))?;
        let _one_at_a_time = match lock.clone().try_lock_owned() {
            Ok(free) => free,
            Err(_) => {
                waits("waits for another step of the drill".to_owned());
                lock.lock_owned().await
            }
        };
        self.show(order, Side::Before).await;
        let began = tokio::time::Instant::now();
        let done = super::carry_out::act(order, driver, waits).await;
        let took = began.elapsed();
        self.show(order, Side::After).await;
        Ok(outcome(done.map_err(refused)?, took))
    }

    fn is_primary(&self, order: &Order) -> bool {
        self.word.borrow().is_primary(&order.application)
    }
}

/// Does it.
pub(super) async fn act(rehearse: &Rehearse, driver: &Arc<dyn Driver>, run: u64) -> DriverResult {
    match rehearse {
        Rehearse::Resource(rehearsal) => driver.rehearse(*rehearsal, run).await,
        Rehearse::Run(command) => driver.run(command).await,
    }
}
