//! Rogue writers as the coordinators know them: told by the agent that found and fenced them, committed once for each
//! change, so that the audit has them, every coordinator shows them, and none takes one for a standby again: its side is
//! quarantined. Nothing is fenced or moved for it.

use std::collections::BTreeSet;

use crate::entry::Entry;
use crate::id::ResourceId;
use crate::verdict::Scene;

/// What differs from what was committed last.
pub(crate) fn propose(scene: &Scene<'_>) -> Vec<Entry> {
    let recent = scene.interval().times(3);
    let heard = |cluster| scene.evidence.last_beat(cluster).is_some_and(|at| scene.now.since(at) <= recent);
    let told = scene.others().filter(|cluster| heard(cluster)).filter_map(|cluster| {
        let now = &scene.evidence.beat(cluster, scene.application)?.rogues;
        let known: Option<&BTreeSet<ResourceId>> = scene.known.rogues.get(cluster);
        (known.map_or(!now.is_empty(), |known| known != now)).then(|| Entry::RogueWriters {
            application: scene.application.clone(),
            cluster: cluster.clone(),
            resources: now.clone(),
        })
    });
    told.collect()
}
