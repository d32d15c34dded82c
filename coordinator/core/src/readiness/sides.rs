//! What differs between the primary's side and the others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Looking, Place, place};
use crate::facts::{PostgresFacts, RedisFacts};
use crate::id::{ClusterId, ResourceId};
use crate::preflight::Severity;

/// The one difference between the sides that blocks; each place tells of its own.
pub(super) const VERSIONS_DIFFER: &str = "versions-differ";

impl Looking<'_> {
    /// What differs between the primary's side and the others.
    pub(super) fn of_sides(&mut self, resource: &ResourceId) {
        let Some(primary) = self.known.primary.clone() else { return };
        let Some(ours) = self.facts(&primary, resource) else { return };
        for cluster in self.document().clusters.iter().filter(|cluster| **cluster != primary) {
            let Some(theirs) = self.facts(cluster, resource) else { continue };
            let here = place(cluster, resource);
            if let (Some(ours), Some(theirs)) = (&ours.postgres, &theirs.postgres) {
                self.of_postgres_sides(&here, &primary, ours, theirs);
            }
            if let (Some(ours), Some(theirs)) = (&ours.redis, &theirs.redis) {
                self.of_redis_sides(&here, &primary, ours, theirs);
            }
        }
    }

    fn of_postgres_sides(&mut self, here: &Place, primary: &ClusterId, ours: &PostgresFacts, theirs: &PostgresFacts) {
        let (one, other) = (ours.version, theirs.version);
        if one / 10_000 != other / 10_000 {
            let detail = format!(
                "PostgreSQL {} here, {} in {primary}: one cannot follow the other",
                other / 10_000,
                one / 10_000
            );
            self.add(here.clone(), Severity::Blocker, VERSIONS_DIFFER, detail);
        } else if one != other {
            let detail = format!("PostgreSQL {other} here, {one} in {primary}");
            self.add(here.clone(), Severity::Warning, "versions-differ", detail);
        }
        if ours.synchronous && !theirs.synchronous {
            let detail = format!(
                "commits wait for a standby in {primary}, and would not here: after a move a failover may lose the last writes"
            );
            self.add(here.clone(), Severity::Warning, "synchronous-differs", detail);
        } else if theirs.synchronous && !ours.synchronous {
            let detail = format!(
                "commits would wait for a standby here, and do not in {primary}: after a move writes stand until one follows"
            );
            self.add(here.clone(), Severity::Warning, "synchronous-differs", detail);
        }
        self.of_settings(here, primary, &ours.settings, &theirs.settings);
    }

    fn of_redis_sides(&mut self, here: &Place, primary: &ClusterId, ours: &RedisFacts, theirs: &RedisFacts) {
        if ours.version != theirs.version {
            let detail = format!("Redis {} here, {} in {primary}", theirs.version, ours.version);
            self.add(here.clone(), Severity::Warning, VERSIONS_DIFFER, detail);
        }
        self.of_settings(here, primary, &ours.settings, &theirs.settings);
    }

    fn of_settings(
        &mut self,
        here: &Place,
        primary: &ClusterId,
        ours: &BTreeMap<String, String>,
        theirs: &BTreeMap<String, String>,
    ) {
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let shown =
            |value: Option<&String>| value.filter(|text| !text.is_empty()).map_or("nothing", String::as_str).to_owned();
        let differ = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
        let differ: Vec<String> = differ
            .map(|name| format!("{name} is {} here and {} there", shown(theirs.get(name)), shown(ours.get(name))))
            .collect();
        if !differ.is_empty() {
            let detail = format!("other settings than in {primary}: {}", differ.join("; "));
            self.add(here.clone(), Severity::Warning, "settings-differ", detail);
        }
    }
}
