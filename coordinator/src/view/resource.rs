//! What is known of a resource in a cluster.

use regent_core::application::ResourceKind;
use regent_core::evidence::{self, Sighting};
use regent_core::id::{ApplicationId, ClusterId, ResourceId};
use serde::Serialize;

use super::words::{Health, Role};
use super::{Inputs, ms};

/// A resource in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceView {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub kind: &'static str,
    /// A database that is fenced and promoted.
    pub guarded: bool,
    /// Unknown if nothing was reported, or only long ago.
    pub health: Health,
    /// The last report is too old to say anything; what follows is what it said.
    pub stale: bool,
    /// Age of the last probe; none if there was none.
    pub age_ms: Option<u64>,
    /// Failed probes in a row.
    pub failures: u32,
    /// Role by its own word.
    pub role: Role,
    /// It accepts writes.
    pub writable: bool,
    /// Identity; empty if unknown.
    pub system_id: String,
    /// Timeline; 0 if unknown.
    pub timeline: u64,
    /// Position in bytes.
    pub position: Option<u64>,
    /// Position in the engine's own writing.
    pub position_text: String,
    /// How long the position has not advanced.
    pub advanced_age_ms: Option<u64>,
    /// Bytes behind its upstream, or else behind the primary's last known position.
    pub lag_bytes: Option<u64>,
    /// Time behind its upstream.
    pub lag_ms: Option<u64>,
    /// A standby's view of its upstream.
    pub upstream: Option<UpstreamView>,
    /// For humans.
    pub detail: String,
}

/// A standby's view of its upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamView {
    /// The link is established.
    pub connected: bool,
    /// When bytes or a keep-alive last came.
    pub last_heard_age_ms: Option<u64>,
    /// Bytes behind.
    pub lag_bytes: Option<u64>,
    /// Time behind.
    pub lag_ms: Option<u64>,
}

/// Of which resource, and where.
pub(super) struct Spot<'a> {
    pub application: &'a ApplicationId,
    pub cluster: &'a ClusterId,
    pub primary: Option<&'a ClusterId>,
    pub resource: &'a ResourceId,
    pub kind: ResourceKind,
}

impl ResourceView {
    pub(super) fn build(inputs: &Inputs<'_>, spot: &Spot<'_>) -> Self {
        let seen = inputs.evidence.sighting(spot.cluster, spot.application, spot.resource);
        let blank = Self {
            name: spot.resource.to_string(),
            kind: spot.kind.as_str(),
            guarded: spot.kind.is_guarded(),
            health: Health::Unknown,
            stale: false,
            age_ms: None,
            failures: 0,
            role: Role::Unknown,
            writable: false,
            system_id: String::new(),
            timeline: 0,
            position: None,
            position_text: String::new(),
            advanced_age_ms: None,
            lag_bytes: None,
            lag_ms: None,
            upstream: None,
            detail: String::new(),
        };
        let Some(seen) = seen else { return blank };
        let fresh = seen.is_fresh(inputs.now);
        let upstream = seen.upstream.as_ref().map(|upstream| UpstreamView {
            connected: upstream.connected,
            last_heard_age_ms: upstream.last_heard.map(|at| inputs.age_ms(at)),
            lag_bytes: upstream.lag_bytes,
            lag_ms: upstream.lag.map(ms),
        });
        Self {
            health: if fresh { seen.health.into() } else { Health::Unknown },
            stale: !fresh,
            age_ms: Some(inputs.age_ms(seen.at)),
            failures: seen.failures,
            role: seen.role.into(),
            writable: seen.writable,
            system_id: seen.system_id.to_string(),
            timeline: seen.timeline,
            position: seen.position,
            position_text: seen.position_text.clone(),
            advanced_age_ms: seen.advanced.map(|at| inputs.age_ms(at)),
            lag_bytes: if fresh { lag_bytes(inputs, spot, seen) } else { None },
            lag_ms: upstream.as_ref().filter(|_| fresh).and_then(|upstream| upstream.lag_ms),
            upstream,
            detail: seen.detail.clone(),
            ..blank
        }
    }
}

fn lag_bytes(inputs: &Inputs<'_>, spot: &Spot<'_>, seen: &Sighting) -> Option<u64> {
    if seen.role != evidence::Role::Standby {
        return None;
    }
    if let Some(lag) = seen.upstream.as_ref().and_then(|upstream| upstream.lag_bytes) {
        return Some(lag);
    }
    let primary = inputs.evidence.sighting(spot.primary?, spot.application, spot.resource)?;
    // Positions of different timelines or systems cannot be compared.
    let comparable = primary.timeline == seen.timeline && primary.system_id == seen.system_id;
    comparable.then(|| Some(primary.position?.saturating_sub(seen.position?))).flatten()
}
