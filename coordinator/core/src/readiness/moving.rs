//! Whether a switchover would start, and how far the standbys are behind.

use std::collections::BTreeSet;

use super::sides::VERSIONS_DIFFER;
use super::{Looking, Place, place};
use crate::plan::SWITCHOVER;
use crate::preflight::Severity;
use crate::switchover::{self, NO_TARGET, Purpose};
use crate::verdict::Scene;

impl Looking<'_> {
    /// How far the standbys are behind.
    pub(super) fn of_lag(&mut self, scene: &Scene<'_>) {
        let limit = self.document().automation.max_data_loss;
        for cluster in scene.others() {
            for resource in self.document().guarded() {
                let seen = self.evidence.sighting(cluster, self.application, &resource);
                let lag = seen.and_then(|seen| seen.upstream.as_ref()).and_then(|upstream| upstream.lag);
                if let Some(lag) = lag.filter(|lag| *lag > limit.divided(2)) {
                    let detail = format!("{resource} is {lag} behind; maxDataLoss is {limit}");
                    self.add(place(cluster, &resource), Severity::Warning, "lag-near-limit", detail);
                }
            }
        }
    }

    /// What would refuse a switchover, and how far the standbys are behind.
    pub(super) fn of_moving(&mut self) {
        let (state, evidence, view) = (self.state, self.evidence, self.view);
        let Some(scene) = Scene::new(state, evidence, view.now, view.me, self.application) else {
            return self.add(Place::default(), Severity::Blocker, "not-adopted", "no primary is known yet");
        };
        self.of_lag(&scene);
        if !self.document().runbooks.contains_key(SWITCHOVER) {
            let detail = "the document has no runbook for a switchover: it can only fail over";
            return self.add(Place::default(), Severity::Info, "no-switchover-runbook", detail);
        }
        let (_, refusals) = switchover::look(&scene, Purpose::Switchover, None);
        let of_all: BTreeSet<String> = refusals.iter().map(|rule| rule.code.clone()).collect();
        // Another one that could not take over is no obstacle as long as there is one that can.
        let severity = if of_all.contains(NO_TARGET) { Severity::Blocker } else { Severity::Warning };
        let mut told = BTreeSet::from([VERSIONS_DIFFER.to_owned()]);
        for cluster in scene.others() {
            let (_, refusals) = switchover::look(&scene, Purpose::Switchover, Some(cluster));
            for rule in refusals.into_iter().filter(|rule| !of_all.contains(&rule.code) && rule.code != VERSIONS_DIFFER)
            {
                let here = Place { cluster: Some(cluster.clone()), resource: None };
                self.add(here, severity, &rule.code, rule.detail);
                // Why each of them cannot says more than that none can.
                told.insert(NO_TARGET.to_owned());
            }
        }
        for rule in refusals.into_iter().filter(|rule| !told.contains(&rule.code)) {
            self.add(Place::default(), Severity::Blocker, &rule.code, rule.detail);
        }
    }
}
