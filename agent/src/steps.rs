//! Steps: what was commanded, what runs, and how it ended.
//!
//! A command is known by its token. One that runs is attached to; one that has ended is answered from the record; one
//! below the highest token of its resource, or below the highest epoch seen, is refused. Nothing opens writes but
//! under a lease, and whatever lapses ends it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::id::{ApplicationId, Epoch, ResourceId, Token};
use regent_proto::agent::v1 as wire;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::driver::{Driver, FenceReach};
use crate::journal::{Outcome, Record, View};

mod before;
mod carry_out;
pub mod drill;
pub mod order;
mod restore;

pub use carry_out::{Bench, Locks, Onlooker};
use order::{Action, Order, Refused, StepName, running, status};

/// So many ended steps are said again on every new stream.
const KEPT: usize = 64;
/// And for so long.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// What a step's task says.
#[derive(Debug)]
pub enum StepEvent {
    /// It waits.
    Waits(Key),
    /// It has ended.
    Ended(Key, Outcome),
}

/// Names a running step.
pub type Key = (ApplicationId, Token);

struct Active {
    order: Order,
    /// The attempts that were attached since; each hears the end.
    attached: Vec<StepName>,
    waits: Arc<Mutex<String>>,
    stop: CancellationToken,
    stopped: CancellationToken,
    why_stopped: Arc<Mutex<Option<Refused>>>,
}

/// The steps of this agent. Owned by its loop.
pub struct Steps {
    bench: Arc<Bench>,
    active: BTreeMap<Key, Active>,
    ended: VecDeque<(tokio::time::Instant, wire::StepStatus)>,
    events: mpsc::UnboundedSender<StepEvent>,
}

impl Steps {
    /// None yet.
    #[must_use]
    pub const fn new(bench: Arc<Bench>, events: mpsc::UnboundedSender<StepEvent>) -> Self {
        Self { bench, active: BTreeMap::new(), ended: VecDeque::new(), events }
    }

    /// Takes a command. `seen` is the highest epoch seen of its application. The statuses are to be said at once.
    /// `clear` is told of an order before it begins; the order waits for what that returns to be cancelled.
    pub fn take(
        &mut self,
        command: &wire::StepCommand,
        seen: Epoch,
        clear: impl FnOnce(&Order) -> Option<CancellationToken>,
    ) -> Vec<wire::StepStatus> {
        let order = match Order::parse(command) {
            Ok(order) => order,
            Err(refused) => return vec![self.refuse(raw_name(command), refused)],
        };
        let key = (order.application.clone(), order.name.token);
        if let Some(active) = self.active.get(&key) {
            return vec![active.running(order.name)];
        }
        if let Some(status) = self.just_ended(&order) {
            return vec![status];
        }
        if let Some(outcome) = self.remembered(&order) {
            return vec![status(order.name, &outcome)];
        }
        if let Err(refused) = self.check(&order, seen) {
            return vec![self.refuse(order.name, refused)];
        }
        let same_step = |active: &&mut Active| {
            let name = active.order.name;
            (name.run, name.step) == (order.name.run, order.name.step) && active.order.application == order.application
        };
        if let Some(active) = self.active.values_mut().find(same_step) {
            // A step that still runs is attached to, never started twice.
            active.attached.push(order.name);
            let said = active.running(order.name);
            self.remember_attached(&order);
            return vec![said];
        }
        let mut ending = self.supersede(&order);
        ending.extend(self.giving_way(&order));
        ending.extend(clear(&order));
        vec![self.begin(order, ending)]
    }

    /// Ends steps that open writes, because their lease is gone. What is returned is cancelled once each has ended.
    pub fn stop_opening(&mut self, application: &ApplicationId) -> Vec<CancellationToken> {
        let opening = |active: &&Active| active.order.action.opens() && active.order.application == *application;
        let lapsed = Refused::for_now("lease-lapsed", "the lease lapsed while the step ran; the agent fences");
        self.active.values().filter(opening).map(|active| active.stop(lapsed.clone())).collect()
    }

    /// Takes note of what a step's task says; the statuses are to be said to every coordinator.
    pub fn note(&mut self, event: StepEvent) -> Vec<wire::StepStatus> {
        match event {
            StepEvent::Waits(key) => self.active.get(&key).map(Active::newest).into_iter().collect(),
            StepEvent::Ended(key, outcome) => {
                let Some(active) = self.active.remove(&key) else { return Vec::new() };
                let names = std::iter::once(active.order.name).chain(active.attached.iter().copied());
                let statuses: Vec<_> = names.map(|name| status(name, &outcome)).collect();
                for attached in &active.attached {
                    let order = Order { name: *attached, ..active.order.clone() };
                    self.bench.store_end(&order, &outcome);
                }
                statuses.iter().for_each(|status| self.keep(status.clone()));
                statuses
            }
        }
    }

    /// What a new stream must hear: every step that runs, and those that ended lately.
    #[must_use]
    pub fn all(&self) -> Vec<wire::StepStatus> {
        let fresh = self.ended.iter().filter(|(at, _)| at.elapsed() < KEPT_FOR).map(|(_, status)| status.clone());
        fresh.chain(self.active.values().map(Active::newest)).collect()
    }

    /// True if a step of the application above this epoch runs.
    #[must_use]
    pub fn any_above(&self, application: &ApplicationId, epoch: Epoch) -> bool {
        let above =
            |order: &Order| order.application == *application && order.epoch > epoch && !order.action.rehearses();
        self.active.values().any(|active| above(&active.order))
    }

    /// True if a step of the application that opens writes runs.
    #[must_use]
    pub fn any_opening(&self, application: &ApplicationId) -> bool {
        self.active.values().any(|active| active.order.application == *application && active.order.action.opens())
    }

    /// True if a step runs that fences or quiesces this resource: its record may not be stored yet.
    #[must_use]
    pub fn is_being_closed(&self, application: &ApplicationId, resource: &ResourceId) -> bool {
        let concerns = |order: &Order| order.resource.as_ref().is_none_or(|one| one == resource);
        let closes = |order: &Order| order.application == *application && order.action.closes() && concerns(order);
        self.active.values().any(|active| closes(&active.order))
    }

    /// True if a step that concerns this resource runs.
    #[must_use]
    pub fn is_busy(&self, application: &ApplicationId, resource: &ResourceId) -> bool {
        let concerns = |order: &Order| order.resource.as_ref().is_none_or(|one| one == resource);
        let real = |order: &Order| order.application == *application && !order.action.rehearses();
        self.active.values().any(|active| real(&active.order) && concerns(&active.order))
    }

    /// A commanded fence or quiesce that stood at the start is carried out again, until what is returned is dropped:
    /// steps that open the resource wait for that.
    #[must_use]
    pub fn closing_again(&self, application: &ApplicationId, resource: &ResourceId) -> DropGuard {
        let ended = CancellationToken::new();
        self.bench.closing_again(application, resource, ended.clone());
        ended.drop_guard()
    }

    /// True while that goes on.
    #[must_use]
    pub fn is_closing_again(&self, application: &ApplicationId, resource: &ResourceId) -> bool {
        self.bench.is_closing_again(application, resource)
    }

    /// The order of a running step.
    #[must_use]
    pub fn order(&self, key: &Key) -> Option<&Order> {
        self.active.get(key).map(|active| &active.order)
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.active.len()
    }

    fn begin(&mut self, order: Order, ending: Vec<CancellationToken>) -> wire::StepStatus {
        let key = (order.application.clone(), order.name.token);
        let active = Active {
            order: order.clone(),
            attached: Vec::new(),
            waits: Arc::default(),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
            why_stopped: Arc::default(),
        };
        let (stop, stopped, waits) = (active.stop.clone(), active.stopped.clone(), active.waits.clone());
        let (why, bench, events) = (active.why_stopped.clone(), self.bench.clone(), self.events.clone());
        let said = running(order.name, "begun");
        let names = (order.name.run, order.name.step, order.name.attempt);
        tracing::info!(
            application = %order.application, epoch = order.epoch.0, run = names.0, step = names.1, attempt = names.2,
            "step begins"
        );
        self.active.insert(key.clone(), active);
        tokio::spawn(async move {
            let say = |text: String| {
                *waits.lock().unwrap_or_else(PoisonError::into_inner) = text;
                let _ = events.send(StepEvent::Waits(key.clone()));
            };
            // What was begun is dropped before a fence may begin: nothing opens behind it.
            let outcome = {
                let _stopped = stopped.drop_guard();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    outcome = bench.carry_out(&order, &ending, &say) => Some(outcome),
                }
            };
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => {
                    let refused = why.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let ended = || Refused::for_now("agent-ends", "the agent is ending");
                    let outcome = refused.unwrap_or_else(ended).outcome();
                    bench.store_end(&order, &outcome);
                    outcome
                }
            };
            tracing::info!(
                application = %order.application, epoch = order.epoch.0, run = names.0, step = names.1,
                attempt = names.2, code = outcome.code, already = outcome.already, "step ended"
            );
            let _ = events.send(StepEvent::Ended(key, outcome));
        });
        said
    }

    /// How the step of this very token ended, if that was lately: it may not be on record yet. So it is with a listed command
    /// that another attempt has ended well.
    fn just_ended(&self, order: &Order) -> Option<wire::StepStatus> {
        let token = crate::uplink::convert::wire_token(order.name.token);
        let lately = || self.ended.iter().map(|(_, status)| status);
        if let Some(status) = lately().find(|status| status.token == Some(token)) {
            return Some(status.clone());
        }
        let of_the_command = |status: &&wire::StepStatus| {
            (status.run, status.step) == (order.name.run, order.name.step)
                && status.phase() == wire::StepPhase::Succeeded
                && status.token.is_some_and(|ended| ended.restoration == token.restoration)
        };
        let status = lately().find(of_the_command).filter(|_| self.runs_a_command(order))?;
        Some(wire::StepStatus { attempt: order.name.attempt, token: Some(token), ..status.clone() })
    }

    /// A step of which no driver can read in reality whether it was done: what a listed command does, only its author knows.
    fn runs_a_command(&self, order: &Order) -> bool {
        let of_no_database = |targets: BTreeMap<ResourceId, Arc<dyn Driver>>| {
            targets.values().all(|driver| driver.fence_reach() == FenceReach::Nothing)
        };
        match order.action {
            Action::Run(_) => true,
            Action::Restore => self.bench.targets(order).is_ok_and(of_no_database),
            _ => false,
        }
    }

    /// How the step of this very token ended, if that is on record. A listed command that has ended well is not run
    /// again by another attempt, whose report of the first was lost: no driver can read in reality what it did (S4).
    fn remembered(&self, order: &Order) -> Option<Outcome> {
        if order.action.rehearses() {
            return self.bench.drills.outcome(order);
        }
        let view = self.bench.journal.view();
        let application = view.applications.get(&order.application)?;
        let resources = order.resource.iter();
        let any = application.resources.keys().filter(|_| order.resource.is_none());
        let (name, runs_a_command) = (order.name, self.runs_a_command(order));
        let same = |begun: &crate::journal::Begun| {
            let again = runs_a_command && (begun.run, begun.step) == (name.run, name.step);
            again && begun.token.restoration == name.token.restoration
        };
        resources.chain(any).find_map(|resource| {
            let by_token = application.step(resource, name.token).and_then(|step| step.outcome.clone());
            let steps = application.resources.get(resource).map(|view| view.steps.as_slice()).unwrap_or_default();
            let mut ended = steps.iter().filter(|step| same(&step.begun)).filter_map(|step| step.outcome.as_ref());
            by_token.or_else(|| ended.find(|outcome| outcome.code.is_empty()).cloned())
        })
    }

    fn check(&self, order: &Order, seen: Epoch) -> Result<(), Refused> {
        let targets = self.bench.targets(order)?;
        if order.action.rehearses() {
            let highest =
                self.bench.drills.highest(order).max(self.begun(&order.application, order.resource.as_ref(), true));
            return drill::check(order, seen, highest);
        }
        if order.epoch < seen {
            let message = format!("epoch {} is below {seen}, which this agent has seen", order.epoch);
            return Err(Refused::new("stale-epoch", message));
        }
        let view = self.bench.journal.view();
        for resource in targets.keys() {
            let highest = self.highest(&view, &order.application, resource);
            if order.name.token < highest {
                let message = format!("token {} is below {highest}, the highest of {resource}", order.name.token);
                return Err(Refused::new("stale-token", message));
            }
        }
        Ok(())
    }

    /// On the disk, or on its way there.
    fn highest(&self, view: &View, application: &ApplicationId, resource: &ResourceId) -> Token {
        let stored = view.applications.get(application).and_then(|view| view.resources.get(resource));
        self.begun(application, Some(resource), false).max(stored.map(|view| view.token).unwrap_or_default())
    }

    /// The highest token of what runs here; the steps of drills and the others have nothing to do with each other.
    fn begun(&self, application: &ApplicationId, resource: Option<&ResourceId>, rehearsed: bool) -> Token {
        let counts = |order: &Order| {
            order.application == *application
                && order.action.rehearses() == rehearsed
                && order.resource.as_ref().is_none_or(|one| Some(one) == resource)
        };
        let begun = self.active.values().filter(|active| counts(&active.order));
        let tokens = begun.flat_map(|active| active.attached.iter().chain([&active.order.name]).map(|name| name.token));
        tokens.max().unwrap_or_default()
    }

    /// A higher epoch supersedes runs of lower ones; a fence ends what opens the same resource. Those that open are
    /// returned: each is cancelled once it has ended.
    fn supersede(&self, order: &Order) -> Vec<CancellationToken> {
        let mut ending = Vec::new();
        let superseded = Refused::new("superseded", format!("a step of epoch {} has begun", order.epoch));
        let fenced = Refused::for_now("superseded", "a fence of the same resource was commanded");
        let cleaned = Refused::new("superseded", "the drill has ended: what it made is taken away");
        for active in self.active.values().filter(|active| active.order.application == order.application) {
            let same = order.resource.is_none() || active.order.resource == order.resource;
            if order.action.cleans_up() && same && active.order.action.rehearses() {
                ending.push(active.stop(cleaned.clone()));
                continue;
            }
            // Whatever else is commanded, what takes copies away goes on; and no drill ends anything that is real.
            if order.action.rehearses() || active.order.action.cleans_up() {
                continue;
            }
            let stopped = if active.order.epoch < order.epoch {
                active.stop(superseded.clone())
            } else if same && order.action == Action::Fence && active.order.action.opens() {
                active.stop(fenced.clone())
            } else {
                continue;
            };
            if same && active.order.action.opens() {
                ending.push(stopped);
            }
        }
        ending
    }

    /// A quiesce gives way to what lifts it, and is awaited by it: an undo waits for no transactions. It is not dropped: what
    /// it has begun in files would come after.
    fn giving_way(&self, order: &Order) -> Vec<CancellationToken> {
        let quiets = |active: &&Active| {
            let (running, same) = (&active.order, active.order.resource == order.resource);
            running.action == Action::Quiesce && running.application == order.application && same
        };
        let lifts = order.action == Action::Unfence;
        self.active.values().filter(quiets).filter(|_| lifts).map(|active| active.stopped.clone()).collect()
    }

    fn remember_attached(&self, order: &Order) {
        if order.action.rehearses() {
            return;
        }
        let Ok(targets) = self.bench.targets(order) else { return };
        let step = crate::journal::Begun {
            run: order.name.run,
            step: order.name.step,
            attempt: order.name.attempt,
            token: order.name.token,
            application: order.application.clone(),
            resources: targets.into_keys().collect(),
            epoch: order.epoch,
        };
        tokio::spawn(self.bench.journal.append(vec![Record::Begun { step }]));
    }

    fn refuse(&mut self, name: StepName, refused: Refused) -> wire::StepStatus {
        tracing::warn!(run = name.run, step = name.step, attempt = name.attempt, code = refused.code, "step refused");
        let status = status(name, &refused.outcome());
        self.keep(status.clone());
        status
    }

    fn keep(&mut self, status: wire::StepStatus) {
        self.ended.push_back((tokio::time::Instant::now(), status));
        while self.ended.len() > KEPT {
            self.ended.pop_front();
        }
    }
}

impl Active {
    fn stop(&self, why: Refused) -> CancellationToken {
        self.why_stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.stop.cancel();
        self.stopped.clone()
    }

    fn running(&self, name: StepName) -> wire::StepStatus {
        running(name, &self.waits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn newest(&self) -> wire::StepStatus {
        self.running(self.attached.last().copied().unwrap_or(self.order.name))
    }
}

fn raw_name(command: &wire::StepCommand) -> StepName {
    let token = command.token.as_ref().map(crate::uplink::convert::token).unwrap_or_default();
    StepName { run: command.run, step: command.step, attempt: command.attempt, token }
}
