//! Keeps services at rest while this cluster is quarantined.
//!
//! A Deployment comes up with its machines, by what its own API server and its own Argo CD remember: from before the
//! region was lost. Nobody dispatches a step to a side that was left, so its agent sees to it by the terms it has stored,
//! as it fences a database by them. It opens nothing, and ends when the cluster is readmitted: what rests then goes on
//! resting, until a run activates it.

use regent_core::id::{ApplicationId, ResourceId};

use crate::agent::{Agent, Event};
use crate::driver::DriverResult;

/// One service.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// It is being brought to rest.
    running: bool,
    /// The code of the failure that was said last.
    failed: Option<&'static str>,
}

impl Agent {
    /// At every probe of a service: a self-heal, or somebody, may have started it again.
    pub(super) fn keep_at_rest(&mut self, application: &ApplicationId, resource: &ResourceId) {
        let name = (application.clone(), resource.clone());
        let driver = self.drivers.get(application).and_then(|resources| resources.get(resource));
        let Some(driver) = driver.filter(|driver| driver.rests_in_quarantine()) else { return };
        if !self.is_quarantined(application) {
            self.resting.remove(&name);
            return;
        }
        if self.steps.is_busy(application, resource) {
            return;
        }
        let resting = self.resting.entry(name.clone()).or_default();
        if std::mem::replace(&mut resting.running, true) {
            return;
        }
        let (driver, events) = (driver.clone(), self.events.clone());
        tokio::spawn(async move {
            let outcome = driver.deactivate().await;
            let _ = events.send(Event::Rested(name.0, name.1, outcome));
        });
    }

    /// Said when something was done, and once for each kind of failure.
    pub(super) fn rested(&mut self, application: ApplicationId, resource: ResourceId, outcome: DriverResult) {
        let Some(resting) = self.resting.get_mut(&(application.clone(), resource.clone())) else { return };
        resting.running = false;
        match outcome {
            Ok(done) => {
                resting.failed = None;
                if !done.already {
                    tracing::warn!(%application, %resource, "brought to rest: this cluster is quarantined");
                }
            }
            Err(error) => {
                if resting.failed.replace(error.code) != Some(error.code) {
                    tracing::error!(
                        %application, %resource, code = error.code, %error,
                        "not brought to rest, though this cluster is quarantined; it is tried again"
                    );
                }
            }
        }
    }

    /// By the newest stored terms: this side was left, and has not been readmitted.
    fn is_quarantined(&self, application: &ApplicationId) -> bool {
        let terms = self.leases.get(application).and_then(|lease| lease.terms());
        terms.and_then(|terms| terms.clusters.get(&self.settings.cluster)).is_some_and(|listed| listed.excluded)
    }
}
