//! What agents found out by trying has its note, at its place, and what is old has none.

use regent_core::evidence::Evidence;
use regent_core::facts::{AuthorityFacts, DnsFacts, Findings, ResolverFacts};
use regent_core::id::ClusterId;
use regent_core::plan::{Asked, show_failover, show_switchover};
use regent_core::preflight::Note;
use regent_core::readiness;
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Moment, Span};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::readying::{self, facts, well};

const NOW: Moment = Moment(1_000_000);

/// Puts what an agent found into the evidence.
fn find(evidence: &mut Evidence, at: &ClusterId, name: &str, findings: Findings) {
    readying::find(evidence, NOW, at, name, findings);
}

/// The notes at one resource, as "severity code: detail"; but for those on what was not probed, since nothing was.
fn notes(world: &World, evidence: &Evidence, at: &ClusterId, name: &str, now: Moment) -> Vec<String> {
    let notes = readiness::notes(&world.state, evidence, view(now, world), &app()).unwrap();
    let here = |place: &readiness::Place| place.cluster.as_ref() == Some(at) && place.resource == Some(resource(name));
    let unseen = ["facts-missing", "not-probed", "stale"];
    let here = notes.iter().filter(|(place, note)| here(place) && !unseen.contains(&note.code.as_str()));
    here.map(|(_, note)| format!("{} {}: {}", note.severity.as_str(), note.code, note.detail)).collect()
}

#[test]
fn what_is_lacking_is_told_of_every_kind_of_resource_while_it_is_fresh() {
    let world = World::protected();
    let mut evidence = evidence(NOW, NOW);
    let lacks = || Findings { lacks: vec!["one".into(), "two".into()], ..Findings::default() };
    for name in ["db", "core", "www"] {
        find(&mut evidence, &central(), name, lacks());
        let told = notes(&world, &evidence, &central(), name, NOW);
        assert_eq!(told, ["warning permission-missing: one", "warning permission-missing: two"]);
        assert_eq!(notes(&world, &evidence, &west(), name, NOW), Vec::<String>::new());
        let later = Moment(NOW.0 + 180_001);
        assert_eq!(notes(&world, &evidence, &central(), name, later), Vec::<String>::new());
    }
    find(&mut evidence, &central(), "elsewhere", lacks());
    assert_eq!(notes(&world, &evidence, &central(), "elsewhere", NOW), Vec::<String>::new(), "not in the document");
}

/// Two authorities and a resolver that agree.
fn well_served() -> DnsFacts {
    let authority = |server: &str| AuthorityFacts {
        server: server.into(),
        problem: String::new(),
        authoritative: true,
        ttl: Some(Span::from_secs(5)),
        serial: Some(7),
        name_servers: ["ns.regent.test.".to_owned()].into(),
    };
    let resolver = ResolverFacts {
        server: "r".into(),
        problem: String::new(),
        name_servers: ["ns.regent.test.".to_owned()].into(),
    };
    DnsFacts {
        zone: "regent.test.".into(),
        authorities: vec![authority("a"), authority("b")],
        resolvers: vec![resolver],
        update: String::new(),
    }
}

/// One that speaks against it.
type Spoilt = (&'static [&'static str], fn(&mut DnsFacts));

#[test]
fn what_would_lead_clients_astray_has_its_note() {
    let cases: [Spoilt; 12] = [
        (&[], |_| {}),
        // Given while a run is about to change the answer.
        (&[], |dns| dns.authorities[0].ttl = Some(Span::ZERO)),
        (&[], |dns| dns.authorities[0].ttl = None),
        (&["warning dns-ttl"], |dns| dns.authorities[1].ttl = Some(Span::from_secs(6))),
        (&["warning dns-serial-differs"], |dns| dns.authorities[1].serial = Some(6)),
        (&["warning dns-not-authoritative"], |dns| dns.authorities[0].authoritative = false),
        (&["warning dns-unreachable"], |dns| {
            dns.authorities[0] = AuthorityFacts { problem: "silent".into(), ..AuthorityFacts::default() };
        }),
        (&["warning dns-unreachable"], |dns| dns.update = "refused".into()),
        (&["warning dns-unreachable"], |dns| dns.resolvers[0].problem = "silent".into()),
        (&["warning dns-not-delegated"], |dns| dns.resolvers[0].name_servers.clear()),
        (&["warning dns-not-delegated"], |dns| {
            dns.resolvers[0].name_servers.insert("ns.elsewhere.test.".into());
        }),
        (&["info dns-delegation-unknown"], |dns| dns.resolvers.clear()),
    ];
    let world = World::protected();
    for (wanted, spoil) in cases {
        let mut evidence = evidence(NOW, NOW);
        let mut dns = well_served();
        spoil(&mut dns);
        find(&mut evidence, &west(), "www", Findings { dns: Some(dns), ..Findings::default() });
        let told = notes(&world, &evidence, &west(), "www", NOW);
        let codes: Vec<&str> = told.iter().filter_map(|note| note.split(':').next()).collect();
        assert_eq!(codes, wanted, "{told:?}");
    }
}

#[test]
fn a_name_that_is_not_known_yet_is_not_called_undelegated() {
    let world = World::protected();
    let mut evidence = evidence(NOW, NOW);
    find(&mut evidence, &west(), "www", Findings { dns: Some(DnsFacts::default()), ..Findings::default() });
    let told = notes(&world, &evidence, &west(), "www", NOW);
    assert!(told.len() == 1 && told[0].contains("dns-delegation-unknown: not looked at: the agent"), "{told:?}");
    // No authority has answered: that says nothing of the parent zone.
    let mut dns = well_served();
    dns.authorities.iter_mut().for_each(|one| *one = AuthorityFacts { problem: "silent".into(), ..Default::default() });
    dns.resolvers[0].name_servers.clear();
    find(&mut evidence, &west(), "www", Findings { dns: Some(dns), ..Findings::default() });
    let told = notes(&world, &evidence, &west(), "www", NOW);
    assert!(told.iter().all(|note| !note.contains("dns-not-delegated")), "{told:?}");
}

#[test]
fn too_little_room_is_told_of_where_the_application_does_not_serve() {
    let world = World::protected();
    let mut evidence = evidence(NOW, NOW);
    for at in [west(), central()] {
        let short = Findings { short: vec!["pods would be 5 of 3".into()], ..Findings::default() };
        find(&mut evidence, &at, "core", short);
    }
    assert_eq!(world.known().primary, Some(west()));
    assert_eq!(notes(&world, &evidence, &west(), "core", NOW), Vec::<String>::new());
    assert_eq!(notes(&world, &evidence, &central(), "core", NOW), ["warning capacity-short: pods would be 5 of 3"]);
}

#[test]
fn what_could_not_be_looked_at_is_worth_knowing() {
    let (world, mut evidence) = well();
    for at in [west(), central()] {
        find(&mut evidence, &at, "core", Findings { capacity_unknown: "not listed".into(), ..Findings::default() });
        facts(&mut evidence, &at, "cache").findings.rights_unknown = "no dry run".into();
    }
    // Where it serves there is room.
    let all = [
        "info permission-unknown central-1/cache",
        "info capacity-unknown central-1/core",
        "info permission-unknown west-1/cache",
    ];
    assert_eq!(readying::notes(&world, &evidence), all);
    assert_eq!(notes(&world, &evidence, &central(), "core", NOW), ["info capacity-unknown: not listed"]);
}

#[test]
fn another_manager_refuses_every_planned_move_and_warns_before_a_failover() {
    let (world, mut evidence) = well();
    let at = view(NOW, &world);
    let application = app();
    // What refuses a switchover, and what its plan and that of a failover say of it.
    let answers = |evidence: &Evidence| {
        let scene = Scene::new(&world.state, evidence, NOW, at.me, &application).unwrap();
        let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: None, max_write_outage: None };
        let told = |notes: &[Note]| -> Vec<String> {
            let about = notes.iter().filter(|note| note.code == "managed-elsewhere");
            about.map(|note| format!("{}: {}", note.severity.as_str(), note.detail)).collect()
        };
        let refused = preflight(&scene, Purpose::Switchover, None).err().map(|rule| rule.code);
        (refused, told(&show_switchover(&scene, at, &asked).notes), told(&show_failover(&scene, at).notes))
    };
    assert_eq!(answers(&evidence), (None, vec![], vec![]));
    for (cluster, name) in [(west(), "db"), (central(), "cache")] {
        facts(&mut evidence, &cluster, name).findings.managed.push("Somebody (its sessions: x)".into());
        assert_eq!(readying::notes(&world, &evidence), [format!("blocker managed-elsewhere {cluster}/{name}")]);
        let (refused, shown, failover) = answers(&evidence);
        assert_eq!(refused.as_deref(), Some("managed-elsewhere"));
        let begins =
            |severity: &str| format!("{severity}: {name} in {cluster}: Somebody (its sessions: x) looks after it");
        assert!(shown.len() == 1 && shown[0].starts_with(&begins("blocker")), "{shown:?}");
        assert!(failover.len() == 1 && failover[0].starts_with(&begins("warning")), "{failover:?}");
        // What was seen long ago is unknown.
        facts(&mut evidence, &cluster, name).at = NOW.before(Span::from_secs(181));
        assert_eq!(answers(&evidence), (None, vec![], vec![]));
        *facts(&mut evidence, &cluster, name) = readying::facts(&mut well().1, &cluster, name).clone();
    }
}
