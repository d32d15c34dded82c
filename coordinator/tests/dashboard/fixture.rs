//! A made-up group: three coordinators, three clusters, two applications; quiet, or in the middle of a failover.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use regent_coordinator::node::Node;
use regent_coordinator::replica::{Leadership, Propose, ProposeError, Replica, Shared};
use regent_core::application::{
    Application, Automation, Beyond, DnsName, DnsProvider, Mode, Objectives, OnCoordinatorLoss, OnSilence, Resource,
    ResourceKind,
};
use regent_core::entry::{Agent, Coordinator, Endpoint, Record};
use regent_core::evidence::{
    Beat, Contact, FenceState, Health, LeaseState, Role, Sighting, UpstreamSight, WitnessSight,
};
use regent_core::id::*;
use regent_core::lease::TimeBound;
use regent_core::state::{Answer, ApplicationState, Applied, AuditRecord, Ballot, Rehearsed, StandingVote, State};
use regent_core::terms::{Listed, Terms};
use regent_core::time::{Span, Timestamp};

#[path = "fixture/runs.rs"]
mod runs;

use runs::{current_run, past_run};

/// A node over a state that the test changes at will.
pub struct World {
    pub shared: Arc<Shared>,
    pub node: Node,
}

struct NoProposals;

impl Propose for NoProposals {
    fn propose(&self, _record: Record) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async { Err(ProposeError::NoQuorum) })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), ProposeError>> {
        Box::pin(async { Err(ProposeError::NoQuorum) })
    }
}

pub fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

pub fn resource(name: &str) -> ResourceId {
    ResourceId::new(name).unwrap()
}

pub fn application(name: &str) -> ApplicationId {
    ApplicationId::new(name).unwrap()
}

pub const WEST: &str = "eu-west-1";
pub const CENTRAL: &str = "eu-central-1";
pub const NORTH: &str = "eu-north-1";

impl World {
    /// Healthy everywhere, seen by the leader in eu-central.
    pub fn quiet() -> Self {
        let shared = Shared::new(state());
        let me = CoordinatorId(2);
        let node = Node::new(me, Replica::new(shared.clone(), Arc::new(NoProposals)));
        let world = Self { shared, node };
        world.lead();
        world.see_everyone();
        world
    }

    /// Region eu-west is gone; `shop` is being promoted in eu-central.
    pub fn failover() -> Self {
        let world = Self::quiet();
        world.lose_west();
        world.run();
        world
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.write(|state| {
            state.applied = state.applied.next();
            change(state);
            ((), Vec::new())
        });
    }

    /// Changes what `shop`'s name points to.
    pub fn point_to(&self, name: &str) {
        self.change(|state| {
            state.dns_serial += 1;
            let since = state.token(state.applied);
            let shop = state.applications.get_mut(&application("shop")).unwrap();
            shop.answers.insert(resource("www"), Answer { cluster: cluster(name), since });
        });
    }

    fn lead(&self) {
        let now = tokio::time::Instant::now();
        let me = CoordinatorId(2);
        let heard = BTreeMap::from([(CoordinatorId(1), now), (me, now), (CoordinatorId(3), now)]);
        self.shared.lead(Leadership {
            me,
            term: 14,
            leader: Some(me),
            heard,
            quorum_at: Some(now),
            ..Leadership::default()
        });
    }

    /// The quorum was lost so long ago.
    pub fn lose_quorum(&self, ago: std::time::Duration) {
        let then = tokio::time::Instant::now().checked_sub(ago).unwrap();
        let me = CoordinatorId(2);
        self.shared.lead(Leadership { me, term: 15, quorum_at: Some(then), ..Leadership::default() });
    }

    /// Whoever was heard a moment ago is heard now.
    pub fn live_on(&self) {
        let now = self.node.now();
        let recent = Span::from_secs(5);
        self.node.note(|evidence| {
            let own = evidence.contacts.values_mut().map(|contact| (contact, now));
            let later = now.before(Span::from_millis(90));
            let relayed =
                evidence.relayed.values_mut().flat_map(|all| all.values_mut()).map(|contact| (contact, later));
            for (contact, at) in relayed.chain(own) {
                if contact.two_way.is_none_or(|at| now.since(at) > recent) {
                    continue;
                }
                contact.two_way = Some(at);
                contact.last_beat = Some(at);
                for seen in contact.resources.values_mut().flat_map(|all| all.values_mut()) {
                    seen.at = at;
                }
            }
        });
        let mut leadership = self.node.replica.leadership().borrow().clone();
        if leadership.leader.is_some() {
            let instant = tokio::time::Instant::now();
            for heard in leadership.heard.values_mut().filter(|heard| heard.elapsed().as_secs() < 5) {
                *heard = instant;
            }
            leadership.quorum_at = Some(instant);
            self.shared.lead(leadership);
        }
    }

    fn see_everyone(&self) {
        let now = self.node.now();
        let ago = |millis| now.before(Span::from_millis(millis));
        self.node.note(|evidence| {
            for (name, lease, millis) in
                [(WEST, LeaseState::Held, 210), (CENTRAL, LeaseState::None, 340), (NORTH, LeaseState::None, 120)]
            {
                let primary = name == WEST;
                let mut contact = contact(name, ago(millis), primary);
                contact.beats = ["shop", "billing"]
                    .into_iter()
                    .map(|app| {
                        let mine = if app == "shop" {
                            lease
                        } else if name == CENTRAL {
                            LeaseState::Held
                        } else {
                            LeaseState::None
                        };
                        (application(app), beat(mine))
                    })
                    .collect();
                evidence.contacts.insert(cluster(name), contact.clone());
                for other in [1, 3] {
                    let mut theirs = contact.clone();
                    theirs.two_way = Some(ago(millis + 90 * other));
                    theirs.last_beat = theirs.two_way;
                    evidence.relayed.entry(CoordinatorId(other)).or_default().insert(cluster(name), theirs);
                }
            }
            evidence.leading_since = Some(ago(3_600_000));
            evidence.led_since = Some(ago(3_600_000));
        });
    }

    fn lose_west(&self) {
        let ago = |millis| self.node.now().before(Span::from_millis(millis));
        let gone = ago(18_400);
        self.node.note(|evidence| {
            evidence.relayed.remove(&CoordinatorId(1));
            evidence.contacts.insert(cluster(WEST), contact(WEST, gone, true));
            if let Some(beats) = evidence.contacts.get_mut(&cluster(WEST)).map(|contact| &mut contact.beats) {
                beats.insert(application("shop"), beat(LeaseState::Held));
            }
            if let Some(theirs) = evidence.relayed.get_mut(&CoordinatorId(3)) {
                theirs.insert(cluster(WEST), contact(WEST, ago(18_700), true));
            }
            if let Some(central) = evidence.contacts.get_mut(&cluster(CENTRAL)) {
                central.beats.insert(application("shop"), beat(LeaseState::Held));
                let here = central.resources.get_mut(&application("shop")).unwrap();
                let db = here.get_mut(&resource("orders-db")).unwrap();
                db.role = Role::Primary;
                db.writable = true;
                db.timeline = 4;
                db.upstream = None;
                db.detail = "accepts writes on timeline 4".to_owned();
                let cache = here.get_mut(&resource("cache")).unwrap();
                cache.upstream =
                    Some(UpstreamSight { connected: false, last_heard: Some(gone), lag_bytes: None, lag: None });
                cache.detail = "link to 10.1.0.7:6379 is <b>down</b> & waiting".to_owned();
            }
            evidence
                .contacts
                .get_mut(&cluster(NORTH))
                .unwrap()
                .witnesses
                .insert(cluster(WEST), WitnessSight { at: ago(900), answered: false, leases: BTreeMap::new() });
        });
        let now = tokio::time::Instant::now();
        let me = CoordinatorId(2);
        let long = now.checked_sub(std::time::Duration::from_millis(18_300)).unwrap();
        let heard = BTreeMap::from([(CoordinatorId(1), long), (me, now), (CoordinatorId(3), now)]);
        self.shared.lead(Leadership {
            me,
            term: 14,
            leader: Some(me),
            heard,
            quorum_at: Some(now),
            ..Leadership::default()
        });
        let wall = self.node.wall().0;
        self.change(|state| {
            let votes = [2, 3].map(|observer| {
                let standing = StandingVote {
                    index: LogIndex(4_700 + observer),
                    silence: Span::from_millis(2_500),
                    at: Timestamp(wall - 15_800 - 90 * i64::try_from(observer).unwrap()),
                };
                (
                    CoordinatorId(observer),
                    Ballot { incarnation: Incarnation(3), number: VoteNumber(1), standing: Some(standing) },
                )
            });
            state.votes.insert(cluster(WEST), BTreeMap::from(votes));
        });
    }

    fn run(&self) {
        let wall = self.node.wall().0;
        self.change(|state| {
            let run = current_run(wall);
            for (at, event, detail) in [
                (wall - 15_900, "voted", "eu-west-1 silent for 2.5s"),
                (wall - 15_700, "voted", "eu-west-1 silent for 2.5s"),
                (wall - 8_100, "decided", "eu-west-1 → eu-central-1, epoch 8 <lost by a majority>"),
            ] {
                state.audit.push_back(AuditRecord {
                    index: LogIndex(4_709),
                    at: Timestamp(at),
                    event: event.to_owned(),
                    application: Some(application("shop")),
                    run: Some(run.id),
                    actor: "coordinator 2".to_owned(),
                    detail: detail.to_owned(),
                });
            }
            let shop = state.applications.get_mut(&application("shop")).unwrap();
            shop.run = Some(run.id);
            shop.epoch = Epoch(8);
            shop.primary = Some(cluster(CENTRAL));
            shop.cooling_since = Some(run.started);
            shop.excluded.insert(cluster(WEST), "lost in epoch 8: rejoin it when it is back".to_owned());
            state.runs.insert(run.id, run);
        });
    }
}

fn state() -> State {
    let wall = 1_790_000_000_000;
    let mut state = State { group: GroupId("0b9c3a52-6d0e-4b52-9a55-0d8f4a3f7a11".to_owned()), ..State::default() };
    state.applied = LogIndex(4_690);
    state.dns_serial = 41;
    let voters: BTreeSet<_> = (1..=3).map(CoordinatorId).collect();
    state.voters = vec![voters];
    for (id, region) in [(1, "eu-west"), (2, "eu-central"), (3, "eu-north")] {
        let id = CoordinatorId(id);
        state.coordinators.insert(
            id,
            Coordinator {
                id,
                identity: IdentityId(format!("identity-{id}")),
                region: RegionId::new(region).unwrap(),
                grpc: format!("10.{id}.0.2:7100"),
                dashboard: format!("10.{id}.0.2:7200"),
                dns: format!("10.{id}.0.2:53"),
            },
        );
    }
    for (net, name, region) in [(1, WEST, "eu-west"), (2, CENTRAL, "eu-central"), (3, NORTH, "eu-north")] {
        let addresses = vec![format!("10.{net}.0.10"), format!("10.{net}.0.11"), format!("fd00:{net}::10")];
        let endpoint = |kind: ResourceKind| Endpoint {
            kind: kind.as_str().to_owned(),
            addresses: if kind == ResourceKind::Dns { addresses.clone() } else { Vec::new() },
            remote_fence: false,
        };
        let endpoints = ["shop", "billing"]
            .into_iter()
            .map(|app| {
                let of = document(app).resources.iter().map(|(id, it)| (id.clone(), endpoint(it.kind))).collect();
                (application(app), of)
            })
            .collect();
        state.agents.insert(
            cluster(name),
            Agent {
                cluster: cluster(name),
                region: RegionId::new(region).unwrap(),
                installation: InstallationId(format!("installation-{name}")),
                incarnation: Incarnation(1),
                boot: String::new(),
                peer_address: format!("10.{net}.0.3:7400"),
                witness_key: vec![0; 32],
                endpoints,
            },
        );
    }
    for (name, primary, epoch) in [("shop", WEST, 7), ("billing", CENTRAL, 2)] {
        state.applications.insert(application(name), adopted(document(name), primary, epoch));
    }
    state.runs.insert(RunId(3_120), past_run(wall));
    for index in 0..3u64 {
        state.audit.push_back(AuditRecord {
            index: LogIndex(3_100 + index),
            at: Timestamp(wall + 60_000 * i64::try_from(index).unwrap()),
            event: ["applied", "switched", "confirmed"][usize::try_from(index).unwrap()].to_owned(),
            application: Some(application("shop")),
            run: (index > 0).then_some(RunId(3_120)),
            actor: "operator anna".to_owned(),
            detail: "<script>alert('x')</script> is only text".to_owned(),
        });
    }
    state
}

fn document(name: &str) -> Application {
    let bare = |kind| Resource { kind, after: BTreeSet::new(), dns: None };
    let dns =
        DnsName { name: format!("{name}.regent.test."), ttl: Span::from_secs(5), provider: DnsProvider::Embedded };
    let mut resources = BTreeMap::from([
        (resource("orders-db"), bare(ResourceKind::Postgres)),
        (resource("cache"), bare(ResourceKind::Redis)),
        (resource("service"), bare(ResourceKind::Command)),
        (resource("checks"), bare(ResourceKind::Http)),
        (resource("www"), Resource { dns: Some(dns), ..bare(ResourceKind::Dns) }),
    ]);
    if name == "billing" {
        resources.remove(&resource("cache"));
        resources.remove(&resource("service"));
    }
    Application {
        name: application(name),
        objectives: Objectives { rto: Span::from_secs(60), rpo: Span::from_secs(5) },
        clusters: vec![cluster(WEST), cluster(CENTRAL), cluster(NORTH)],
        resources,
        automation: Automation {
            mode: Mode::Automatic,
            bound: TimeBound::new(Span::from_secs(10)),
            cooldown: Span::from_secs(3600),
            max_data_loss: Span::from_secs(5),
            beyond_max_data_loss: Beyond::Ask,
            max_write_outage: Span::from_secs(30),
            commit_within: None,
            two_person: false,
            approve_within: Span::from_secs(3600),
            on_silence: OnSilence::Refuse,
            on_coordinator_loss: OnCoordinatorLoss::Failsafe,
            probe_failures: 3,
        },
        runbooks: BTreeMap::new(),
        drills: None,
    }
}

fn adopted(document: Application, primary: &str, epoch: u64) -> ApplicationState {
    let number = Token { restoration: 0, index: LogIndex(3_000) };
    let terms = Terms {
        number,
        epoch: Epoch(epoch),
        primary: cluster(primary),
        bound: document.automation.bound,
        clusters: document
            .clusters
            .iter()
            .map(|id| {
                (
                    id.clone(),
                    Listed { installation: Some(InstallationId(format!("installation-{id}"))), excluded: false },
                )
            })
            .collect(),
        guarded: document.guarded(),
        voters: vec![(1..=3).map(CoordinatorId).collect()],
        on_coordinator_loss: OnCoordinatorLoss::Failsafe,
        paused: false,
    };
    ApplicationState {
        document,
        revision: Revision(2),
        epoch: Epoch(epoch),
        primary: Some(cluster(primary)),
        databases: BTreeMap::new(),
        terms: vec![terms],
        confirmed: true,
        excluded: BTreeMap::new(),
        answers: BTreeMap::from([(resource("www"), Answer { cluster: cluster(primary), since: number })]),
        paused: None,
        cooling_since: None,
        refusal: None,
        recovering: None,
        rogues: BTreeMap::new(),
        run: None,
        stuck: BTreeMap::new(),
        rehearsed: Rehearsed::default(),
        held: None,
        window: None,
        order: None,
        dropped: None,
        rebooted: Epoch(0),
    }
}

fn beat(lease: LeaseState) -> Beat {
    let named = Some(Token { restoration: 0, index: LogIndex(3_000) });
    Beat {
        epoch: Epoch(7),
        terms_stored: named,
        terms_named: named,
        lease,
        lease_left: if lease == LeaseState::Held { Span::from_millis(7_900) } else { Span::ZERO },
        fence: FenceState::Open,
        guarded: true,
        guard_alive: true,
        failsafe: false,
        rogues: BTreeSet::new(),
        self_fenced_since: None,
        lacking_since: None,
    }
}

fn contact(name: &str, at: regent_core::time::Moment, primary: bool) -> Contact {
    let sighting = |role, detail: &str| Sighting {
        at,
        interval: Span::from_secs(1),
        health: Health::Healthy,
        failures: 0,
        role,
        writable: role == Role::Primary,
        system_id: SystemId("7412083347710263313".to_owned()),
        timeline: 3,
        position: None,
        position_text: String::new(),
        advanced: Some(at),
        ailing_since: None,
        closed_since: None,
        unlinked_since: None,
        lag_rising: None,
        last_position: None,
        upstream: None,
        detail: detail.to_owned(),
    };
    let role = if primary { Role::Primary } else { Role::Standby };
    let upstream = (!primary).then_some(UpstreamSight {
        connected: true,
        last_heard: Some(at),
        lag_bytes: Some(if name == CENTRAL { 1_840 } else { 3_407_872 }),
        lag: Some(Span::from_millis(if name == CENTRAL { 40 } else { 1_900 })),
    });
    let database = Sighting {
        position: Some(0x2_6B00_0148),
        position_text: "2/6B000148".to_owned(),
        upstream: upstream.clone(),
        ..sighting(role, if primary { "accepts writes" } else { "streams from eu-west-1" })
    };
    let cache = Sighting {
        position: Some(88_120_443),
        position_text: "88120443".to_owned(),
        timeline: 0,
        upstream,
        ..sighting(role, "")
    };
    let service = if primary {
        sighting(Role::None, "status exited with 0")
    } else {
        Sighting { health: Health::Failed, ..sighting(Role::None, "status exited with 3") }
    };
    let shop = BTreeMap::from([
        (resource("orders-db"), database.clone()),
        (resource("cache"), cache),
        (resource("service"), service),
        (resource("checks"), sighting(Role::None, "200 in 12 ms")),
        (resource("www"), sighting(Role::None, "")),
    ]);
    let mut billing_db = database;
    if name == CENTRAL {
        billing_db.role = Role::Primary;
        billing_db.writable = true;
        billing_db.upstream = None;
    } else if primary {
        billing_db.role = Role::Standby;
        billing_db.writable = false;
        billing_db.upstream =
            Some(UpstreamSight { connected: true, last_heard: Some(at), lag_bytes: Some(0), lag: Some(Span::ZERO) });
    }
    let billing = BTreeMap::from([(resource("orders-db"), billing_db), (resource("checks"), sighting(Role::None, ""))]);
    Contact {
        installation: InstallationId(format!("installation-{name}")),
        incarnation: Incarnation(5),
        last_beat: Some(at),
        two_way: Some(at),
        round_trip: None,
        beats: BTreeMap::new(),
        reported: Some(at),
        resources: BTreeMap::from([(application("shop"), shop), (application("billing"), billing)]),
        stored: None,
        witnesses: BTreeMap::new(),
        promises: BTreeMap::new(),
        facts: BTreeMap::new(),
        node: None,
    }
}
