//! What is found of one database in one cluster.

use super::{Looking, Place, place};
use crate::application::ResourceKind;
use crate::facts::{PostgresFacts, RedisFacts, SlotFacts};
use crate::id::{ClusterId, ResourceId};
use crate::preflight::Severity;

/// A slot that nobody reads may hold back so much WAL unnoticed.
const SLOT_HOLDS: u64 = 1 << 30;

impl Looking<'_> {
    pub(super) fn of_resource(&mut self, cluster: &ClusterId, resource: &ResourceId) {
        let here = place(cluster, resource);
        let Some(facts) = self.facts(cluster, resource) else {
            let detail = "its agent has told nothing of its settings within three minutes";
            return self.add(here, Severity::Info, "facts-missing", detail);
        };
        let kind = self.document().resources.get(resource).map(|spec| spec.kind);
        let looked_at = match kind {
            Some(ResourceKind::Postgres) => facts.postgres.is_some(),
            Some(ResourceKind::Redis) => facts.redis.is_some(),
            Some(ResourceKind::Command | ResourceKind::Kubernetes | ResourceKind::Dns | ResourceKind::Http) | None => {
                true
            }
        };
        if !looked_at {
            let why = if facts.problem.is_empty() { "it does not say why" } else { &facts.problem };
            let detail = format!("its agent could not look at its settings: {why}");
            self.add(here.clone(), Severity::Warning, "facts-missing", detail);
        }
        for (other, answer) in &facts.reaches {
            if let Err(why) = answer {
                let detail = format!("{other} does not answer it as a rejoin would need: {why}");
                self.add(here.clone(), Severity::Warning, "rejoin-unreachable", detail);
            }
        }
        if let Some(postgres) = &facts.postgres {
            self.of_postgres(&here, postgres);
        }
        if let Some(redis) = &facts.redis {
            self.of_redis(&here, redis);
        }
        if let Some(backup) = &facts.backup {
            self.of_backup(&here, backup);
        }
    }

    fn of_redis(&mut self, here: &Place, facts: &RedisFacts) {
        if facts.settings.get("appendonly").is_some_and(|kept| kept == "no") {
            let detail = "appendonly is no: after a crash it has less than before, so it is not opened again, and its \
                          replica has to take over";
            self.add(here.clone(), Severity::Warning, "not-persistent", detail);
        }
    }

    fn of_postgres(&mut self, here: &Place, facts: &PostgresFacts) {
        if facts.wal_level == "minimal" {
            let detail = "wal_level is minimal: no standby can follow it";
            self.add(here.clone(), Severity::Warning, "wal-level", detail);
        }
        if facts.max_wal_senders <= facts.wal_senders.saturating_add(1) {
            let detail = format!(
                "max_wal_senders is {}, and {} stream: a further standby or a copy finds no room",
                facts.max_wal_senders, facts.wal_senders
            );
            self.add(here.clone(), Severity::Warning, "wal-senders", detail);
        }
        if facts.wal_keep_bytes == 0 && facts.slots.is_empty() {
            let detail =
                "wal_keep_size is 0 and there is no slot: a standby that was away for a while may need a fresh copy";
            self.add(here.clone(), Severity::Warning, "wal-not-kept", detail);
        }
        if !facts.rewindable {
            let detail =
                "neither wal_log_hints nor checksums are on: after a failover it can only come back by a fresh copy";
            self.add(here.clone(), Severity::Warning, "not-rewindable", detail);
        }
        if !facts.hot_standby {
            let detail = "hot_standby is off: as a standby it answers nobody, so it could not be promoted";
            self.add(here.clone(), Severity::Warning, "hot-standby-off", detail);
        }
        for slot in &facts.slots {
            self.of_slot(here, slot);
        }
        self.of_wal(here, facts);
        let primary = here.cluster.is_some() && here.cluster == self.known.primary;
        if primary && !facts.synchronous {
            let detail = "replication is asynchronous: in a failover the last writes may be lost";
            self.add(here.clone(), Severity::Info, "asynchronous", detail);
        }
    }

    fn of_slot(&mut self, here: &Place, slot: &SlotFacts) {
        let name = &slot.name;
        if slot.lost {
            let detail =
                format!("the WAL that the slot {name} needs is gone: whoever reads from it needs a fresh copy");
            self.add(here.clone(), Severity::Warning, "slot-lost", detail);
        } else if !slot.active
            && let Some(held) = slot.retained_bytes.filter(|held| *held >= SLOT_HOLDS)
        {
            let detail = format!("nobody reads from the slot {name}, and it holds back {} MiB of WAL", held >> 20);
            self.add(here.clone(), Severity::Warning, "slot-idle", detail);
        }
    }
}
