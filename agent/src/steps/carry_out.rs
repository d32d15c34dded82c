//! Carries one step out: stored, then locked, then under the lease where it opens, then done, checked and stored.

use regent_proto::watch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::id::{ApplicationId, ClusterId, ResourceId};
use tokio_util::sync::CancellationToken;

use crate::agent::Word;
use crate::driver::{Done, Driver, DriverError, FenceReach};
use crate::fence;
use crate::guard::Drivers;
use crate::guard::clock::Clock;
use crate::journal::{Begun, Hold, Journal, JournalError, Outcome, Record, Stale};
use crate::probe::millis;
use crate::steps::before::break_off;
use crate::steps::drill;
use crate::steps::order::{Action, Order, Refused};
use crate::witness::Promises;

/// Between two looks at how far something has come.
const PROGRESS: Duration = Duration::from_millis(500);

/// Looks on where a step acts, and may hold it there: tests that end a process just before or just after an effect.
#[async_trait::async_trait]
pub trait Onlooker: Send + Sync {
    /// Everything is stored and awaited that comes before the effect.
    async fn before(&self, order: &Order);
    /// The driver has returned; nobody knows yet.
    async fn after(&self, order: &Order);
}

/// What every step works with.
pub struct Bench {
    /// This cluster.
    pub cluster: ClusterId,
    /// Of every resource here.
    pub drivers: Drivers,
    /// The durable memory.
    pub journal: Journal,
    /// Which leases run.
    pub word: watch::Receiver<Arc<Word>>,
    /// Of this machine.
    pub clock: Arc<dyn Clock>,
    /// What was promised.
    pub promises: Arc<Mutex<Promises>>,
    /// One step at a time on a resource.
    pub locks: Mutex<Locks>,
    /// What drills have done here.
    pub drills: drill::Ledger,
    /// What the agent closes by itself: commanded fences that stood at the start and are carried out again, rogue writers,
    /// services in quarantine. Each is cancelled once that has ended.
    pub closing: Mutex<BTreeMap<(ApplicationId, ResourceId), CancellationToken>>,
    /// Only in tests.
    pub onlooker: Option<Arc<dyn Onlooker>>,
}

/// By resource.
pub type Locks = BTreeMap<(ApplicationId, ResourceId), Arc<tokio::sync::Mutex<()>>>;

/// Of an effect.
pub(super) enum Side {
    Before,
    After,
}

type Targets = BTreeMap<ResourceId, Arc<dyn Driver>>;

impl Bench {
    /// From the first record to the last. `ending` are cancelled once what opened here before has ended. `waits` hears
    /// what is waited for.
    pub async fn carry_out(
        &self,
        order: &Order,
        ending: &[CancellationToken],
        waits: &(dyn Fn(String) + Send + Sync),
    ) -> Outcome {
        let again = self.began_before(order);
        let mut outcome = match tokio::time::timeout(order.timeout, self.begin_and_do(order, ending, waits)).await {
            Ok(Ok(done)) if done.stored => return done.outcome,
            Ok(Ok(done)) => done.outcome,
            Ok(Err(refused)) => refused.outcome(),
            Err(_) => {
                let message = format!("not done within {} ms", order.timeout.as_millis());
                Refused::for_now("timeout", message).outcome()
            }
        };
        // What is at rest may have been stopped by this very step, whose word was lost: then its undo has to start it.
        outcome.already &= !(again && matches!(order.action, Action::Quiesce | Action::Deactivate));
        self.store_end(order, &outcome);
        outcome
    }

    /// An attempt at this step began here, perhaps in a process before this one.
    fn began_before(&self, order: &Order) -> bool {
        let view = self.journal.view();
        let resources = view.applications.get(&order.application).map(|view| &view.resources);
        let stored = order.resource.as_ref().and_then(|resource| resources?.get(resource));
        let name = order.name;
        stored.into_iter().flat_map(|view| &view.steps).any(|step| {
            let begun = &step.begun;
            (begun.run, begun.step) == (name.run, name.step) && begun.token.restoration == name.token.restoration
        })
    }

    /// Stores how it ended. The word of it does not wait for the disk: what is lost in a crash runs again, and drivers
    /// read reality first. Until it is on the disk, this process remembers it.
    pub fn store_end(&self, order: &Order, outcome: &Outcome) {
        if order.action.rehearses() {
            return self.drills.end(order, outcome);
        }
        let records = self.ended(order, outcome);
        if !records.is_empty() {
            // On its way from here on; that it does not reach the disk is told by the journal itself.
            drop(self.journal.append(records));
        }
    }

    fn ended(&self, order: &Order, outcome: &Outcome) -> Vec<Record> {
        let ended = self.targets(order).unwrap_or_default().into_keys().map(|resource| Record::Ended {
            application: order.application.clone(),
            resource,
            token: order.name.token,
            outcome: outcome.clone(),
        });
        ended.collect()
    }

    async fn begin_and_do(
        &self,
        order: &Order,
        ending: &[CancellationToken],
        waits: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Carried, Refused> {
        if order.action.rehearses() {
            return self.rehearse(order, ending, waits).await.map(Carried::new);
        }
        let targets = self.targets(order)?;
        let mut records = vec![Record::Begun { step: begun(order, targets.keys()) }];
        let hold = match order.action {
            Action::Fence => Some(Hold::Fence),
            Action::Quiesce => Some(Hold::Quiesce),
            _ => None,
        };
        let held = |resource: &ResourceId, hold| {
            let (application, resource) = (order.application.clone(), resource.clone());
            Record::Commanded { application, resource, hold }
        };
        records.extend(hold.into_iter().flat_map(|hold| targets.keys().map(move |resource| held(resource, hold))));
        let storing = self.journal.append(records);
        if order.action == Action::Fence {
            // A fence waits for no disk; it is confirmed only once it is stored.
            let (fenced, stored) = tokio::join!(self.fence(order, ending, &targets), storing);
            let outcome = fenced?;
            return stored.map(|()| Carried::new(outcome)).map_err(|error| {
                let Refused { message, .. } = full(error);
                Refused::for_now("journal-full", format!("fenced, but that could not be stored: {message}"))
            });
        }
        if order.action == Action::Release {
            storing.await.map_err(full)?;
            let released = self.journal.append(vec![Record::Released { application: order.application.clone() }]);
            released.await.map_err(full)?;
            return Ok(Carried::new(Outcome { message: "released".to_owned(), ..Outcome::default() }));
        }
        // The token is on the disk before anything is done; what only looks may look meanwhile, and what has to wait
        // may wait meanwhile.
        let storing = async { storing.await.map_err(full) };
        if order.action.looks() {
            let doing = async { self.on_one(order, &targets, waits).await };
            let (done, stored) = tokio::join!(doing, storing);
            stored?;
            return done;
        }
        if order.action.opens() {
            return self.open(order, ending, &targets, waits, storing).await;
        }
        storing.await?;
        if order.action.closes() {
            futures::future::join_all(ending.iter().map(CancellationToken::cancelled)).await;
        }
        self.on_one(order, &targets, waits).await
    }

    /// What opens nothing, on its one resource.
    async fn on_one(
        &self,
        order: &Order,
        targets: &Targets,
        waits: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Carried, Refused> {
        let (resource, driver) = only(targets)?;
        let _one_at_a_time = self.take_turn(order, resource, waits).await;
        if let Action::Rejoin(_) = order.action {
            self.wait_for_closing(order, (resource, driver), waits).await;
            self.refuse_rejoin_of_a_primary(order, driver).await?;
        }
        if order.action == Action::Restore {
            self.wait_for_closing(order, (resource, driver), waits).await;
            self.refuse_restore_of_what_serves(order, resource, driver).await?;
        }
        self.show(order, Side::Before).await;
        let began = tokio::time::Instant::now();
        // What is no database has no marker, and nothing that opens it.
        let by_command = order.action == Action::Restore && driver.fence_reach() == FenceReach::Nothing;
        let done = if by_command {
            self.restore_by_command(order, resource, driver).await?
        } else {
            act(order, driver, waits).await
        };
        let took = began.elapsed();
        self.show(order, Side::After).await;
        if order.action == Action::Restore && done.is_ok() && !by_command {
            self.mark_restored(order, driver).await?;
        }
        self.note_effect(order, resource, outcome(done.map_err(refused)?, took)).await
    }

    /// What opens writes: under the lease of its epoch, from before it begins until after it has ended. What it undoes, and
    /// may only be about to begin, ends before its turn comes.
    async fn open(
        &self,
        order: &Order,
        ending: &[CancellationToken],
        targets: &Targets,
        waits: &(dyn Fn(String) + Send + Sync),
        storing: impl Future<Output = Result<(), Refused>>,
    ) -> Result<Carried, Refused> {
        let (resource, driver) = only(targets)?;
        if order.action == Action::Unfence {
            break_off(driver, futures::future::join_all(ending.iter().map(CancellationToken::cancelled))).await;
        }
        let _one_at_a_time = self.take_turn(order, resource, waits).await;
        let preparing = async {
            storing.await?;
            if let Action::Promote { .. } = order.action
                && let Err(error) = driver.prepare().await
            {
                // The promotion itself does the same, and tells what is in its way.
                tracing::debug!(application = %order.application, %resource, %error, "not prepared");
            }
            Ok(())
        };
        let waiting = async {
            self.wait_for_promise(order, waits).await?;
            self.wait_for_closing(order, (resource, driver), waits).await;
            self.wait_for_lease(order, waits).await
        };
        tokio::try_join!(preparing, waiting)?;
        // It may have lapsed while the other was waited for.
        self.wait_for_lease(order, waits).await?;
        self.end_older_fence(order, resource).await?;
        self.show(order, Side::Before).await;
        let began = tokio::time::Instant::now();
        let done = act(order, driver, waits).await;
        let took = began.elapsed();
        self.show(order, Side::After).await;
        // The database may have been opened while the lease lapsed: the fence is on its way, and this is no success.
        self.word
            .borrow()
            .lease(order, self.clock.reading())
            .map_err(|why| Refused::for_now("lease-lapsed", format!("the lease lapsed during the step: {why}")))?;
        self.note_effect(order, resource, outcome(done.map_err(refused)?, took)).await
    }

    async fn take_turn(
        &self,
        order: &Order,
        resource: &ResourceId,
        waits: &(dyn Fn(String) + Send + Sync),
    ) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = self.lock(&order.application, resource);
        match lock.clone().try_lock_owned() {
            Ok(free) => free,
            Err(_) => {
                waits("waits for another step on the same resource".to_owned());
                lock.lock_owned().await
            }
        }
    }

    /// The resources a step counts for: its own, or each of the application.
    pub fn targets(&self, order: &Order) -> Result<Targets, Refused> {
        let known = self.drivers.get(&order.application);
        match &order.resource {
            Some(resource) => {
                let driver = known.and_then(|resources| resources.get(resource)).ok_or_else(|| {
                    let message = format!("resource {resource} is not in this cluster's agent.yaml; add it there");
                    Refused::new("unknown-resource", message)
                })?;
                Ok(BTreeMap::from([(resource.clone(), driver.clone())]))
            }
            None if order.action == Action::Release => Ok(known.cloned().unwrap_or_default()),
            None => {
                let all = known.cloned().unwrap_or_default();
                Ok(all.into_iter().filter(|(_, driver)| driver.fence_reach() != FenceReach::Nothing).collect())
            }
        }
    }

    /// What opens has been told to end. A fence that began beside it could be confirmed over an open database.
    async fn fence(&self, order: &Order, ending: &[CancellationToken], targets: &Targets) -> Result<Outcome, Refused> {
        self.show(order, Side::Before).await;
        let budget = self.word.borrow().fence_budget(&order.application);
        let half = Duration::from_millis(budget.divided(2).millis()).min(order.timeout / 2);
        let began = tokio::time::Instant::now();
        let all_ended = futures::future::join_all(ending.iter().map(CancellationToken::cancelled));
        let ended = tokio::time::timeout(half, all_ended).await.is_ok();
        let fences = targets.iter().map(|(resource, driver)| fence::one(&order.application, resource, driver, half));
        let mut last = Done { already: true, ..Done::default() };
        for fenced in futures::future::join_all(fences).await {
            let done = fenced.map_err(refused)?;
            last = Done { already: last.already && done.already, hard: last.hard || done.hard, ..done };
        }
        if !ended {
            let message = "fenced, but what opened the database before has not ended; fence it again";
            return Err(Refused::for_now("still-opening", message));
        }
        self.show(order, Side::After).await;
        Ok(outcome(last, began.elapsed()))
    }

    pub(super) async fn show(&self, order: &Order, side: Side) {
        match (&self.onlooker, side) {
            (None, _) => {}
            (Some(onlooker), Side::Before) => onlooker.before(order).await,
            (Some(onlooker), Side::After) => onlooker.after(order).await,
        }
    }

    fn lock(&self, application: &ApplicationId, resource: &ResourceId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry((application.clone(), resource.clone())).or_default().clone()
    }

    /// What a later process must know of what was done, in one record with how it ended.
    async fn note_effect(&self, order: &Order, resource: &ResourceId, outcome: Outcome) -> Result<Carried, Refused> {
        let (application, resource) = (order.application.clone(), resource.clone());
        let record = match order.action {
            Action::Promote { .. } | Action::Unfence => Record::Opened { application, resource, epoch: order.epoch },
            // Seen as standby of the new primary: that ends every older fence.
            Action::Rejoin(_) => Record::Lifted { application, resource },
            _ => return Ok(Carried::new(outcome)),
        };
        let records = std::iter::once(record).chain(self.ended(order, &outcome)).collect();
        self.journal.append(records).await.map_err(full)?;
        Ok(Carried { outcome, stored: true })
    }
}

/// What was done, and whether its end is on the disk already.
struct Carried {
    outcome: Outcome,
    stored: bool,
}

impl Carried {
    const fn new(outcome: Outcome) -> Self {
        Self { outcome, stored: false }
    }
}

pub(super) fn full(error: JournalError) -> Refused {
    Refused::for_now("journal-full", crate::journal::chain(&error))
}

fn only(targets: &Targets) -> Result<(&ResourceId, &Arc<dyn Driver>), Refused> {
    let mut all = targets.iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Refused::new("bad-command", "this step names no resource")),
    }
}

pub(super) async fn act(
    order: &Order,
    driver: &Arc<dyn Driver>,
    waits: &(dyn Fn(String) + Send + Sync),
) -> Result<Done, DriverError> {
    match &order.action {
        Action::Fence | Action::Release => Ok(Done::default()),
        Action::Unfence => driver.unfence().await,
        Action::Quiesce => driver.quiesce().await,
        Action::CatchUp(position) => catch_up(driver, *position, waits).await,
        Action::Promote { position } => driver.promote(*position).await,
        Action::Activate => driver.activate().await,
        Action::Deactivate => driver.deactivate().await,
        Action::Redirect(redirect) => driver.redirect(redirect).await,
        Action::Verify => driver.verify().await,
        Action::Rejoin(rejoin) => driver.rejoin(rejoin).await,
        Action::Restore => driver.restore(order.name.run).await,
        Action::Run(command) => driver.run(command).await,
        Action::Rehearse(rehearse) => drill::act(rehearse, driver, order.name.run).await,
    }
}

/// Says how far it has come, by the probe, whenever that has changed.
async fn catch_up(
    driver: &Arc<dyn Driver>,
    position: u64,
    waits: &(dyn Fn(String) + Send + Sync),
) -> Result<Done, DriverError> {
    let mut said = None;
    let mut caught_up = std::pin::pin!(driver.catch_up(position));
    loop {
        tokio::select! {
            biased;
            done = &mut caught_up => return done,
            () = tokio::time::sleep(PROGRESS) => {}
        }
        let probe = tokio::select! {
            biased;
            done = &mut caught_up => return done,
            probe = driver.probe() => probe,
        };
        if probe.position != said {
            said = probe.position;
            let left = said.map(|reached| position.saturating_sub(reached));
            waits(match left {
                Some(left) => format!("catches up: {left} bytes are missing, at {}", probe.position_text),
                None => "catches up: it is not known where it stands".to_owned(),
            });
        }
    }
}

fn begun<'a>(order: &Order, resources: impl Iterator<Item = &'a ResourceId>) -> Begun {
    Begun {
        run: order.name.run,
        step: order.name.step,
        attempt: order.name.attempt,
        token: order.name.token,
        application: order.application.clone(),
        resources: resources.cloned().collect::<BTreeSet<_>>(),
        epoch: order.epoch,
    }
}

pub(super) fn refused(error: DriverError) -> Refused {
    Refused { code: error.code, message: error.message, retryable: error.retryable }
}

pub(super) fn outcome(done: Done, took: Duration) -> Outcome {
    let stale = done.stale_answers.into_iter().map(|stale| Stale {
        server: stale.server,
        for_ms: millis(stale.lasted),
        cleared: stale.cleared,
        reached: stale.reached,
    });
    Outcome {
        message: done.message,
        driver_ms: millis(took),
        position: done.position,
        timeline: done.timeline,
        already: done.already,
        hard: done.hard,
        stale_answers: stale.collect(),
        rehearsed_ms: done.rehearsed.map(millis),
        ..Outcome::default()
    }
}
