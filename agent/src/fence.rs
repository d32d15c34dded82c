//! Carries out fences: of the agent's own over all guarded resources of an application, and of one resource by command.
//!
//! Gentle first, with a budget, then hard for what was not confirmed. A fence waits for no lock, no journal and no
//! step; steps that open are ended before it begins, so that nothing opens behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};
use regent_core::planted::{self, Mistake};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::driver::{Done, Driver, DriverError, DriverResult};

/// How long steps that were told to end may take before the fence begins all the same.
const ENDING: Duration = Duration::from_millis(20);
/// A hard fence that takes longer is given up, and begun anew.
const HARD: Duration = Duration::from_secs(10);

/// The guarded resources of one application in this cluster.
pub type Guarded = BTreeMap<ResourceId, Arc<dyn Driver>>;

/// The fence of one application. Dropping it ends nothing that runs.
#[derive(Debug, Default)]
pub struct Fencer {
    running: Option<JoinHandle<()>>,
    /// Cancelled once the last lift has ended in any way.
    lifting: Option<CancellationToken>,
    confirmed: Arc<Mutex<BTreeSet<ResourceId>>>,
}

impl Fencer {
    /// Fences gently; `done` hears whether every resource confirmed within the budget. `stopped` is
    /// cancelled by each step that was told to end, once it has.
    pub fn gently(
        &mut self,
        application: ApplicationId,
        guarded: Guarded,
        budget: Duration,
        stopped: Vec<CancellationToken>,
        done: impl FnOnce(bool) + Send + 'static,
    ) {
        let lifting = self.end_running();
        self.confirmed = Arc::default();
        let confirmed = self.confirmed.clone();
        self.running = Some(tokio::spawn(async move {
            let began = tokio::time::Instant::now();
            let stopping = futures::future::join_all(stopped.iter().map(CancellationToken::cancelled));
            let ending = futures::future::join(stopping, futures::future::OptionFuture::from(lifting));
            let _ = tokio::time::timeout(ENDING, ending).await;
            let left = budget.saturating_sub(began.elapsed());
            let fences = guarded.into_iter().map(|(resource, driver)| {
                let (application, confirmed) = (application.clone(), confirmed.clone());
                async move {
                    let fenced = within(left, driver.fence()).await;
                    note(&application, &resource, "gentle", &fenced);
                    if fenced.is_ok() {
                        confirmed.lock().unwrap_or_else(PoisonError::into_inner).insert(resource);
                    }
                    fenced.is_ok()
                }
            });
            let all = futures::future::join_all(fences).await.into_iter().all(|confirmed| confirmed);
            done(all);
        }));
    }

    /// Ends hard what has not confirmed.
    pub fn hard(&mut self, application: ApplicationId, guarded: Guarded, done: impl FnOnce(bool) + Send + 'static) {
        let _ = self.end_running();
        let confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.running = Some(tokio::spawn(async move {
            let open = guarded.into_iter().filter(|(resource, _)| !confirmed.contains(resource));
            let fences = open.map(|(resource, driver)| {
                let application = application.clone();
                async move {
                    let fenced = within(HARD, driver.fence_hard()).await;
                    note(&application, &resource, "hard", &fenced);
                    fenced.is_ok()
                }
            });
            let all = futures::future::join_all(fences).await.into_iter().all(|confirmed| confirmed);
            done(all);
        }));
    }

    /// Opens again; `done` hears whether every resource was. What is not among `opened` was never opened at this
    /// epoch: its promotion will do that.
    pub fn lift(&mut self, application: ApplicationId, opened: Guarded, done: impl FnOnce(bool) + Send + 'static) {
        let _ = self.end_running();
        let ended = CancellationToken::new();
        self.lifting = Some(ended.clone());
        // Moved in: an aborted task drops it too, even one that never ran.
        let ending = ended.drop_guard();
        self.running = Some(tokio::spawn(async move {
            let _ending = ending;
            let lifts = opened.into_iter().map(|(resource, driver)| {
                let application = application.clone();
                async move {
                    let opened = driver.unfence().await;
                    match &opened {
                        Ok(done) => tracing::info!(%application, %resource, already = done.already, "opened again"),
                        Err(error) => tracing::warn!(
                            %application, %resource, code = error.code, %error, "cannot be opened again yet"
                        ),
                    }
                    opened.is_ok()
                }
            });
            let all = futures::future::join_all(lifts).await.into_iter().all(|opened| opened);
            done(all);
        }));
    }

    /// Ends a lift that runs: a commanded fence must not be confirmed while something opens. What is returned is
    /// cancelled once it has ended.
    pub fn end_lift(&mut self) -> Option<CancellationToken> {
        let lifting = self.lifting.take().filter(|lifting| !lifting.is_cancelled())?;
        if let Some(running) = self.running.take() {
            running.abort();
        }
        Some(lifting)
    }

    fn end_running(&mut self) -> Option<JoinHandle<()>> {
        let running = self.running.take()?;
        running.abort();
        self.lifting = None;
        Some(running)
    }
}

/// A commanded fence of one resource: gentle within the budget, then hard.
///
/// # Errors
/// If not even the hard fence was confirmed.
pub async fn one(
    application: &ApplicationId,
    resource: &ResourceId,
    driver: &Arc<dyn Driver>,
    budget: Duration,
) -> DriverResult {
    let gentle = within(budget, driver.fence()).await;
    note(application, resource, "gentle", &gentle);
    match gentle {
        Ok(done) => Ok(done),
        Err(error) if error.code == "unsupported" => Err(error),
        Err(_) if planted::makes(Mistake::FenceAssumed) => {
            let probe = driver.probe().await;
            Ok(Done { position: probe.position, timeline: probe.timeline, ..Done::default() })
        }
        Err(_) => {
            let hard = within(HARD, driver.fence_hard()).await;
            note(application, resource, "hard", &hard);
            let Done { message, .. } = hard?;
            // What the database wrote last is not known now.
            Ok(Done { message: format!("fenced hard: {message}"), hard: true, ..Done::default() })
        }
    }
}

async fn within(budget: Duration, fence: impl Future<Output = DriverResult>) -> DriverResult {
    let late = || DriverError::retryable("fence-timeout", format!("not confirmed within {} ms", budget.as_millis()));
    tokio::time::timeout(budget, fence).await.unwrap_or_else(|_| Err(late()))
}

fn note(application: &ApplicationId, resource: &ResourceId, way: &'static str, fenced: &DriverResult) {
    match fenced {
        Ok(done) => tracing::info!(%application, %resource, way, already = done.already, "fenced"),
        Err(error) => tracing::error!(%application, %resource, way, code = error.code, %error, "fence not confirmed"),
    }
}
