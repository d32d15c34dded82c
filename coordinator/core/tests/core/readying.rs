//! Readiness: each fact that will hurt has its note, with its severity and place, and a world that is well has few.

use regent_core::application::{Action, Runbook};
use regent_core::entry::Entry;
use regent_core::evidence::Evidence;
use regent_core::facts::{BackupFacts, Facts, Findings, NewestBackup, NodeFacts, PostgresFacts, RedisFacts, SlotFacts};
use regent_core::id::{ClusterId, RunId};
use regent_core::plan::{Asked, show_failover, show_switchover};
use regent_core::preflight::{Note, Severity};
use regent_core::readiness;
use regent_core::state::Drilled;
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Moment, Span, Timestamp};
use regent_core::verdict::Scene;
use regent_core::why::explain;

use crate::fixture::*;

const NOW: Moment = Moment(1_000_000);

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
        settings: [("max_connections".to_owned(), "100".to_owned())].into(),
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
        findings: Findings::default(),
    }
}

fn redis() -> Facts {
    let facts = RedisFacts { version: "7.0.15".into(), settings: [].into() };
    Facts { postgres: None, redis: Some(facts), ..found() }
}

/// A world that is well, with both sides' facts.
fn well() -> (World, Evidence) {
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
    (world, evidence)
}

fn facts<'e>(evidence: &'e mut Evidence, at: &ClusterId, name: &str) -> &'e mut Facts {
    let of_application = evidence.contacts.get_mut(at).unwrap().facts.get_mut(&app()).unwrap();
    of_application.get_mut(&resource(name)).unwrap()
}

/// The notes as "severity code cluster/resource".
fn notes(world: &World, evidence: &Evidence) -> Vec<String> {
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
    assert_eq!(told, ["warning not-heard north-1"]);
}

/// One that speaks against it.
type Hurt = (&'static str, fn(&mut Evidence, &mut World));

#[test]
fn each_fact_that_will_hurt_has_its_note() {
    let cases: [Hurt; 25] = [
        ("warning wal-level west-1/db", |e, _| pg(e).wal_level = "minimal".into()),
        ("warning wal-senders west-1/db", |e, _| pg(e).max_wal_senders = 2),
        ("warning wal-not-kept west-1/db", |e, _| pg(e).wal_keep_bytes = 0),
        ("warning not-rewindable west-1/db", |e, _| pg(e).rewindable = false),
        ("warning hot-standby-off west-1/db", |e, _| pg(e).hot_standby = false),
        ("info asynchronous west-1/db", |e, _| pg(e).synchronous = false),
        ("warning slot-lost west-1/db", |e, _| {
            pg(e).slots = vec![SlotFacts { name: "a".into(), lost: true, ..SlotFacts::default() }]
        }),
        ("warning slot-idle west-1/db", |e, _| {
            pg(e).slots = vec![SlotFacts { name: "a".into(), retained_bytes: Some(1 << 31), ..SlotFacts::default() }];
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
        ("warning clocks-apart west-1", |e, w| {
            node(e, NodeFacts { at: NOW, ahead_ms: -2_500, certificate_until: later(w, 9999) })
        }),
        ("warning certificate-expires west-1", |e, w| {
            node(e, NodeFacts { at: NOW, ahead_ms: 0, certificate_until: later(w, 24) })
        }),
        ("warning certificate-expires west-1", |e, _| {
            node(e, NodeFacts { at: NOW, ahead_ms: 0, certificate_until: Some(Timestamp(1)) })
        }),
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
    pg(&mut evidence).synchronous = false;
    pg(&mut evidence).rewindable = false;
    let all = readiness::notes(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    let severities: Vec<Severity> = all.iter().map(|(_, note)| note.severity).collect();
    assert_eq!(severities, [Severity::Blocker, Severity::Warning, Severity::Info]);
}

fn pg(evidence: &mut Evidence) -> &mut PostgresFacts {
    facts(evidence, &west(), "db").postgres.as_mut().unwrap()
}

fn node(evidence: &mut Evidence, node: NodeFacts) {
    evidence.contacts.get_mut(&west()).unwrap().node = Some(node);
}

fn later(world: &World, in_hours: u64) -> Option<Timestamp> {
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
