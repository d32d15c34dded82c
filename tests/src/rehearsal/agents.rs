//! The part of an agent that carries out steps, with its journal: a process of its own, which can be ended at any moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use regent_agent::agent::{Standing, Word};
use regent_agent::guard::{Drivers, clock};
use regent_agent::journal::{Journal, Writing};
use regent_agent::steps::order::{Action, Order};
use regent_agent::steps::{Bench, Onlooker, StepEvent, Steps, drill};
use regent_agent::witness::Promises;
use regent_core::application::ResourceKind;
use regent_core::id::ClusterId;
use regent_core::state::State;
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;
use regent_proto::watch;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};

use super::effects::World;
use super::{Happening, Kind, Shared, scene};

/// Longer than any run.
const LEASE: Span = Span::from_secs(3600);

/// See the module.
pub(super) struct Agent {
    pub(super) cluster: ClusterId,
    folder: PathBuf,
    effects: World,
    clockwork: Shared,
    /// None only while it is started again.
    process: Option<Process>,
}

struct Process {
    // In this order: tasks end before what they use.
    runtime: Runtime,
    steps: Steps,
    events: mpsc::UnboundedReceiver<StepEvent>,
    word: watch::Sender<Arc<Word>>,
    stopped: Arc<Notify>,
    journal: Journal,
}

impl Agent {
    pub(super) fn start(cluster: ClusterId, folder: &Path, effects: &World, clockwork: &Shared) -> Result<Self> {
        let folder = folder.join(cluster.as_str());
        let mut agent =
            Self { cluster, folder, effects: effects.clone(), clockwork: Arc::clone(clockwork), process: None };
        agent.restart()?;
        Ok(agent)
    }

    /// Ends it where it stands, and starts it with what is on its disk.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.forget();
        drop(self.process.take());
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (events, events_here) = mpsc::unbounded_channel();
        let (word, stopped) = (watch::Sender::new(Arc::new(Word::default())), Arc::new(Notify::new()));
        let clock = clock::of_this_machine();
        let journal = Journal::open_with(&self.folder.join("data"), Writing::InPlace).context("no journal")?;
        let runtime_folder = self.folder.join("run");
        std::fs::create_dir_all(&runtime_folder)?;
        let promises = Promises::load(&runtime_folder, "boot", Span::ZERO, clock.reading());
        let onlooker = AtEffects {
            cluster: self.cluster.clone(),
            effects: self.effects.clone(),
            clockwork: Arc::clone(&self.clockwork),
            stopped: Arc::clone(&stopped),
        };
        let stored = journal.clone();
        let bench = Bench {
            cluster: self.cluster.clone(),
            drivers: self.drivers()?,
            journal,
            word: word.subscribe(),
            clock,
            promises: Arc::new(Mutex::new(promises)),
            locks: Mutex::default(),
            drills: drill::Ledger::open(&self.folder.join("data")),
            closing: Mutex::default(),
            onlooker: Some(Arc::new(onlooker)),
        };
        let steps = Steps::new(Arc::new(bench), events);
        self.process = Some(Process { runtime, steps, events: events_here, word, stopped, journal: stored });
        Ok(())
    }

    /// What was run and is not on its disk as ended, it will not know.
    fn forget(&self) {
        let Some(process) = &self.process else { return };
        let view = process.journal.view();
        let Some(known) = view.applications.get(&scene::application()) else { return };
        for resource in known.resources.keys() {
            let ended = |token| known.step(resource, token).is_some_and(|step| step.outcome.is_some());
            self.effects.dies(&self.cluster, resource, ended);
        }
    }

    fn drivers(&self) -> Result<Drivers> {
        // The resources are those of every kind of run.
        let document = scene::document(Kind::Switchover)?;
        let primary = self.cluster == scene::from();
        let of_resource = |(name, resource): (&regent_core::id::ResourceId, &regent_core::application::Resource)| {
            let driver = match resource.kind {
                kind if kind.is_guarded() => self.effects.database(&self.cluster, name.as_str(), primary),
                ResourceKind::Command => self.effects.service(&self.cluster, name.as_str(), primary),
                _ => self.effects.service(&self.cluster, name.as_str(), false),
            };
            (name.clone(), driver)
        };
        Ok(BTreeMap::from([(scene::application(), document.resources.iter().map(of_resource).collect())]))
    }

    /// Takes a command, as the applied state is.
    pub(super) fn take(&mut self, state: &State, command: &wire::StepCommand) -> Vec<wire::StepStatus> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let Some(known) = state.applications.get(&scene::application()) else { return Vec::new() };
        let primary = known.primary.as_ref() == Some(&self.cluster);
        let now = clock::of_this_machine().reading();
        let standing = Standing {
            lease: primary.then(|| (known.epoch, now.after(LEASE))),
            open: primary,
            seen: known.epoch,
            primary,
            fence_budget: Span::from_secs(1),
        };
        process.word.send_replace(Arc::new(Word { applications: BTreeMap::from([(scene::application(), standing)]) }));
        let _inside = process.runtime.enter();
        process.steps.take(command, known.epoch, |_| None)
    }

    /// Works until something has ended, or a moment has come; says what ended.
    pub(super) fn work(&mut self) -> Vec<wire::StepStatus> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let (events, stopped) = (&mut process.events, &process.stopped);
        let event = process.runtime.block_on(async {
            tokio::select! {
                biased;
                () = stopped.notified() => None,
                event = events.recv() => event,
            }
        });
        let _inside = process.runtime.enter();
        event.map(|event| process.steps.note(event)).unwrap_or_default()
    }

    /// What a new stream hears.
    pub(super) fn all(&self) -> Vec<wire::StepStatus> {
        self.process.as_ref().map(|process| process.steps.all()).unwrap_or_default()
    }

    pub(super) fn running(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.steps.running())
    }
}

struct AtEffects {
    cluster: ClusterId,
    effects: World,
    clockwork: Shared,
    stopped: Arc<Notify>,
}

impl AtEffects {
    /// A moment passes; who dies in it goes no further.
    async fn pass(&self) {
        let what = {
            let mut clockwork = self.clockwork.lock().unwrap_or_else(PoisonError::into_inner);
            let what = clockwork.pass();
            clockwork.pending = what.or(clockwork.pending);
            what
        };
        match what {
            Some(Happening::Agent | Happening::Both) => {
                self.stopped.notify_one();
                std::future::pending::<()>().await;
            }
            Some(Happening::Leader) => {
                self.stopped.notify_one();
                tokio::task::yield_now().await;
            }
            Some(Happening::Twice) | None => {}
        }
    }
}

#[async_trait::async_trait]
impl Onlooker for AtEffects {
    async fn before(&self, _order: &Order) {
        self.pass().await;
    }

    async fn after(&self, order: &Order) {
        if let (Action::Run(_), Some(resource)) = (&order.action, &order.resource) {
            self.effects.was_run(&self.cluster, resource, order.name.token);
        }
        self.pass().await;
    }
}
