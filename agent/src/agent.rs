//! The agent's loop: one task that owns the leases, the steps and the links, and is fed by channels.
//!
//! ```text
//!  uplinks ─┐                                   ┌─► heartbeats, statuses
//!  guard   ─┤                                   ├─► arm, move, disarm
//!  probes  ─┼──► Event ──► lease, steps ──► Command ─► fence, lift, mark
//!  peers   ─┤        (pure, or in memory)       ├─► questions, answers
//!  journal ─┘                                   └─► append (a thread of its own)
//! ```
//!
//! Nothing in the loop waits: whatever takes time is a leaf task that reports back. So a slow disk, database or
//! coordinator delays no fence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use regent_core::id::{ApplicationId, ClusterId, Incarnation, InstallationId, ResourceId, Token};
use regent_core::time::{Span, Timestamp};
use regent_proto::agent::v1::Hello;
use regent_proto::watch;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::facts::{self, Fact, Looked};
use crate::fence::Fencer;
use crate::guard::clock::Clock;
use crate::guard::{Door, Drivers, GuardClient, GuardEvent, Table, Watched};
use crate::journal::{Journal, Peer};
use crate::lease::{GuardWord, Lease, Reading, Remembered};
use crate::probe::{self, Sight};
use crate::settings::{Dial, Settings, endpoints};
use crate::steps::{Bench, Onlooker, StepEvent, Steps};
use crate::uplink::{LinkEvent, LinkId, Pace};
use crate::witness::peer::{PeerEvent, Sign};
use crate::witness::{Asked, Promises, WitnessKey};

pub mod admin;
mod answers;
mod beats;
mod closing;
mod commands;
mod coordinators;
mod diverged;
mod group;
mod guarding;
mod looking;
mod peers;
mod quarantine;
mod rogue;
pub mod status;
mod word;

use beats::Link;
use coordinators::Dialling;
use group::Joining;
use peers::PeerLink;
pub use status::Status;
pub use word::{Standing, Word};

/// Longest sleep of the loop: jumps of the wall clock are looked for at least so often.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// How long the start waits for the guard's first word.
const GUARD_WITHIN: Duration = Duration::from_secs(3);

/// What the agent works with.
pub struct Parts {
    /// Of this agent.
    pub settings: Settings,
    /// Of every resource here.
    pub drivers: Drivers,
    /// Opened, with a fresh incarnation.
    pub journal: Journal,
    /// Signs witness nonces.
    pub key: Arc<WitnessKey>,
    /// How coordinators and agents are reached.
    pub dial: Dial,
    /// Finds the guard, or starts one.
    pub door: Arc<dyn Door>,
    /// Of this machine.
    pub clock: Arc<dyn Clock>,
    /// Looks on when a step acts; only in tests.
    pub onlooker: Option<Arc<dyn Onlooker>>,
}

/// What the rest of the process may ask of the loop.
pub struct Handles {
    /// What holds now.
    pub word: watch::Receiver<Arc<Word>>,
    /// For humans and metrics.
    pub status: watch::Receiver<Arc<Status>>,
    /// Questions for promises.
    pub asked: mpsc::Sender<Asked>,
    /// Turns of the loop: one that stands still hangs.
    pub turns: Arc<AtomicU64>,
}

/// What a leaf task reports.
#[derive(Debug)]
enum Event {
    TermsStored(ApplicationId, Box<regent_core::terms::Terms>, bool),
    GuardedWritten(ApplicationId, regent_core::id::Epoch, BTreeSet<ResourceId>, bool),
    Fenced(ApplicationId, bool),
    Lifted(ApplicationId, bool),
    /// A commanded fence or quiesce that stood at the start was carried out again.
    Held(ApplicationId, ResourceId, bool),
    /// The fence of a database that accepted writes where the terms say standby.
    RogueFenced(ApplicationId, ResourceId, bool),
    /// What a side in quarantine has that the primary lacks, by these terms; an error if it is not known yet.
    Diverged(ApplicationId, ResourceId, Token, Result<Option<String>, ()>),
    /// A service was brought to rest, because this cluster is quarantined.
    Rested(ApplicationId, ResourceId, crate::driver::DriverResult),
    /// Whether what closes a database at rest had to be put back.
    KeptClosed(ApplicationId, ResourceId, Result<bool, crate::driver::DriverError>),
    GroupStored(bool),
    /// Statuses that waited for the disk.
    ToBeSaid(Vec<regent_proto::agent::v1::StepStatus>),
}

/// Done once a record has reached the disk, or could not.
type BeingStored = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

struct Agent {
    settings: Settings,
    drivers: Drivers,
    journal: Journal,
    installation: InstallationId,
    incarnation: Incarnation,
    dial: Dial,
    clock: Arc<dyn Clock>,
    guard: GuardClient,
    guard_alive: bool,
    /// What the guard refused to be armed for, as it was said last.
    guard_lacks: BTreeMap<ApplicationId, BTreeSet<ResourceId>>,

    leases: BTreeMap<ApplicationId, Lease>,
    fencers: BTreeMap<ApplicationId, Fencer>,
    /// Resources whose commanded fence this process saw confirmed, and that were not seen open since; false: a commanded
    /// fence or quiesce was seen failing.
    confirmed: BTreeMap<(ApplicationId, ResourceId), bool>,
    /// Seen as standbys of the new primary since the last fence of this agent's own.
    rejoined: BTreeSet<(ApplicationId, ResourceId)>,
    /// Open where the terms say standby.
    rogues: rogue::Rogues,
    /// What was measured in quarantine.
    diverged: diverged::All,
    /// Services that are kept at rest, because this cluster is quarantined.
    resting: quarantine::Services,
    /// Databases that are kept closed at rest.
    closing: closing::Closing,
    /// Applications for which the guard's hard fence has been taken note of.
    noted_fired: BTreeSet<ApplicationId>,
    offered_peers: BTreeMap<ApplicationId, BTreeMap<ClusterId, Peer>>,

    joining: Joining,
    looking: looking::Looking,
    dialling: Dialling,
    links: BTreeMap<LinkId, Link>,
    beat: u64,
    beat_now: bool,
    round_trips: BTreeMap<LinkId, Span>,
    steps: Steps,
    promises: Arc<Mutex<Promises>>,
    peers: BTreeMap<ClusterId, PeerLink>,

    sequence: u64,
    sights: BTreeMap<(ApplicationId, ResourceId), (u64, Sight)>,
    facts: BTreeMap<(ApplicationId, ResourceId), (u64, Fact)>,
    signs: BTreeMap<ClusterId, (u64, Sign)>,
    questions: BTreeMap<(ApplicationId, ClusterId), (u64, Reading, regent_core::id::Epoch)>,
    probe_now: BTreeMap<(ApplicationId, ResourceId), Arc<Notify>>,

    hello: watch::Sender<Arc<Hello>>,
    pace: watch::Sender<Pace>,
    word: watch::Sender<Arc<Word>>,
    status: watch::Sender<Arc<Status>>,
    events: mpsc::UnboundedSender<Event>,
    peer_events: mpsc::UnboundedSender<PeerEvent>,
    last_tick: (Reading, Timestamp),
    /// Of the journal, when what rests on it was last brought up to date.
    seen_revision: Option<u64>,
}

struct Inbox {
    links: mpsc::UnboundedReceiver<(LinkId, LinkEvent)>,
    guard: mpsc::UnboundedReceiver<GuardEvent>,
    events: mpsc::UnboundedReceiver<Event>,
    steps: mpsc::UnboundedReceiver<StepEvent>,
    sights: mpsc::UnboundedReceiver<Sight>,
    facts: mpsc::UnboundedReceiver<Looked>,
    peers: mpsc::UnboundedReceiver<PeerEvent>,
    asked: mpsc::Receiver<Asked>,
    turns: Arc<AtomicU64>,
}

/// Starts the agent; it ends with `stop`. The guard goes on.
pub fn start(parts: Parts, stop: CancellationToken) -> (Handles, tokio::task::JoinHandle<()>) {
    let (asked, asked_here) = mpsc::channel(64);
    let (word, word_here) = watch::channel(Arc::new(Word::default()));
    let (status, status_here) = watch::channel(Arc::new(Status::default()));
    let turns = Arc::new(AtomicU64::new(0));
    let task = tokio::spawn(run(parts, stop, (asked_here, turns.clone()), word, status));
    (Handles { word: word_here, status: status_here, asked, turns }, task)
}

async fn run(
    parts: Parts,
    stop: CancellationToken,
    (asked, turns): (mpsc::Receiver<Asked>, Arc<AtomicU64>),
    word: watch::Sender<Arc<Word>>,
    status: watch::Sender<Arc<Status>>,
) {
    let (guard_events, mut guard_here) = mpsc::unbounded_channel();
    let guard = GuardClient::attach(parts.door.clone(), guard_events);
    let (counts, guard_alive) = first_word(&mut guard_here, &parts.settings, &parts.clock.boot_id()).await;

    let (links, links_here) = mpsc::unbounded_channel();
    let (events, events_here) = mpsc::unbounded_channel();
    let (steps, steps_here) = mpsc::unbounded_channel();
    let (sights, sights_here) = mpsc::unbounded_channel();
    let (facts, facts_here) = mpsc::unbounded_channel();
    let (peer_events, peers_here) = mpsc::unbounded_channel();
    let mut inbox = Inbox {
        links: links_here,
        guard: guard_here,
        events: events_here,
        steps: steps_here,
        sights: sights_here,
        facts: facts_here,
        peers: peers_here,
        asked,
        turns,
    };

    let now = parts.clock.reading();
    let (installation, incarnation, largest_bound) = {
        let view = parts.journal.view();
        (view.installation.clone(), view.incarnation, view.largest_bound)
    };
    let runtime = &parts.settings.runtime_directory;
    let promises = Arc::new(Mutex::new(Promises::load(runtime, &parts.clock.boot_id(), largest_bound, now)));
    let bench = Bench {
        cluster: parts.settings.cluster.clone(),
        drivers: parts.drivers.clone(),
        journal: parts.journal.clone(),
        word: word.subscribe(),
        clock: parts.clock.clone(),
        promises: promises.clone(),
        locks: Mutex::default(),
        drills: crate::steps::drill::Ledger::open(&parts.settings.data_directory),
        closing: Mutex::default(),
        onlooker: parts.onlooker,
    };
    let hello = Hello {
        group: String::new(),
        cluster: parts.settings.cluster.to_string(),
        region: parts.settings.region.to_string(),
        installation: installation.to_string(),
        incarnation: incarnation.0,
        peer_address: parts.settings.advertise.clone(),
        witness_key: parts.key.public(),
        endpoints: endpoints(&parts.settings, &parts.drivers),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        stored: Vec::new(),
        boot: parts.clock.boot_id(),
    };
    let (hello, pace) = (watch::Sender::new(Arc::new(hello)), watch::Sender::new(Pace::default()));
    let coordinators = &parts.settings.coordinators;
    let dialling = Dialling::begin(coordinators, parts.dial.clone(), hello.subscribe(), pace.subscribe(), links);
    let looking = looking::Looking::new(&parts.drivers);
    let mut agent = Agent {
        settings: parts.settings,
        drivers: parts.drivers,
        journal: parts.journal,
        installation,
        incarnation,
        dial: parts.dial,
        guard,
        guard_alive,
        guard_lacks: BTreeMap::new(),
        leases: BTreeMap::new(),
        fencers: BTreeMap::new(),
        confirmed: BTreeMap::new(),
        rejoined: BTreeSet::new(),
        rogues: rogue::Rogues::new(),
        diverged: diverged::All::new(),
        resting: quarantine::Services::new(),
        closing: closing::Closing::new(),
        noted_fired: BTreeSet::new(),
        offered_peers: BTreeMap::new(),
        joining: Joining::default(),
        looking,
        dialling,
        links: BTreeMap::new(),
        beat: 0,
        beat_now: false,
        round_trips: BTreeMap::new(),
        steps: Steps::new(Arc::new(bench), steps),
        promises,
        peers: BTreeMap::new(),
        sequence: 0,
        sights: BTreeMap::new(),
        facts: BTreeMap::new(),
        signs: BTreeMap::new(),
        questions: BTreeMap::new(),
        probe_now: BTreeMap::new(),
        hello,
        pace,
        word,
        status,
        events,
        peer_events,
        last_tick: (now, parts.clock.wall()),
        clock: parts.clock,
        seen_revision: None,
    };
    agent.take_up(&counts, now);
    agent.refresh();
    agent.dial_remembered();
    agent.probe_all(&sights);
    facts::look_at_all(&agent.drivers, &agent.clock, agent.looking.rounds(), &facts);
    tracing::info!(cluster = %agent.settings.cluster, incarnation = agent.incarnation.0, "agent is running");
    let looking = tokio::spawn(look_for_room(agent.journal.clone()));
    agent.turn(&mut inbox, &stop).await;
    looking.abort();
    agent.fence_without_guard(&mut inbox.guard).await;
    tracing::info!(cluster = %agent.settings.cluster, "agent ends; its guard goes on while a lease is armed");
    agent.guard.ask(crate::guard::Request::End {});
    // The request is on its way by the time the connection is dropped.
    tokio::task::yield_now().await;
}

/// What the guard counts by: by its word, or by its file if it does not answer in time.
async fn first_word(
    events: &mut mpsc::UnboundedReceiver<GuardEvent>,
    settings: &Settings,
    boot: &str,
) -> (BTreeMap<ApplicationId, Watched>, bool) {
    let up = async {
        loop {
            match events.recv().await {
                Some(GuardEvent::Up(counts) | GuardEvent::Counts(counts)) => return Some(counts),
                Some(GuardEvent::Lost | GuardEvent::Unknown(..)) => {}
                None => return None,
            }
        }
    };
    if let Ok(Some(counts)) = tokio::time::timeout(GUARD_WITHIN, up).await {
        return (counts, true);
    }
    tracing::error!("the guard does not answer: no lease will be held until it does");
    let table = Table::load(&settings.runtime_directory.join("guard.json"), boot);
    (table.map(|table| table.entries().clone()).unwrap_or_default(), false)
}

/// Outside of the loop: the file system may let it wait.
async fn look_for_room(journal: Journal) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        journal.look_again().await;
    }
}

impl Agent {
    /// Leases as journal and guard remember them.
    fn take_up(&mut self, counts: &BTreeMap<ApplicationId, Watched>, now: Reading) {
        let mut applications: BTreeSet<ApplicationId> = self.drivers.keys().cloned().collect();
        applications.extend(self.journal.view().applications.keys().cloned());
        for application in applications {
            let word = counts.get(&application).map_or(GuardWord::Nothing, Watched::word);
            if matches!(word, GuardWord::Fired(_)) {
                self.noted_fired.insert(application.clone());
                self.guard.ask(crate::guard::Request::Disarm { application: application.clone() });
            }
            self.add_lease(&application, word, now);
            self.repeat_holds(&application);
        }
        let applications: Vec<_> = self.leases.keys().cloned().collect();
        for application in applications {
            self.retell_holds(&application, now);
            if self.guard_alive {
                self.with(&application, |lease| lease.guard_up(now));
            }
            self.with(&application, |lease| lease.tick(now));
        }
    }

    fn add_lease(&mut self, application: &ApplicationId, word: GuardWord, now: Reading) {
        let remembered = {
            let view = self.journal.view();
            let view = view.applications.get(application);
            view.map_or_else(Remembered::default, |view| Remembered {
                terms: view.terms.clone(),
                seen: view.seen,
                guarded: view.led.0 > 0,
                marked: view.marked(),
                led: view.led,
            })
        };
        let (cluster, installation) = (self.settings.cluster.clone(), self.installation.clone());
        let mut lease = Lease::new(application.clone(), cluster, installation, remembered, word, now);
        lease.here_is(self.drivers.get(application).into_iter().flatten().map(|(name, _)| name.clone()).collect());
        self.leases.insert(application.clone(), lease);
        self.say_missing(application);
    }

    /// Once for each change of the terms. The gate of the lease itself is in `lease`.
    fn say_missing(&self, application: &ApplicationId) {
        let missing = self.leases.get(application).map(Lease::missing).unwrap_or_default();
        if !missing.is_empty() {
            let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::error!(
                %application, missing,
                "guarded by the terms and not in this agent's agent.yaml: no lease is extended; add it there and restart"
            );
        }
    }

    fn probe_all(&mut self, sights: &mpsc::UnboundedSender<Sight>) {
        for (application, resources) in &self.drivers {
            for (resource, driver) in resources {
                let at_once = Arc::new(Notify::new());
                self.probe_now.insert((application.clone(), resource.clone()), at_once.clone());
                let sights = sights.clone();
                let interval = self.settings.probe_interval;
                let take = move |sight| sights.send(sight).is_ok();
                let names = (application.clone(), resource.clone());
                let probing = probe::Probing { driver: driver.clone(), interval, at_once, clock: self.clock.clone() };
                tokio::spawn(probe::repeat(names.0, names.1, probing, take));
            }
        }
    }

    async fn turn(&mut self, inbox: &mut Inbox, stop: &CancellationToken) {
        loop {
            inbox.turns.fetch_add(1, Ordering::Relaxed);
            let sleep = self.sleep();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(event) = inbox.guard.recv() => self.hear_guard(event),
                Some((link, event)) = inbox.links.recv() => self.hear_link(link, event),
                Some(event) = inbox.events.recv() => self.hear(event),
                Some(event) = inbox.steps.recv() => self.hear_step(event),
                Some(asked) = inbox.asked.recv() => self.answer_question(asked),
                Some(event) = inbox.peers.recv() => self.hear_peer(event),
                Some(sight) = inbox.sights.recv() => self.hear_sight(sight),
                Some(looked) = inbox.facts.recv() => self.hear_looked(looked),
                () = tokio::time::sleep(sleep) => {}
            }
            self.tick();
            self.refresh();
            self.send_due();
        }
    }

    /// Until something is due.
    fn sleep(&self) -> Duration {
        let now = self.clock.reading();
        let leases = self.leases.values().filter_map(|lease| lease.next_change(now));
        let beats = self.links.values().map(|link| link.due_in(now, *self.pace.borrow()));
        let next = leases.map(|span| Duration::from_millis(span.millis())).chain(beats).min();
        next.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    fn tick(&mut self) {
        let (now, wall) = (self.clock.reading(), self.clock.wall());
        let (before, wall_before) = std::mem::replace(&mut self.last_tick, (now, wall));
        let elapsed = i64::try_from(now.held_since(before).millis()).unwrap_or(i64::MAX);
        let moved = (wall.0 - wall_before.0).saturating_sub(elapsed);
        let round_trip = self.pace.borrow().round_trip;
        let applications: Vec<_> = self.leases.keys().cloned().collect();
        for application in applications {
            let healthy = self.is_healthy(&application, now);
            self.with(&application, |lease| {
                lease.healthy_is(healthy);
                lease.round_trip_is(round_trip);
                lease.wall_clock_moved(now, moved)
            });
        }
    }

    /// Changes one lease and carries out what follows.
    fn with(&mut self, application: &ApplicationId, change: impl FnOnce(&mut Lease) -> Vec<crate::lease::Command>) {
        let Some(lease) = self.leases.get_mut(application) else { return };
        let commands = change(lease);
        for command in commands {
            self.carry_out(application, command);
        }
    }
}
