//! Readiness: each fact that will hurt has its note, with its severity and place, and a world that is well has few.

use std::collections::BTreeMap;

use regent_core::application::{Action, Runbook};
use regent_core::entry::{Coordinator, Entry};
use regent_core::evidence::{Evidence, Health, Sighting};
use regent_core::facts::{
    BackupFacts, Facts, Findings, NO_STATUS_COMMAND, NewestBackup, NodeFacts, Papers, PostgresFacts, RedisFacts,
    SlotFacts, SlotLimit,
};
use regent_core::id::{ClusterId, CoordinatorId, IdentityId, RegionId, ResourceId, RunId};
use regent_core::plan::{Asked, show_failover, show_switchover};
use regent_core::preflight::{Note, Severity};
use regent_core::readiness;
use regent_core::state::Drilled;
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Moment, Span, Timestamp};
use regent_core::verdict::Scene;
use regent_core::why::explain;

use crate::fixture::*;

pub const NOW: Moment = Moment(1_000_000);

fn hours(hours: u64) -> Span {
    Span::from_secs(hours * 3600)
}

fn postgres() -> PostgresFacts {
    PostgresFacts {
        version: 150_006,
        wal_level: "replica".into(),
        max_wal_senders: 10,
        wal_senders: 1,
        wal_keep_bytes: 1 << 30,
        rewindable: true,
        hot_standby: true,
        synchronous: true,
        slots: vec![],
        slot_limit: SlotLimit::Unlimited,
        max_wal_bytes: 1 << 30,
        archive_fails: String::new(),
        settings: [("max_connections".to_owned(), "100".to_owned())].into(),
        grace: Some(Span::from_millis(100)),
    }
}

fn found() -> Facts {
    Facts {
        at: NOW,
        interval: Span::from_secs(60),
        postgres: Some(postgres()),
        redis: None,
        backup: None,
        reaches: [].into(),
        problem: String::new(),
        findings: Findings::default(),
    }
}

fn redis() -> Facts {
    let facts = RedisFacts { version: "7.0.15".into(), settings: [].into() };
    Facts { postgres: None, redis: Some(facts), ..found() }
}

/// A world that is well, with both sides' facts.
pub fn well() -> (World, Evidence) {
    let mut world = World::fresh();
    let mut document = document();
    let drill = vec![line(Action::Promote, &["db"]), line(Action::Restore, &["db"]), line(Action::Verify, &["db"])];
    document.runbooks.insert("drill".into(), Runbook { lines: drill });
    let switchover = vec![line(Action::CatchUp, &["db", "cache"]), line(Action::Promote, &["db", "cache"])];
    document.runbooks.insert("switchover".into(), Runbook { lines: switchover });
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    world.adopt();
    world.confirm(&west());
    let known = world.state.applications.get_mut(&app()).unwrap();
    let drilled = Drilled { run: RunId(1), at: Timestamp(world.wall), rto: Span::from_secs(11) };
    known.rehearsed.drills.insert(central(), drilled);
    let mut evidence = evidence(NOW, NOW);
    for cluster in [west(), central()] {
        let contact = evidence.contacts.get_mut(&cluster).unwrap();
        contact.facts.insert(app(), [(resource("db"), found()), (resource("cache"), redis())].into());
        for seen in contact.resources.get_mut(&app()).unwrap().values_mut() {
            seen.upstream.iter_mut().for_each(|upstream| upstream.connected = true);
        }
    }
    serving(&mut evidence, NOW);
    (world, evidence)
}

pub fn facts<'e>(evidence: &'e mut Evidence, at: &ClusterId, name: &str) -> &'e mut Facts {
    let of_application = evidence.contacts.get_mut(at).unwrap().facts.get_mut(&app()).unwrap();
    of_application.get_mut(&resource(name)).unwrap()
}

/// Puts what an agent found out by trying into the evidence.
pub fn find(evidence: &mut Evidence, at: Moment, cluster: &ClusterId, name: &str, findings: Findings) {
    let facts = Facts {
        at,
        interval: Span::from_secs(60),
        postgres: None,
        redis: None,
        backup: None,
        reaches: [].into(),
        problem: String::new(),
        findings,
    };
    let of_cluster = &mut evidence.contacts.get_mut(cluster).unwrap().facts;
    of_cluster.entry(app()).or_default().insert(resource(name), facts);
}

/// The notes as "severity code cluster/resource".
pub fn notes(world: &World, evidence: &Evidence) -> Vec<String> {
    let notes = readiness::notes(&world.state, evidence, view(NOW, world), &app()).unwrap();
    let place = |place: &readiness::Place| {
        let cluster = place.cluster.as_ref().map(ToString::to_string).unwrap_or_default();
        let resource = place.resource.as_ref().map(|one| format!("/{one}")).unwrap_or_default();
        format!("{cluster}{resource}")
    };
    notes
        .iter()
        .map(|(at, note)| format!("{} {} {}", note.severity.as_str(), note.code, place(at)).trim().to_owned())
        .collect()
}

#[test]
fn nothing_speaks_against_a_world_that_is_well() {
    let (world, evidence) = well();
    assert_eq!(notes(&world, &evidence), Vec::<String>::new());
}

#[test]
fn what_refuses_a_switchover_is_a_blocker() {
    let (world, mut evidence) = well();
    evidence.contacts.get_mut(&central()).unwrap().last_beat = None;
    let told = notes(&world, &evidence);
    let blockers: Vec<&String> = told.iter().filter(|note| note.starts_with("blocker ")).collect();
    // Of which cluster, and why: not that there is none.
    let named = |note: &&String| note.ends_with(&central().to_string()) && !note.contains("no-target");
    assert!(!blockers.is_empty() && blockers.iter().all(named), "{told:?}");
}

#[test]
fn what_differs_too_much_refuses_a_switchover_and_warns_before_a_failover() {
    let (world, mut evidence) = well();
    let at = view(NOW, &world);
    let application = app();
    let answers = |evidence: &Evidence| {
        let scene = Scene::new(&world.state, evidence, NOW, at.me, &application).unwrap();
        let wish = central();
        let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: Some(&wish), max_write_outage: None };
        let shown = show_switchover(&scene, at, &asked);
        let failover = show_failover(&scene, at);
        let told = |notes: &[Note]| -> Vec<String> {
            let about = notes.iter().filter(|note| note.code == "versions-differ");
            about.map(|note| format!("{}: {}", note.severity.as_str(), note.detail)).collect()
        };
        let why = explain(&world.state, evidence, at, &application).unwrap();
        let refused = preflight(&scene, Purpose::Switchover, None).err().map(|rule| rule.code);
        (refused, told(&shown.notes), told(&failover.notes), told(&why.notes))
    };
    assert_eq!(answers(&evidence), (None, vec![], vec![], vec![]));
    facts(&mut evidence, &central(), "db").postgres.as_mut().unwrap().version = 160_001;
    let detail = "db in central-1: PostgreSQL 16 here, 15 in west-1: one cannot follow the other";
    let warned = vec![format!("warning: {detail}")];
    let (refused, shown, failover, why) = answers(&evidence);
    assert_eq!((failover, why), (warned.clone(), warned));
    assert_eq!(shown, [format!("blocker: {detail}")]);
    assert_eq!(refused.as_deref(), Some("versions-differ"));
}

#[test]
fn a_second_standby_that_could_not_take_over_is_told_of() {
    let (mut world, evidence) = well();
    let third = cluster("north-1");
    world.done(Entry::AgentRegistered(agent(&third, "in")));
    let mut wider = world.known().document.clone();
    wider.clusters.push(third);
    world.done(Entry::Applied { application: Box::new(wider), by: "ann".into() });
    world.confirm(&west());
    let told: Vec<String> = notes(&world, &evidence).into_iter().filter(|note| !note.starts_with("info ")).collect();
    // Nothing of it has ever been reported.
    let unheard = ["warning not-heard north-1"].into_iter();
    let unseen = ["checks", "core", "edge", "www"].map(|name| format!("warning not-probed north-1/{name}"));
    assert_eq!(told, unheard.map(str::to_owned).chain(unseen).collect::<Vec<_>>());
}

#[test]
fn a_coordinator_is_named_and_one_that_is_no_member_is_not() {
    let (mut world, mut evidence) = well();
    let of = |until| NodeFacts { at: NOW, ahead_ms: 2_500, certificate_until: until };
    let expires = later(&world, 24);
    coordinator(2, of(expires), &mut world, &mut evidence);
    evidence.machines.insert(CoordinatorId(9), of(expires));
    evidence.papers = Papers { certificate_until: Some(Timestamp(1)), authority_until: expires };
    let all = readiness::notes(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    let mut details: Vec<&str> = all.iter().map(|(_, note)| note.detail.as_str()).collect();
    details.sort_unstable();
    let wanted = [
        "the certificate of coordinator 1 has expired: nothing connects by it anew",
        "the certificate of coordinator 2 expires in 1d",
        "the certificate of the authority that all trust expires in 1d",
        "the clock of coordinator 2 is 2s500ms ahead of that of coordinator 1",
    ];
    assert_eq!(details, wanted);
}

#[test]
fn what_is_old_says_nothing() {
    let (world, mut evidence) = well();
    let contact = evidence.contacts.get_mut(&central()).unwrap();
    let seen = contact.resources.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap();
    seen.upstream.as_mut().unwrap().lag = Some(Span::from_secs(3));
    seen.at = NOW.before(Span::from_secs(2));
    assert_eq!(notes(&world, &evidence), ["blocker stale central-1"]);
    let (world, mut evidence) = well();
    let long_ago = NOW.before(Span::from_secs(181));
    let of_node = |until| NodeFacts { at: long_ago, ahead_ms: 9_000, certificate_until: until };
    node(&mut evidence, of_node(later(&world, 24)));
    assert_eq!(notes(&world, &evidence), Vec::<String>::new());
    // It may be why the agent is silent.
    node(&mut evidence, of_node(Some(Timestamp(1))));
    assert_eq!(notes(&world, &evidence), ["warning certificate-expires west-1"]);
}

/// One that speaks against it.
type Hurt = (&'static str, fn(&mut Evidence, &mut World));

#[test]
fn each_fact_that_will_hurt_has_its_note() {
    let cases: [Hurt; 45] = [
        ("warning wal-level west-1/db", |e, _| pg(e).wal_level = "minimal".into()),
        ("warning wal-senders west-1/db", |e, _| pg(e).max_wal_senders = 2),
        ("warning wal-not-kept west-1/db", |e, _| pg(e).wal_keep_bytes = 0),
        ("warning not-rewindable west-1/db", |e, _| pg(e).rewindable = false),
        ("warning hot-standby-off west-1/db", |e, _| pg(e).hot_standby = false),
        ("info asynchronous west-1/db", |e, _| both(e, |facts| facts.synchronous = false)),
        ("warning slot-lost west-1/db", |e, _| {
            pg(e).slots = vec![SlotFacts { name: "a".into(), lost: true, ..SlotFacts::default() }]
        }),
        ("warning slot-idle west-1/db", |e, _| {
            pg(e).slots = vec![SlotFacts { name: "a".into(), retained_bytes: Some(1 << 31), ..SlotFacts::default() }];
            pg(e).slot_limit = SlotLimit::Bytes(1 << 40);
        }),
        ("blocker versions-differ central-1/db", |e, _| pg(e).version = 160_001),
        ("warning versions-differ central-1/db", |e, _| pg(e).version = 150_007),
        ("warning versions-differ central-1/cache", |e, _| {
            facts(e, &central(), "cache").redis.as_mut().unwrap().version = "6.2.1".into();
        }),
        ("warning settings-differ central-1/db", |e, _| {
            drop(pg(e).settings.insert("max_connections".into(), "50".into()))
        }),
        ("warning settings-differ central-1/cache", |e, _| {
            drop(facts(e, &central(), "cache").redis.as_mut().unwrap().settings.insert("maxmemory".into(), "1".into()));
        }),
        ("warning rejoin-unreachable west-1/db", |e, _| {
            drop(facts(e, &west(), "db").reaches.insert(central(), Err("connection refused".into())));
        }),
        ("info facts-missing west-1/db", |e, _| facts(e, &west(), "db").at = Moment(0)),
        ("warning facts-missing west-1/db", |e, _| facts(e, &west(), "db").postgres = None),
        ("warning facts-missing central-1/cache", |e, _| facts(e, &central(), "cache").redis = None),
        ("warning not-probed central-1/core", |e, _| drop(services(e, &central()).remove(&resource("core")))),
        ("warning not-probed west-1/www", |e, _| drop(services(e, &west()).remove(&resource("www")))),
        ("warning stale central-1/checks", |e, _| service(e, &central(), "checks").at = NOW.before(hours(1))),
        ("info driver-unknown central-1/checks", |e, _| unknown(e, &central(), "checks", "no answer within 3 s")),
        ("warning driver-unknown west-1/www", |e, _| unknown(e, &west(), "www", "127.0.0.53: no answer")),
        ("warning driver-unknown west-1/core", |e, _| unknown(e, &west(), "core", "it was ended by a signal")),
        ("info driver-unknown central-1/core", |e, _| unknown(e, &central(), "core", NO_STATUS_COMMAND)),
        ("warning driver-unknown central-1/www", |e, _| unknown(e, &central(), "www", NO_STATUS_COMMAND)),
        ("warning probe-failed west-1/core", |e, _| fails(e, &west(), "core")),
        ("warning probe-failed west-1/checks", |e, _| fails(e, &west(), "checks")),
        ("warning probe-failed west-1/www", |e, _| fails(e, &west(), "www")),
        ("warning probe-failed central-1/www", |e, _| fails(e, &central(), "www")),
        ("warning wal-level central-1/db", |e, _| {
            facts(e, &central(), "db").postgres.as_mut().unwrap().wal_level = "minimal".into();
        }),
        ("warning clocks-apart west-1", |e, w| {
            node(e, NodeFacts { at: NOW, ahead_ms: -2_500, certificate_until: later(w, 9999) })
        }),
        ("warning certificate-expires west-1", |e, w| {
            node(e, NodeFacts { at: NOW, ahead_ms: 0, certificate_until: later(w, 24) })
        }),
        ("warning certificate-expires west-1", |e, _| {
            node(e, NodeFacts { at: NOW, ahead_ms: 0, certificate_until: Some(Timestamp(1)) })
        }),
        ("warning clocks-apart", |e, w| {
            coordinator(2, NodeFacts { at: NOW, ahead_ms: 2_500, certificate_until: later(w, 9999) }, w, e);
        }),
        ("warning certificate-expires", |e, w| {
            coordinator(3, NodeFacts { at: NOW, ahead_ms: 0, certificate_until: later(w, 24) }, w, e);
        }),
        ("warning certificate-expires", |e, w| {
            coordinator(3, NodeFacts { at: Moment(0), ahead_ms: 9_000, certificate_until: Some(Timestamp(1)) }, w, e);
        }),
        ("warning certificate-expires", |e, w| e.papers.certificate_until = later(w, 24)),
        ("warning certificate-expires", |e, w| e.papers.authority_until = later(w, 24)),
        ("warning backup-missing west-1/db", |e, _| backup(e).newest = None),
        ("warning backup-unreadable west-1/db", |e, _| backup(e).problem = "no such folder".into()),
        ("warning backup-old west-1/db", |e, _| newest(e).age = hours(27)),
        ("warning backup-damaged west-1/db", |e, _| newest(e).whole = Some(Err("it ends in the middle".into()))),
        ("warning backup-size west-1/db", |e, _| newest(e).bytes = 400),
        ("warning backup-size west-1/db", |e, _| newest(e).bytes = 2_002),
        ("warning lag-near-limit central-1/db", |e, _| {
            let contact = e.contacts.get_mut(&central()).unwrap();
            let seen = contact.resources.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap();
            seen.upstream.as_mut().unwrap().lag = Some(Span::from_secs(3));
        }),
    ];
    for (wanted, hurt) in cases {
        let (mut world, mut evidence) = well();
        hurt(&mut evidence, &mut world);
        let found: Vec<String> =
            notes(&world, &evidence).into_iter().filter(|note| !note.contains("restore-old")).collect();
        assert_eq!(found, [wanted]);
    }
}

#[test]
fn a_redis_that_keeps_no_file_is_told_of_on_each_side() {
    let on_both_sides = |kept: &str| {
        let (world, mut evidence) = well();
        for cluster in [west(), central()] {
            let redis = facts(&mut evidence, &cluster, "cache").redis.as_mut().unwrap();
            redis.settings.insert("appendonly".into(), kept.into());
        }
        let mut told = notes(&world, &evidence);
        told.sort();
        told
    };
    assert_eq!(on_both_sides("yes"), Vec::<String>::new());
    assert_eq!(on_both_sides("no"), ["warning not-persistent central-1/cache", "warning not-persistent west-1/cache"]);
}

#[test]
fn what_was_never_rehearsed_is_told_and_what_was_long_ago_warned_of() {
    let (mut world, evidence) = well();
    let known = world.state.applications.get_mut(&app()).unwrap();
    known.rehearsed.drills.clear();
    assert_eq!(notes(&world, &evidence), ["info drill-old central-1"]);
    let long_ago = Timestamp(world.wall - i64::try_from(hours(24 * 98).millis()).unwrap());
    let known = world.state.applications.get_mut(&app()).unwrap();
    known.rehearsed.drills.insert(central(), Drilled { run: RunId(1), at: long_ago, rto: Span::ZERO });
    assert_eq!(notes(&world, &evidence), ["warning drill-old central-1"]);
    let (world, mut evidence) = well();
    newest(&mut evidence);
    assert_eq!(notes(&world, &evidence), ["info restore-old west-1/db"]);
    let mut plain = World::protected();
    plain.wall += 1;
    let told = notes(&plain, &evidence);
    assert!(
        told.contains(&"info no-drill-runbook".to_owned()) && told.contains(&"info no-switchover-runbook".to_owned())
    );
}

#[test]
fn the_worst_comes_first() {
    let (world, mut evidence) = well();
    pg(&mut evidence).version = 160_001;
    both(&mut evidence, |facts| facts.synchronous = false);
    pg(&mut evidence).rewindable = false;
    let all = readiness::notes(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    let severities: Vec<Severity> = all.iter().map(|(_, note)| note.severity).collect();
    assert_eq!(severities, [Severity::Blocker, Severity::Warning, Severity::Info]);
}

#[test]
fn a_service_that_is_stopped_where_nobody_is_served_is_as_it_should_be() {
    let (world, mut evidence) = well();
    fails(&mut evidence, &central(), "core");
    fails(&mut evidence, &central(), "checks");
    assert_eq!(notes(&world, &evidence), Vec::<String>::new());
}

#[test]
fn services_of_the_side_that_would_be_left_are_nothing_to_a_failover() {
    let (world, mut evidence) = well();
    fails(&mut evidence, &west(), "core");
    unknown(&mut evidence, &central(), "edge", "it was ended by a signal");
    facts(&mut evidence, &central(), "db").postgres = None;
    facts(&mut evidence, &central(), "db").problem = "permission denied for function pg_stat_get_wal_senders".into();
    let (application, at) = (app(), view(NOW, &world));
    let scene = Scene::new(&world.state, &evidence, NOW, at.me, &application).unwrap();
    let told = show_failover(&scene, at).notes;
    let warned = told.iter().filter(|note| note.severity == Severity::Warning).map(|note| note.detail.as_str());
    let denied = "db in central-1: its agent could not look at its settings: permission denied for function \
                  pg_stat_get_wal_senders";
    assert_eq!(warned.collect::<Vec<_>>(), [denied, "edge in central-1: it was ended by a signal"]);
}

fn services<'e>(evidence: &'e mut Evidence, at: &ClusterId) -> &'e mut BTreeMap<ResourceId, Sighting> {
    evidence.contacts.get_mut(at).unwrap().resources.get_mut(&app()).unwrap()
}

pub fn service<'e>(evidence: &'e mut Evidence, at: &ClusterId, name: &str) -> &'e mut Sighting {
    services(evidence, at).get_mut(&resource(name)).unwrap()
}

fn unknown(evidence: &mut Evidence, at: &ClusterId, name: &str, why: &str) {
    let seen = service(evidence, at, name);
    (seen.health, seen.detail) = (Health::Unknown, why.into());
}

fn fails(evidence: &mut Evidence, at: &ClusterId, name: &str) {
    let seen = service(evidence, at, name);
    (seen.health, seen.detail) = (Health::Failed, "it said no".into());
}

pub fn pg(evidence: &mut Evidence) -> &mut PostgresFacts {
    facts(evidence, &west(), "db").postgres.as_mut().unwrap()
}

/// The same at both sides.
pub fn both(evidence: &mut Evidence, change: impl Fn(&mut PostgresFacts)) {
    for cluster in [west(), central()] {
        change(facts(evidence, &cluster, "db").postgres.as_mut().unwrap());
    }
}

pub fn node(evidence: &mut Evidence, node: NodeFacts) {
    evidence.contacts.get_mut(&west()).unwrap().node = Some(node);
}

/// A member with its machine.
fn coordinator(id: u64, machine: NodeFacts, world: &mut World, evidence: &mut Evidence) {
    let id = CoordinatorId(id);
    let known = Coordinator {
        id,
        identity: IdentityId(format!("c{id}")),
        region: RegionId::new("r").unwrap(),
        grpc: "127.0.0.1:1".into(),
        dashboard: "127.0.0.1:2".into(),
        dns: "127.0.0.1:3".into(),
    };
    world.state.coordinators.insert(id, known);
    evidence.machines.insert(id, machine);
}

pub fn later(world: &World, in_hours: u64) -> Option<Timestamp> {
    Some(Timestamp(world.wall + i64::try_from(hours(in_hours).millis()).unwrap()))
}

fn backup(evidence: &mut Evidence) -> &mut BackupFacts {
    let newest = NewestBackup { name: "a.dump".into(), age: hours(1), bytes: 1_000, whole: Some(Ok(())) };
    let facts = facts(evidence, &west(), "db");
    facts.backup.get_or_insert(BackupFacts {
        newest: Some(newest),
        max_age: hours(26),
        median_bytes: Some(1_000),
        problem: String::new(),
    })
}

fn newest(evidence: &mut Evidence) -> &mut NewestBackup {
    backup(evidence).newest.as_mut().unwrap()
}
