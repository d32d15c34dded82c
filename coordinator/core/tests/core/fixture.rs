//! A small world in entries: three coordinators, two clusters, one application.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::application::{
    Action, Application, Automation, Beyond, DnsName, DnsProvider, Line, Mode, Objectives, OnCoordinatorLoss,
    OnFailure, OnSilence, Resource, ResourceKind, Runbook,
};
use regent_core::decide::Viewpoint;
use regent_core::effect::Effect;
use regent_core::entry::{Agent, Database, Endpoint, Entry, FORMAT, Finding, Ground, Outcome, Record, Report};
use regent_core::evidence::{
    Beat, Contact, Evidence, FenceState, Health, LastPosition, LeaseState, Role, Sighting, Track, UpstreamSight,
};
use regent_core::id::{
    ApplicationId, ClusterId, CoordinatorId, Epoch, GroupId, Incarnation, InstallationId, LogIndex, RegionId,
    ResourceId, SystemId, VoteNumber,
};
use regent_core::invariant;
use regent_core::lease::TimeBound;
use regent_core::observer::Heard;
use regent_core::state::{ApplicationState, Applied, State};
use regent_core::time::{Moment, Span, Timestamp, Waits};

pub fn app() -> ApplicationId {
    ApplicationId::new("shop").unwrap()
}

pub fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

pub fn resource(name: &str) -> ResourceId {
    ResourceId::new(name).unwrap()
}

pub fn west() -> ClusterId {
    cluster("west-1")
}

pub fn central() -> ClusterId {
    cluster("central-1")
}

pub fn line(action: Action, resources: &[&str]) -> Line {
    Line {
        action,
        resources: resources.iter().map(|name| resource(name)).collect(),
        timeout: Span::from_secs(30),
        retries: 2,
        on_failure: OnFailure::Stuck,
        when: None,
        duration: None,
        command: String::new(),
        question: String::new(),
        always: false,
    }
}

pub fn document() -> Application {
    let plain = |kind| Resource { kind, after: BTreeSet::new(), dns: None };
    let name = DnsName { name: "shop.regent.test.".into(), ttl: Span::from_secs(5), provider: DnsProvider::Embedded };
    let resources = BTreeMap::from([
        (resource("db"), plain(ResourceKind::Postgres)),
        (resource("cache"), plain(ResourceKind::Redis)),
        (resource("core"), plain(ResourceKind::Command)),
        (resource("edge"), Resource { after: BTreeSet::from([resource("core")]), ..plain(ResourceKind::Command) }),
        (resource("www"), Resource { kind: ResourceKind::Dns, after: BTreeSet::new(), dns: Some(name) }),
        (resource("checks"), plain(ResourceKind::Http)),
    ]);
    let lines = vec![
        line(Action::Promote, &["db", "cache"]),
        line(Action::Redirect, &["www"]),
        line(Action::Activate, &["core", "edge"]),
        line(Action::Verify, &["checks"]),
    ];
    Application {
        name: app(),
        objectives: Objectives { rto: Span::from_secs(60), rpo: Span::from_secs(5) },
        clusters: vec![west(), central()],
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
        runbooks: BTreeMap::from([("failover".to_owned(), Runbook { lines })]),
        drills: None,
    }
}

pub fn agent(at: &ClusterId, installation: &str) -> Agent {
    let endpoint = |kind: &str, addresses: &[&str]| Endpoint {
        kind: kind.into(),
        addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
        remote_fence: false,
    };
    let address = if *at == west() { "127.0.0.11" } else { "127.0.0.12" };
    let endpoints = BTreeMap::from([
        (resource("db"), endpoint("postgres", &[])),
        (resource("cache"), endpoint("redis", &[])),
        (resource("core"), endpoint("command", &[])),
        (resource("edge"), endpoint("command", &[])),
        (resource("www"), endpoint("dns", &[address])),
        (resource("checks"), endpoint("http", &[])),
    ]);
    Agent {
        cluster: at.clone(),
        region: RegionId::new("r").unwrap(),
        installation: InstallationId(installation.into()),
        incarnation: Incarnation(1),
        boot: String::new(),
        peer_address: "127.0.0.1:1".into(),
        witness_key: vec![],
        endpoints: BTreeMap::from([(app(), endpoints)]),
    }
}

/// A replicated state with its log index, checked against the invariants after each entry.
pub struct World {
    pub state: State,
    pub wall: i64,
    pub effects: Vec<Effect>,
    log: Vec<Record>,
}

impl World {
    /// Three voters, two registered agents, the document applied; nothing adopted.
    pub fn fresh() -> Self {
        let mut world = Self { state: State::default(), wall: 1_000_000, effects: vec![], log: vec![] };
        let voters = (1..=3).map(CoordinatorId).collect();
        world.state.apply_membership(LogIndex(1), vec![voters]);
        world.done(Entry::GroupCreated { group: GroupId("g".into()) });
        for id in 1..=3 {
            world.done(Entry::ObserverStarted { observer: CoordinatorId(id), incarnation: Incarnation(1) });
        }
        world.done(Entry::AgentRegistered(agent(&west(), "iw")));
        world.done(Entry::AgentRegistered(agent(&central(), "ic")));
        world.done(Entry::Applied { application: Box::new(document()), by: "ann".into() });
        world
    }

    /// Adopted in the west and confirmed.
    pub fn protected() -> Self {
        let mut world = Self::fresh();
        world.adopt();
        world.confirm(&west());
        world
    }

    /// The same from here on, apart.
    pub fn copy(&self) -> Self {
        Self { state: self.state.clone(), wall: self.wall, effects: vec![], log: vec![] }
    }

    pub fn adopt(&mut self) {
        self.done(Entry::Adopt { application: app(), primary: west(), databases: databases() });
    }

    pub fn confirm(&mut self, at: &ClusterId) {
        let terms = self.known().terms.last().unwrap().number;
        let installation = self.state.agents[at].installation.clone();
        self.done(Entry::TermsConfirmed {
            application: app(),
            terms,
            cluster: at.clone(),
            installation,
            databases: databases(),
        });
    }

    pub fn apply(&mut self, entry: Entry) -> Applied {
        let before = self.state.clone();
        self.wall += 1;
        let record = Record { format: FORMAT, at: Timestamp(self.wall), request: None, entry };
        let index = self.state.applied.next();
        let (applied, effects) = self.state.apply(index, &record);
        self.effects = effects;
        self.log.push(record);
        assert_eq!(invariant::of_state(&self.state), vec![]);
        assert_eq!(invariant::of_change(&before, &self.state), vec![]);
        applied
    }

    pub fn done(&mut self, entry: Entry) -> LogIndex {
        match self.apply(entry.clone()) {
            Applied::Done(index) => index,
            other => panic!("{entry:?} was {other:?}"),
        }
    }

    pub fn refused(&mut self, entry: Entry) -> String {
        match self.apply(entry.clone()) {
            Applied::Refused { rule, .. } => rule,
            other => panic!("{entry:?} was {other:?}"),
        }
    }

    pub fn ignored(&mut self, entry: Entry) {
        let applied = self.apply(entry.clone());
        assert!(matches!(applied, Applied::Ignored(_)), "{entry:?} was {applied:?}");
    }

    pub fn known(&self) -> &ApplicationState {
        &self.state.applications[&app()]
    }

    /// By a leader that has only begun to lead.
    pub fn waits(&self) -> Waits {
        Waits { wall: Timestamp(self.wall), led: Span::ZERO }
    }

    pub fn vote(&mut self, observer: u64, on: &ClusterId, number: u64, silence: Span) -> LogIndex {
        self.done(vote(observer, 1, on, number, silence))
    }

    /// A decision on these votes, with the newest terms.
    pub fn lost(&self, votes: &[LogIndex]) -> Entry {
        self.decide(Ground::Lost { votes: votes.iter().copied().collect() })
    }

    pub fn decide(&self, ground: Ground) -> Entry {
        Entry::Decide {
            application: app(),
            from: self.known().epoch,
            to: central(),
            terms: self.known().terms.last().unwrap().number,
            ground,
            finding: Finding::default(),
        }
    }
}

pub fn vote(observer: u64, incarnation: u64, on: &ClusterId, number: u64, silence: Span) -> Entry {
    Entry::Vote {
        observer: CoordinatorId(observer),
        incarnation: Incarnation(incarnation),
        cluster: on.clone(),
        number: VoteNumber(number),
        silence,
    }
}

pub fn withdraw(observer: u64, incarnation: u64, on: &ClusterId, number: u64) -> Entry {
    Entry::Withdraw {
        observer: CoordinatorId(observer),
        incarnation: Incarnation(incarnation),
        cluster: on.clone(),
        number: VoteNumber(number),
    }
}

/// A heartbeat of the west's registered process.
pub fn by<'a>(installation: &'a InstallationId, receipt: u64, epochs: &'a BTreeMap<ApplicationId, Epoch>) -> Heard<'a> {
    static WEST: std::sync::LazyLock<ClusterId> = std::sync::LazyLock::new(west);
    static NONE: BTreeSet<ApplicationId> = BTreeSet::new();
    let (incarnation, boot) = (Incarnation(1), "");
    Heard { cluster: &WEST, installation, incarnation, boot, receipt, epochs, leased: &NONE, asked: None }
}

pub fn databases() -> BTreeMap<ResourceId, Database> {
    let database = |id: &str| Database { system_id: SystemId(id.into()), timeline: 1 };
    BTreeMap::from([(resource("db"), database("pg-1")), (resource("cache"), database("redis-1"))])
}

pub fn succeeded() -> Outcome {
    Outcome::Succeeded(Report::default())
}

pub fn failed(retryable: bool) -> Outcome {
    Outcome::Failed { code: "broken".into(), message: "it broke".into(), retryable }
}

/// A sighting made `at`.
pub fn sighting(at: Moment, role: Role, position: Option<u64>) -> Sighting {
    Sighting {
        at,
        interval: Span::from_millis(500),
        health: Health::Healthy,
        failures: 0,
        role,
        writable: role == Role::Primary,
        system_id: SystemId("pg-1".into()),
        previous: None,
        timeline: 1,
        position,
        position_text: String::new(),
        advanced: None,
        ailing_since: None,
        closed_since: None,
        unlinked_since: None,
        track: Track::default(),
        last_position: position.map(|position| LastPosition { at, position, text: String::new() }),
        upstream: (role == Role::Standby).then_some(UpstreamSight {
            connected: false,
            last_heard: None,
            lag_bytes: Some(0),
            lag: Some(Span::ZERO),
            cluster: None,
        }),
        detail: String::new(),
    }
}

/// What the leader (coordinator 1) knows when the west fell silent at `silent` and the centre reports now.
pub fn evidence(now: Moment, silent: Moment) -> Evidence {
    let contact = |at: Moment, role: Role, lease: LeaseState| Contact {
        installation: InstallationId("i".into()),
        incarnation: Incarnation(1),
        last_beat: Some(at),
        two_way: Some(at),
        round_trip: None,
        beats: BTreeMap::from([(
            app(),
            Beat { epoch: Epoch(1), lease, fence: FenceState::Open, guarded: true, ..Beat::default() },
        )]),
        reported: Some(at),
        resources: BTreeMap::from([(
            app(),
            BTreeMap::from([
                (resource("db"), sighting(at, role, Some(1000))),
                (resource("cache"), sighting(at, role, Some(50))),
            ]),
        )]),
        stored: None,
        witnesses: BTreeMap::new(),
        promises: BTreeMap::new(),
        facts: BTreeMap::new(),
        node: None,
    };
    Evidence {
        contacts: BTreeMap::from([
            (west(), contact(silent, Role::Primary, LeaseState::Held)),
            (central(), contact(now, Role::Standby, LeaseState::None)),
        ]),
        voters_heard: (1..=3).map(|id| (CoordinatorId(id), now)).collect(),
        leading_since: Some(Moment(0)),
        led_since: Some(Moment(0)),
        ..Evidence::default()
    }
}

/// Services, names and checks are well in every cluster that is heard.
pub fn serving(evidence: &mut Evidence, now: Moment) {
    for contact in evidence.contacts.values_mut() {
        let seen = contact.resources.entry(app()).or_default();
        for name in ["core", "edge", "www", "checks"] {
            seen.insert(resource(name), sighting(now, Role::None, None));
        }
    }
}

pub fn view(now: Moment, world: &World) -> Viewpoint {
    Viewpoint { me: CoordinatorId(1), now, wall: Timestamp(world.wall) }
}
