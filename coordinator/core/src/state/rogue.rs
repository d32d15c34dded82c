//! Databases that accepted writes beside the primary.

use std::collections::BTreeSet;

use super::Applied;
use super::apply::{Applying, ignored};
use super::register::renew_terms;
use crate::id::{ApplicationId, ClusterId, ResourceId};

/// Said once for each change. What accepted writes beside the primary has a history of its own from then on, whatever it
/// says of itself later: its side is no candidate until it has rejoined.
pub(super) fn rogue_writers(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    cluster: &ClusterId,
    resources: &BTreeSet<ResourceId>,
) -> Applied {
    let Some(known) = applying.state.applications.get_mut(application) else { return ignored("unknown application") };
    if known.rogues.get(cluster).map_or(resources.is_empty(), |before| before == resources) {
        return ignored("told before");
    }
    let names: Vec<&str> = resources.iter().map(ResourceId::as_str).collect();
    let event = if resources.is_empty() {
        known.rogues.remove(cluster);
        "rogue-writer-ended"
    } else {
        known.rogues.insert(cluster.clone(), resources.clone());
        if known.primary.as_ref().is_some_and(|primary| primary != cluster) && !known.excluded.contains_key(cluster) {
            let why = format!("{} accepted writes beside the primary; quarantined until it rejoins", names.join(", "));
            known.excluded.insert(cluster.clone(), why);
            renew_terms(applying, application);
        }
        "rogue-writer"
    };
    let detail = format!("{} in {cluster}", if names.is_empty() { "none".to_owned() } else { names.join(", ") });
    applying.audit(event, Some(application), None, &format!("agent {cluster}"), detail);
    applying.done()
}
