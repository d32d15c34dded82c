//! What is no database: services, names and checks. All of them are probed, nothing is decided on them, and on the day of a
//! move each is needed.

use super::{Looking, place};
use crate::application::ResourceKind;
use crate::evidence::{Health, Sighting};
use crate::facts::NO_STATUS_COMMAND;
use crate::id::{ClusterId, ResourceId};
use crate::preflight::Severity;

impl Looking<'_> {
    pub(super) fn of_services(&mut self, cluster: &ClusterId) {
        for (resource, spec) in &self.document().resources {
            if !spec.kind.is_guarded() {
                self.of_service(cluster, resource, spec.kind);
            }
        }
    }

    fn of_service(&mut self, cluster: &ClusterId, resource: &ResourceId, kind: ResourceKind) {
        let here = place(cluster, resource);
        let Some(seen) = self.evidence.sighting(cluster, self.application, resource) else {
            return self.add(here, Severity::Warning, "not-probed", "it has not been reported");
        };
        if !seen.is_fresh(self.view.now) {
            return self.add(here, Severity::Warning, "stale", "the last report on it is older than three probes");
        }
        let (said, primary) = (said(seen), self.known.primary.as_ref() == Some(cluster));
        match seen.health {
            Health::Healthy => {}
            // Whoever lists no status command has chosen that.
            Health::Unknown if kind == ResourceKind::Command && seen.detail == NO_STATUS_COMMAND => {
                self.add(here, Severity::Info, "driver-unknown", said);
            }
            // Where it rests, whatever stands before it may let the question run into nothing.
            Health::Unknown if kind == ResourceKind::Http && !serves_here(kind, primary) => {
                self.add(here, Severity::Info, "driver-unknown", said);
            }
            Health::Unknown => self.add(here, Severity::Warning, "driver-unknown", said),
            Health::Failed if serves_here(kind, primary) => {
                self.add(here, Severity::Warning, "probe-failed", said);
            }
            Health::Failed => {}
        }
    }
}

fn said(seen: &Sighting) -> String {
    if seen.detail.is_empty() { "its probe gave no reason".to_owned() } else { seen.detail.clone() }
}

/// A name is answered everywhere; a service runs, and is asked for, where the primary is.
const fn serves_here(kind: ResourceKind, primary: bool) -> bool {
    match kind {
        ResourceKind::Dns => true,
        ResourceKind::Command | ResourceKind::Kubernetes | ResourceKind::Http => primary,
        // Told by what is known of databases.
        ResourceKind::Postgres | ResourceKind::Redis => false,
    }
}
