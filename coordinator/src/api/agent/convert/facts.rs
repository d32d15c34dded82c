//! What agents find that changes seldom.

use regent_core::facts::{
    AuthorityFacts, BackupFacts, DnsFacts, Facts, Findings, NewestBackup, NodeFacts, PostgresFacts, RedisFacts,
    ResolverFacts, SlotFacts,
};
use regent_core::id::ClusterId;
use regent_core::time::{Moment, Span, Timestamp};
use regent_proto::agent::v1 as wire;

/// Of one resource, from a message that was sent at `sent`.
pub(super) fn of_resource(found: &wire::ResourceFacts, sent: Moment) -> Facts {
    let reaches = found.reaches.iter().filter_map(|reach| {
        let answer = if reach.answers { Ok(()) } else { Err(reach.detail.clone()) };
        Some((ClusterId::new(&reach.cluster).ok()?, answer))
    });
    Facts {
        at: sent.before(Span::from_millis(found.age_ms)),
        interval: Span::from_millis(found.interval_ms.max(1)),
        postgres: found.postgres.as_ref().map(postgres),
        redis: found.redis.as_ref().map(|redis| RedisFacts {
            version: redis.version.clone(),
            settings: redis.settings.clone().into_iter().collect(),
        }),
        backup: found.backup.as_ref().map(backup),
        reaches: reaches.collect(),
        problem: found.problem.clone(),
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
        lacks: found.lacks.clone(),
        dns: found.dns.as_ref().map(dns),
        short: found.short.clone(),
        managed: found.managed.clone(),
    }
}

fn dns(found: &wire::DnsFacts) -> DnsFacts {
    let authorities = found.authorities.iter().map(|one| AuthorityFacts {
        server: one.server.clone(),
        problem: one.problem.clone(),
        authoritative: one.authoritative,
        ttl: one.ttl.map(|seconds| Span::from_secs(seconds.into())),
        serial: one.serial,
        name_servers: one.name_servers.iter().cloned().collect(),
    });
    let resolvers = found.resolvers.iter().map(|one| ResolverFacts {
        server: one.server.clone(),
        problem: one.problem.clone(),
        name_servers: one.name_servers.iter().cloned().collect(),
    });
    DnsFacts {
        zone: found.zone.clone(),
        authorities: authorities.collect(),
        resolvers: resolvers.collect(),
        update: found.update.clone(),
    }
}

fn postgres(found: &wire::PostgresFacts) -> PostgresFacts {
    let slots = found.slots.iter().map(|slot| SlotFacts {
        name: slot.name.clone(),
        active: slot.active,
        retained_bytes: slot.retained_bytes,
        lost: slot.lost,
    });
    PostgresFacts {
        version: found.version,
        wal_level: found.wal_level.clone(),
        max_wal_senders: found.max_wal_senders,
        wal_senders: found.wal_senders,
        wal_keep_bytes: found.wal_keep_bytes,
        rewindable: found.rewindable,
        hot_standby: found.hot_standby,
        synchronous: found.synchronous,
        slots: slots.collect(),
        settings: found.settings.clone().into_iter().collect(),
    }
}

fn backup(found: &wire::BackupFacts) -> BackupFacts {
    let word = found.whole.map(|whole| if whole { Ok(()) } else { Err(found.problem.clone()) });
    let newest = found.newest_age_ms.map(|age| NewestBackup {
        name: found.newest.clone(),
        age: Span::from_millis(age),
        bytes: found.newest_bytes,
        whole: word,
    });
    let problem = if newest.is_none() { found.problem.clone() } else { String::new() };
    BackupFacts { newest, max_age: Span::from_millis(found.max_age_ms), median_bytes: found.median_bytes, problem }
}
