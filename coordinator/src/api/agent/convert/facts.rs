//! What agents find that changes seldom.

use std::collections::{BTreeMap, HashMap};

use regent_core::facts::{
    AuthorityFacts, BackupFacts, DnsFacts, Facts, Findings, Listed, NewestBackup, NodeFacts, PostgresFacts, RedisFacts,
    ResolverFacts, SlotFacts, SlotLimit,
};
use regent_core::id::ClusterId;
use regent_core::time::{Moment, Span, Timestamp};
use regent_proto::agent::v1 as wire;

use crate::api::agent::text::{LIST_LIMIT, TEXT_LIMIT, cut, cut_all};

/// Of one resource, from a message that was sent at `sent`.
pub(super) fn of_resource(found: &wire::ResourceFacts, sent: Moment) -> Facts {
    let reaches = found.reaches.iter().take(LIST_LIMIT).filter_map(|reach| {
        let answer = if reach.answers { Ok(()) } else { Err(cut(&reach.detail)) };
        Some((ClusterId::new(&reach.cluster).ok()?, answer))
    });
    Facts {
        at: sent.before(Span::from_millis(found.age_ms)),
        interval: Span::from_millis(found.interval_ms.max(1)),
        postgres: found.postgres.as_ref().map(postgres),
        redis: found
            .redis
            .as_ref()
            .map(|redis| RedisFacts { version: cut(&redis.version), settings: settings(&redis.settings) }),
        backup: found.backup.as_ref().map(backup),
        reaches: reaches.collect(),
        problem: cut(&found.problem),
        findings: findings(found),
    }
}

/// Of the agent's machine, heard at this moment and this time.
#[must_use]
pub fn of_node(found: &wire::NodeFacts, now: Moment, wall: Timestamp) -> NodeFacts {
    NodeFacts {
        at: now,
        ahead_ms: found.wall_ms.saturating_sub(wall.0),
        certificate_until: found.certificate_until_ms.map(Timestamp),
    }
}

fn findings(found: &wire::ResourceFacts) -> Findings {
    Findings {
        lacks: cut_all(&found.lacks),
        dns: found.dns.as_ref().map(dns),
        short: cut_all(&found.short),
        managed: cut_all(&found.managed),
        listed: found.listed.as_ref().and_then(listed),
        rights_unknown: cut(&found.rights_unknown),
        capacity_unknown: cut(&found.capacity_unknown),
    }
}

/// All or nothing: a name that was left out would seem not to be listed.
fn listed(found: &wire::Listed) -> Option<Listed> {
    let fits = |names: &[String]| names.len() <= LIST_LIMIT && names.iter().all(|name| name.len() <= TEXT_LIMIT);
    let names = |names: &[String]| names.iter().cloned().collect();
    let whole = fits(&found.actions) && fits(&found.commands);
    whole.then(|| Listed { actions: names(&found.actions), commands: names(&found.commands) })
}

/// In the order of their names: whichever are left out, they are the same each time.
fn settings(found: &HashMap<String, String>) -> BTreeMap<String, String> {
    let all: BTreeMap<&String, &String> = found.iter().collect();
    all.into_iter().take(LIST_LIMIT).map(|(name, value)| (cut(name), cut(value))).collect()
}

fn dns(found: &wire::DnsFacts) -> DnsFacts {
    let authorities = found.authorities.iter().take(LIST_LIMIT).map(|one| AuthorityFacts {
        server: cut(&one.server),
        problem: cut(&one.problem),
        authoritative: one.authoritative,
        ttl: one.ttl.map(|seconds| Span::from_secs(seconds.into())),
        serial: one.serial,
        name_servers: cut_all(&one.name_servers),
    });
    let resolvers = found.resolvers.iter().take(LIST_LIMIT).map(|one| ResolverFacts {
        server: cut(&one.server),
        problem: cut(&one.problem),
        name_servers: cut_all(&one.name_servers),
    });
    DnsFacts {
        zone: cut(&found.zone),
        authorities: authorities.collect(),
        resolvers: resolvers.collect(),
        update: cut(&found.update),
    }
}

fn postgres(found: &wire::PostgresFacts) -> PostgresFacts {
    let slots = found.slots.iter().take(LIST_LIMIT).map(|slot| SlotFacts {
        name: cut(&slot.name),
        active: slot.active,
        retained_bytes: slot.retained_bytes,
        lost: slot.lost,
    });
    PostgresFacts {
        version: found.version,
        wal_level: cut(&found.wal_level),
        max_wal_senders: found.max_wal_senders,
        wal_senders: found.wal_senders,
        wal_keep_bytes: found.wal_keep_bytes,
        rewindable: found.rewindable,
        hot_standby: found.hot_standby,
        synchronous: found.synchronous,
        slots: slots.collect(),
        slot_limit: found
            .slot_limit_bytes
            .map_or(SlotLimit::Unknown, |bytes| u64::try_from(bytes).map_or(SlotLimit::Unlimited, SlotLimit::Bytes)),
        max_wal_bytes: found.max_wal_bytes,
        archive_fails: cut(&found.archive_fails),
        settings: settings(&found.settings),
        grace: found.grace_ms.map(Span::from_millis),
    }
}

fn backup(found: &wire::BackupFacts) -> BackupFacts {
    let word = found.whole.map(|whole| if whole { Ok(()) } else { Err(cut(&found.problem)) });
    let newest = found.newest_age_ms.map(|age| NewestBackup {
        name: cut(&found.newest),
        age: Span::from_millis(age),
        bytes: found.newest_bytes,
        whole: word,
    });
    let problem = if newest.is_none() { cut(&found.problem) } else { String::new() };
    BackupFacts { newest, max_age: Span::from_millis(found.max_age_ms), median_bytes: found.median_bytes, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_slots_below_zero_is_none_and_an_absent_one_unknown() {
        let of = |slot_limit_bytes| {
            postgres(&wire::PostgresFacts { slot_limit_bytes, ..wire::PostgresFacts::default() }).slot_limit
        };
        let wanted = (SlotLimit::Unknown, SlotLimit::Unlimited, SlotLimit::Bytes(5));
        assert_eq!((of(None), of(Some(-1)), of(Some(5))), wanted);
    }
}
