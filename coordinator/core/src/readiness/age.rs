//! How old the word is that a note rests on: what agents tell is of some moment, and a note may have been overtaken.

use super::Place;
use crate::decide::Viewpoint;
use crate::evidence::Evidence;
use crate::id::{ApplicationId, ClusterId, ResourceId};
use crate::state::State;
use crate::time::{Moment, Span};

/// What a note was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// The document, and what the group has agreed on.
    Agreed,
    /// A look at what changes seldom.
    Look,
    /// The same at both sides.
    Looks,
    /// A probe.
    Probe,
    /// The agent's word on its machine.
    Machine,
    /// The agent's last heartbeat.
    Beat,
}

/// How old the oldest word of an agent is that a note rests on; none if there is no such word, or it rests on the document
/// and on what the group has agreed on.
#[must_use]
pub fn age(
    state: &State,
    evidence: &Evidence,
    view: Viewpoint,
    application: &ApplicationId,
    place: &Place,
    code: &str,
) -> Option<Span> {
    let cluster = place.cluster.as_ref()?;
    let contact = evidence.contacts.get(cluster);
    let look = |cluster: &ClusterId| looked(evidence, application, cluster, place.resource.as_ref()?);
    let at = match basis(place, code) {
        Basis::Agreed => None,
        Basis::Look => look(cluster),
        Basis::Looks => {
            let primary = state.applications.get(application)?.primary.as_ref()?;
            look(cluster).zip(look(primary)).map(|(one, other)| one.min(other))
        }
        Basis::Probe => evidence.sighting(cluster, application, place.resource.as_ref()?).map(|seen| seen.at),
        Basis::Machine => contact.and_then(|contact| contact.node).map(|node| node.at),
        Basis::Beat => evidence.last_beat(cluster),
    }?;
    Some(view.now.since(at))
}

fn looked(
    evidence: &Evidence,
    application: &ApplicationId,
    cluster: &ClusterId,
    resource: &ResourceId,
) -> Option<Moment> {
    Some(evidence.contacts.get(cluster)?.facts.get(application)?.get(resource)?.at)
}

fn basis(place: &Place, code: &str) -> Basis {
    match (&place.cluster, &place.resource) {
        (None, _) => Basis::Agreed,
        (Some(_), None) => match code {
            "certificate-expires" | "clocks-apart" => Basis::Machine,
            "drill-old" => Basis::Agreed,
            _ => Basis::Beat,
        },
        (Some(_), Some(_)) => match code {
            "lag-near-limit" | "lag-grows" | "not-probed" | "stale" | "driver-unknown" | "probe-failed" => Basis::Probe,
            "versions-differ" | "settings-differ" | "synchronous-differs" => Basis::Looks,
            "restore-old" | "resource-missing" | "dns-would-be-empty" => Basis::Agreed,
            _ => Basis::Look,
        },
    }
}
