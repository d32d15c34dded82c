//! Looks once a minute at what changes seldom, and whenever somebody asks, each resource in its own task; the results go to
//! the agent, dated.
//!
//! Nothing waits for it, and it decides nothing: readiness is made of it where all sides are known.

use std::sync::Arc;
use std::time::Duration;

use regent_core::facts::{BackupFacts, DnsFacts, Listed, PostgresFacts, RedisFacts, SlotLimit};
use regent_core::id::{ApplicationId, ResourceId};
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;
use regent_proto::watch;
use tokio::sync::mpsc;

use crate::driver::{Driver, Found};
use crate::guard::Drivers;
use crate::guard::clock::Clock;
use crate::lease::Reading;
use crate::probe::millis;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// The first look: the probes come before it.
const FIRST: Duration = Duration::from_secs(2);
/// A driver bounds its own look; one that does not is given up after so long.
const GIVEN_UP: Duration = Duration::from_secs(50);

/// What was found, and when.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Which application.
    pub application: ApplicationId,
    /// Which resource.
    pub resource: ResourceId,
    /// When the look began.
    pub at: Reading,
    /// What was found.
    pub found: Found,
}

/// A look that has ended.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Which application.
    pub application: ApplicationId,
    /// Which resource.
    pub resource: ResourceId,
    /// The newest round of looks that had been asked for when it began.
    pub round: u64,
    /// What was found; none if the look was given up, or there is nothing of that kind to be found.
    pub fact: Option<Fact>,
    /// There is nothing of that kind to be found, now or later: no look follows.
    pub last: bool,
}

/// Looks at every resource, at once when `rounds` rises, until nobody listens any more.
pub fn look_at_all(
    drivers: &Drivers,
    clock: &Arc<dyn Clock>,
    rounds: &watch::Sender<u64>,
    to: &mpsc::UnboundedSender<Looked>,
) {
    for (application, resources) in drivers {
        for (resource, driver) in resources {
            let (name, driver) = ((application.clone(), resource.clone()), driver.clone());
            tokio::spawn(look_again(name, driver, clock.clone(), rounds.subscribe(), to.clone()));
        }
    }
}

async fn look_again(
    (application, resource): (ApplicationId, ResourceId),
    driver: Arc<dyn Driver>,
    clock: Arc<dyn Clock>,
    mut rounds: watch::Receiver<u64>,
    to: mpsc::UnboundedSender<Looked>,
) {
    let mut pause = FIRST;
    loop {
        // A round that was begun during a look finds the next one beginning at once.
        match tokio::time::timeout(pause, rounds.changed()).await {
            Ok(Ok(())) => driver.look_anew(),
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        pause = INTERVAL;
        let round = *rounds.borrow_and_update();
        let at = clock.reading();
        let found = tokio::time::timeout(GIVEN_UP, driver.facts()).await;
        let last = matches!(found, Ok(None));
        let (application, resource) = (application.clone(), resource.clone());
        let fact = found.ok().flatten().map(|found| Fact {
            application: application.clone(),
            resource: resource.clone(),
            at,
            found,
        });
        if to.send(Looked { application, resource, round, fact, last }).is_err() || last {
            return;
        }
    }
}

impl Fact {
    /// On the wire, with its age.
    #[must_use]
    pub fn report(&self, now: Reading) -> wire::ResourceFacts {
        let age = now.held_since(self.at);
        wire::ResourceFacts {
            application: self.application.to_string(),
            resource: self.resource.to_string(),
            age_ms: age.millis(),
            interval_ms: millis(INTERVAL),
            postgres: self.found.postgres.as_ref().map(postgres),
            redis: self.found.redis.as_ref().map(redis),
            backup: self.found.backup.as_ref().map(|facts| backup(facts, age)),
            reaches: self
                .found
                .reaches
                .iter()
                .map(|(cluster, answer)| wire::Reach {
                    cluster: cluster.clone(),
                    answers: answer.is_ok(),
                    detail: answer.clone().err().unwrap_or_default(),
                })
                .collect(),
            problem: self.found.problem.clone(),
            lacks: self.found.findings.lacks.clone(),
            dns: self.found.findings.dns.as_ref().map(dns),
            short: self.found.findings.short.clone(),
            managed: self.found.findings.managed.clone(),
            listed: self.found.findings.listed.as_ref().map(listed),
            rights_unknown: self.found.findings.rights_unknown.clone(),
            capacity_unknown: self.found.findings.capacity_unknown.clone(),
        }
    }
}

fn postgres(facts: &PostgresFacts) -> wire::PostgresFacts {
    let slots = facts.slots.iter().map(|slot| wire::Slot {
        name: slot.name.clone(),
        active: slot.active,
        retained_bytes: slot.retained_bytes,
        lost: slot.lost,
    });
    wire::PostgresFacts {
        version: facts.version,
        wal_level: facts.wal_level.clone(),
        max_wal_senders: facts.max_wal_senders,
        wal_senders: facts.wal_senders,
        wal_keep_bytes: facts.wal_keep_bytes,
        rewindable: facts.rewindable,
        hot_standby: facts.hot_standby,
        synchronous: facts.synchronous,
        slots: slots.collect(),
        settings: facts.settings.clone().into_iter().collect(),
        slot_limit_bytes: match facts.slot_limit {
            SlotLimit::Unknown => None,
            SlotLimit::Unlimited => Some(-1),
            SlotLimit::Bytes(bytes) => Some(i64::try_from(bytes).unwrap_or(i64::MAX)),
        },
        max_wal_bytes: facts.max_wal_bytes,
        archive_fails: facts.archive_fails.clone(),
        grace_ms: facts.grace.map(Span::millis),
    }
}

fn listed(facts: &Listed) -> wire::Listed {
    wire::Listed {
        actions: facts.actions.iter().cloned().collect(),
        commands: facts.commands.iter().cloned().collect(),
    }
}

fn dns(facts: &DnsFacts) -> wire::DnsFacts {
    let authorities = facts.authorities.iter().map(|one| wire::DnsAuthority {
        server: one.server.clone(),
        problem: one.problem.clone(),
        authoritative: one.authoritative,
        ttl: one.ttl.map(|ttl| u32::try_from(ttl.millis() / 1000).unwrap_or(u32::MAX)),
        serial: one.serial,
        name_servers: one.name_servers.iter().cloned().collect(),
    });
    let resolvers = facts.resolvers.iter().map(|one| wire::DnsResolver {
        server: one.server.clone(),
        problem: one.problem.clone(),
        name_servers: one.name_servers.iter().cloned().collect(),
    });
    wire::DnsFacts {
        zone: facts.zone.clone(),
        authorities: authorities.collect(),
        resolvers: resolvers.collect(),
        update: facts.update.clone(),
    }
}

fn redis(facts: &RedisFacts) -> wire::RedisFacts {
    wire::RedisFacts { version: facts.version.clone(), settings: facts.settings.clone().into_iter().collect() }
}

fn backup(facts: &BackupFacts, age: Span) -> wire::BackupFacts {
    let newest = facts.newest.as_ref();
    let word = newest.and_then(|newest| newest.whole.clone());
    wire::BackupFacts {
        newest_age_ms: newest.map(|newest| newest.age.plus(age).millis()),
        newest_bytes: newest.map_or(0, |newest| newest.bytes),
        newest: newest.map(|newest| newest.name.clone()).unwrap_or_default(),
        max_age_ms: facts.max_age.millis(),
        median_bytes: facts.median_bytes,
        whole: word.as_ref().map(Result::is_ok),
        problem: word.and_then(Result::err).unwrap_or_else(|| facts.problem.clone()),
    }
}
