//! What the leader of a rehearsal sees: who is there says how its databases stand, just now.

use std::collections::BTreeMap;

use anyhow::Result;
use regent_core::evidence::{
    Beat, Contact, Evidence, FenceState, Health, LastPosition, LeaseState, Role, Sighting, Track, UpstreamSight,
};
use regent_core::id::{ClusterId, CoordinatorId, Epoch, ResourceId, SystemId};
use regent_core::state::ApplicationState;
use regent_core::time::{Moment, Span};

use super::Play;
use crate::rehearsal::{Effects, Kind, scene};

/// Where all databases stand all the time.
const POSITION: u64 = 1_000;

impl Play {
    /// Everything.
    pub(super) fn evidence(&self) -> Result<Evidence> {
        let (now, known) = (self.now()?, self.known()?);
        let seen = self.stage.effects.seen_but_for(None);
        let contact = |cluster: &ClusterId| {
            let resources = known.document.resources.iter();
            let sightings = resources.map(|(name, resource)| {
                let guarded = resource.kind.is_guarded();
                (name.clone(), self.sighting(known, &seen, cluster, name, guarded, now))
            });
            let beat = self.beat(known, &seen, cluster);
            Contact {
                last_beat: Some(now),
                two_way: Some(now),
                reported: Some(now),
                beats: BTreeMap::from([(scene::application(), beat)]),
                resources: BTreeMap::from([(scene::application(), sightings.collect())]),
                ..Contact::default()
            }
        };
        let contacts = self.stage.agents.iter().map(|agent| (agent.cluster.clone(), contact(&agent.cluster)));
        Ok(Evidence {
            contacts: contacts.collect(),
            voters_heard: (1..=3).map(|id| (CoordinatorId(id), now)).collect(),
            leading_since: Some(Moment(0)),
            led_since: Some(Moment(0)),
            ..Evidence::default()
        })
    }

    fn beat(&self, known: &ApplicationState, seen: &Effects, cluster: &ClusterId) -> Beat {
        let primary = known.primary.as_ref() == Some(cluster);
        // The agent that the failover is for has fenced itself, until it is told to.
        let told = seen.keys().any(|what| what.ends_with(" was fenced"));
        let ails = primary && self.stage.kind == Kind::Failover && known.epoch == Epoch(1) && !told;
        let fenced = seen.keys().any(|what| what.ends_with(&format!(" in {cluster} is Fenced")));
        Beat {
            epoch: known.epoch,
            lease: match (primary, ails) {
                (true, true) => LeaseState::Lacked,
                (true, false) => LeaseState::Held,
                (false, _) => LeaseState::None,
            },
            fence: match (ails, fenced) {
                (true, _) => FenceState::SelfFenced,
                (false, true) => FenceState::Commanded,
                (false, false) => FenceState::Open,
            },
            guarded: true,
            guard_alive: true,
            self_fenced_since: ails.then_some(Moment(0)),
            lacking_since: ails.then_some(Moment(0)),
            ..Beat::default()
        }
    }

    fn sighting(
        &self,
        known: &ApplicationState,
        seen: &Effects,
        cluster: &ClusterId,
        name: &ResourceId,
        guarded: bool,
        at: Moment,
    ) -> Sighting {
        let is = |condition: &str| seen.contains_key(&format!("{name} in {cluster} is {condition}"));
        let role = match (guarded, is("Primary") || is("Fenced")) {
            (true, true) => Role::Primary,
            (true, false) => Role::Standby,
            (false, _) => Role::None,
        };
        let position = guarded.then_some(POSITION);
        let upstream = self.stage.agents.iter().any(|agent| known.primary.as_ref() == Some(&agent.cluster));
        Sighting {
            at,
            interval: Span::from_secs(1),
            health: Health::Healthy,
            failures: 0,
            role,
            writable: is("Primary"),
            system_id: SystemId(String::new()),
            previous: None,
            timeline: 0,
            position,
            position_text: String::new(),
            advanced: None,
            upstream: (role == Role::Standby).then_some(UpstreamSight {
                connected: upstream,
                last_heard: None,
                lag_bytes: Some(0),
                lag: Some(Span::ZERO),
                cluster: None,
            }),
            ailing_since: None,
            closed_since: None,
            unlinked_since: None,
            track: Track::default(),
            last_position: position.map(|position| LastPosition { at, position, text: String::new() }),
            detail: String::new(),
        }
    }
}
