//! How far the standbys are behind, and whether they fall behind more and more.

use super::{Looking, Place, place};
use crate::application::ResourceKind;
use crate::evidence::{Role, Sighting};
use crate::id::ResourceId;
use crate::preflight::Severity;
use crate::time::Span;
use crate::verdict::Scene;

/// By how much a lag has grown at least; and by a tenth of what is allowed.
const TREND_BY: Span = Span::from_secs(1);
/// Fewer bytes are what happens to be under way.
const LEAST: u64 = 16 << 10;

impl Looking<'_> {
    /// Of every standby.
    pub(super) fn of_lag(&mut self, scene: &Scene<'_>) {
        for cluster in scene.others() {
            for resource in self.document().guarded() {
                let seen = self.evidence.sighting(cluster, self.application, &resource);
                // An old one says nothing: that it is old is told with the cluster.
                let Some(seen) = seen.filter(|seen| seen.is_fresh(self.view.now)) else { continue };
                let here = place(cluster, &resource);
                self.of_time(&here, &resource, seen);
                let redis =
                    self.document().resources.get(&resource).is_some_and(|spec| spec.kind == ResourceKind::Redis);
                // A replica of Redis knows at most that it has applied all that it has read.
                let lag = seen.upstream.as_ref().and_then(|upstream| upstream.lag);
                if redis && lag.is_none_or(|lag| lag == Span::ZERO) {
                    self.of_bytes(&here, scene, &resource, seen);
                }
            }
        }
    }

    /// By the standby's own reckoning.
    fn of_time(&mut self, here: &Place, resource: &ResourceId, seen: &Sighting) {
        let limit = self.document().automation.max_data_loss;
        if let Some(growth) = seen.track.lag().growth() {
            let (from, to) = (Span::from_millis(growth.from), Span::from_millis(growth.to));
            if to.minus(from) >= self.worth_telling() {
                let within = growth.within;
                let detail = format!("its lag has grown from {from} to {to} within {within}; maxDataLoss is {limit}");
                self.add(here.clone(), Severity::Warning, "lag-grows", detail);
            }
        }
        let lag = seen.upstream.as_ref().and_then(|upstream| upstream.lag);
        if let Some(lag) = lag.filter(|lag| *lag > limit.divided(2)) {
            let detail = format!("{resource} is {lag} behind; maxDataLoss is {limit}");
            self.add(here.clone(), Severity::Warning, "lag-near-limit", detail);
        }
    }

    /// By positions, and by how fast the primary writes: so long it takes it to write what the standby lacks.
    fn of_bytes(&mut self, here: &Place, scene: &Scene<'_>, resource: &ResourceId, seen: &Sighting) {
        let limit = self.document().automation.max_data_loss;
        let led = self.evidence.sighting(scene.primary, self.application, resource);
        let led = led.filter(|led| led.is_fresh(self.view.now) && led.role == Role::Primary);
        let follows = seen.upstream.as_ref().is_some_and(|upstream| upstream.is_of(scene.primary));
        // Positions of different histories cannot be compared.
        let same = |led: &&Sighting| follows && led.system_id == seen.system_id && led.timeline == seen.timeline;
        let Some(led) = led.filter(same) else { return };
        let Some(pace) = led.track.pace() else { return };
        // What was written between two probes is not known to be lacking.
        let unseen = seen.interval.max(led.interval);
        let behind = seen.track.behind(&led.track);
        if let Some(growth) = behind.growth() {
            let by = growth.to.saturating_sub(growth.from);
            let time = pace.time_of(by).minus(unseen);
            if by >= LEAST && time >= self.worth_telling() {
                let (from, to, within) = (growth.from >> 10, growth.to >> 10, growth.within);
                let detail = format!(
                    "it has fallen from {from} to {to} KiB behind within {within}: what the primary writes in about {time}; \
                     its lag in time is not known, and maxDataLoss is {limit}"
                );
                self.add(here.clone(), Severity::Warning, "lag-grows", detail);
            }
        }
        let Some(bytes) = behind.now().filter(|bytes| *bytes >= LEAST) else { return };
        let time = pace.time_of(bytes).minus(unseen);
        if time > limit.divided(2) {
            let detail = format!(
                "{resource} is {} KiB behind, what the primary writes in about {time}; its lag in time is not known, and \
                 maxDataLoss is {limit}",
                bytes >> 10
            );
            self.add(here.clone(), Severity::Warning, "lag-near-limit", detail);
        }
    }

    /// By how much a lag must have grown.
    fn worth_telling(&self) -> Span {
        TREND_BY.max(self.document().automation.max_data_loss.divided(10))
    }
}
