//! Keeps services at rest while this cluster is quarantined.
//!
//! A Deployment comes up with its machines, by what its own API server and its own Argo CD remember: from before the
//! region was lost. Nobody dispatches a step to a side that was left, so its agent sees to it by the terms it has stored,
//! as it fences a database by them; in a pause they are left. It opens nothing, and is broken off when the cluster is
//! readmitted or a step activates the service: what rests then goes on resting, until a run activates it.

use std::collections::BTreeMap;

use regent_core::id::{ApplicationId, ResourceId};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::agent::{Agent, Event};
use crate::driver::DriverResult;
use crate::steps::order::{Action, Order};

/// One service.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// It is being brought to rest, until this is dropped.
    running: Option<DropGuard>,
    /// The code of the failure that was said last.
    failed: Option<&'static str>,
}

/// By application and resource.
pub(super) type Services = BTreeMap<(ApplicationId, ResourceId), Resting>;

/// A step that starts the service comes from whoever knows more: nothing goes on beside it that stops it.
pub(super) fn break_off(services: &mut Services, order: &Order) {
    if order.action == Action::Activate {
        let concerns = |resource: &ResourceId| order.resource.as_ref().is_none_or(|one| one == resource);
        services.retain(|(application, resource), _| *application != order.application || !concerns(resource));
    }
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
        if self.steps.is_busy(application, resource) || self.steps.is_closing_again(application, resource) {
            return;
        }
        let resting = self.resting.entry(name.clone()).or_default();
        if resting.running.is_some() {
            return;
        }
        let stop = CancellationToken::new();
        resting.running = Some(stop.clone().drop_guard());
        let (driver, events) = (driver.clone(), self.events.clone());
        // What opens the resource waits for the end of this.
        let ended = self.steps.closing_again(application, resource);
        tokio::spawn(async move {
            let _ended = ended;
            if let Some(outcome) = stop.run_until_cancelled(driver.deactivate()).await {
                let _ = events.send(Event::Rested(name.0, name.1, outcome));
            }
        });
    }

    /// Said when something was done, and once for each kind of failure.
    pub(super) fn rested(&mut self, application: ApplicationId, resource: ResourceId, outcome: DriverResult) {
        let Some(resting) = self.resting.get_mut(&(application.clone(), resource.clone())) else { return };
        resting.running = None;
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

    /// By the newest stored terms: this side was left, and has not been readmitted. In a pause nothing is stopped.
    fn is_quarantined(&self, application: &ApplicationId) -> bool {
        let Some(terms) = self.leases.get(application).and_then(|lease| lease.terms()) else { return false };
        let excluded = terms.clusters.get(&self.settings.cluster).is_some_and(|listed| listed.excluded);
        excluded && terms.primary != self.settings.cluster && !terms.paused
    }
}
