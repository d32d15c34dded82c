//! Looks at every resource, each in its own task, never overlapping; the results go to the agent, dated.

use std::sync::Arc;
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;
use tokio::sync::Notify;

use crate::driver::{Driver, Health, Probe, Role};
use crate::guard::clock::Clock;
use crate::lease::Reading;

/// A driver's probe ends itself; one that does not is given up after so long.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// A probe and when it was made.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Which application.
    pub application: ApplicationId,
    /// Which resource.
    pub resource: ResourceId,
    /// When it began: nothing in it is older.
    pub at: Reading,
    /// What was seen.
    pub probe: Probe,
    /// Failed probes in a row.
    pub failures: u32,
    /// Between two probes.
    pub interval: Span,
}

impl Sight {
    /// Older than three of its intervals it says nothing.
    #[must_use]
    pub fn is_fresh(&self, now: Reading) -> bool {
        now.held_since(self.at) <= self.interval.times(3)
    }

    /// On the wire, with its age.
    #[must_use]
    pub fn report(&self, now: Reading) -> wire::ResourceReport {
        let probe = &self.probe;
        let age = now.held_since(self.at);
        let since = |duration: Duration| millis(duration).saturating_add(age.millis());
        wire::ResourceReport {
            application: self.application.to_string(),
            resource: self.resource.to_string(),
            age_ms: age.millis(),
            health: match probe.health {
                Health::Healthy => wire::Health::Healthy,
                Health::Failed => wire::Health::Failed,
                Health::Unknown => wire::Health::Unknown,
            }
            .into(),
            role: match probe.role {
                Role::Primary => wire::Role::Primary,
                Role::Standby => wire::Role::Standby,
                Role::None => wire::Role::None,
                Role::Unknown => wire::Role::Unspecified,
            }
            .into(),
            writable: probe.writable,
            system_id: probe.system_id.clone(),
            timeline: probe.timeline,
            position: probe.position,
            upstream: probe.upstream.as_ref().map(|upstream| wire::Upstream {
                connected: upstream.connected,
                last_heard_ms: upstream.last_heard.map(since),
                lag_bytes: upstream.lag_bytes,
                lag_ms: upstream.lag.map(millis),
                cluster: upstream.cluster.clone().unwrap_or_default(),
            }),
            detail: probe.detail.clone(),
            failures: self.failures,
            interval_ms: self.interval.millis(),
            position_text: probe.position_text.clone(),
            previous_id: probe.previous.as_ref().map(|(id, _)| id.clone()).unwrap_or_default(),
            previous_until: probe.previous.as_ref().map_or(0, |(_, until)| *until),
        }
    }
}

/// What is probed, and when.
pub struct Probing {
    /// Looks.
    pub driver: Arc<dyn Driver>,
    /// Between two looks.
    pub interval: Duration,
    /// Asks for a look before its time.
    pub at_once: Arc<Notify>,
    /// Dates what was seen.
    pub clock: Arc<dyn Clock>,
}

/// Probes until `take` says that nobody listens any more.
pub async fn repeat(application: ApplicationId, resource: ResourceId, probing: Probing, take: impl Fn(Sight) -> bool) {
    let Probing { driver, interval, at_once, clock } = probing;
    let mut failures: u32 = 0;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            () = at_once.notified() => {}
        }
        let begun = clock.reading();
        let probe = tokio::time::timeout(GIVEN_UP.max(interval), driver.probe()).await;
        let probe = probe.unwrap_or_else(|_| Probe::without_answer(Health::Unknown, "the probe did not end"));
        let ended = clock.reading();
        // Life is as old as the look for it; that none was found is known since the look was given up. A look that took
        // longer than the interval is the interval: the next result will not come sooner.
        let at = if probe.health == Health::Healthy { begun } else { ended };
        failures = match probe.health {
            Health::Failed => failures.saturating_add(1),
            Health::Healthy => 0,
            // It could not be told: neither does it go on failing nor has it recovered.
            Health::Unknown => failures,
        };
        let span = Span::from_millis(millis(interval)).max(ended.held_since(begun));
        let (application, resource) = (application.clone(), resource.clone());
        if !take(Sight { application, resource, at, probe, failures, interval: span }) {
            return;
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
