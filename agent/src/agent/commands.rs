//! Carries out what a lease commands, each in a task that reports back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use regent_core::id::{ApplicationId, Epoch, ResourceId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::agent::guarding::{Found, Guarding};
use crate::agent::{Agent, Event};
use crate::driver::{Driver, FenceReach, Marker};
use crate::fence::Guarded;
use crate::guard::{GuardEvent, Request};
use crate::journal::{Hold, Record};
use crate::lease::{Alert, Command, Fence, Lease};

/// What a gentle fence may take when the agent is told to end and no guard answers.
const GENTLE_AT_THE_END: Duration = Duration::from_secs(1);

impl Agent {
    pub(super) fn carry_out(&mut self, application: &ApplicationId, command: Command) {
        let now = self.clock.reading();
        match command {
            Command::Heartbeat => self.beat_now = true,
            Command::StoreTerms(terms) => {
                let peers = self.offered_peers.get(application).cloned().unwrap_or_default();
                let record = Record::Terms { application: application.clone(), terms: terms.clone(), peers };
                let (stored, events) = (self.journal.append(vec![record]), self.events.clone());
                let application = application.clone();
                tokio::spawn(async move {
                    let stored = stored.await.is_ok();
                    let _ = events.send(Event::TermsStored(application, terms, stored));
                });
            }
            Command::NameTerms(terms) => tracing::info!(%application, %terms, "terms are named"),
            Command::ArmGuard(arm) => {
                // By name: what nobody here can end must not be taken for guarded.
                let missing = self.leases.get(application).map(crate::lease::Lease::missing).unwrap_or_default();
                let resources = self.guarded(application).into_keys().chain(missing).collect();
                self.guard.ask(Request::Arm { application: application.clone(), resources, arm });
            }
            Command::MoveGuard { until } => {
                self.guard.ask(Request::Move { application: application.clone(), until });
            }
            Command::DisarmGuard => self.guard.ask(Request::Disarm { application: application.clone() }),
            Command::WriteGuarded { epoch, resources } => self.write_guarded(application, epoch, resources),
            Command::AskPromises(question) => self.ask_promises(application, &question),
            Command::FenceSelf { confirm_by } => {
                tracing::error!(%application, "the lease does not hold: fencing");
                self.rejoined.retain(|(of, _)| of != application);
                let stopped = self.steps.stop_opening(application);
                let budget = Duration::from_millis(confirm_by.left_for_holder(now).millis());
                let (guarded, done) = (self.guarded(application), report(application, &self.events, Event::Fenced));
                let fencer = self.fencers.entry(application.clone()).or_default();
                fencer.gently(application.clone(), guarded, budget, stopped, done);
            }
            Command::FenceHard => {
                tracing::error!(%application, "the fence is not confirmed: fencing hard");
                let (guarded, done) = (self.guarded(application), report(application, &self.events, Event::Fenced));
                self.fencers.entry(application.clone()).or_default().hard(application.clone(), guarded, done);
            }
            Command::LiftSelfFence => {
                let opened = self.opened(application);
                let done = report(application, &self.events, Event::Lifted);
                self.fencers.entry(application.clone()).or_default().lift(application.clone(), opened, done);
            }
            Command::Alert(Alert::ClockForward) => {
                tracing::error!(%application, "the wall clock jumped forward: grants are void until given anew");
            }
            Command::Alert(Alert::ClockBackward) => {
                tracing::error!(%application, "the wall clock jumped backward; check this machine's time");
            }
            Command::Alert(Alert::FenceUnconfirmed) => {
                tracing::error!(%application, "not even the hard fence is confirmed; it is repeated");
            }
        }
    }

    /// Told to end. The guard goes on counting; where none answers, nobody would be there at the end of the lease: what
    /// may be open is fenced now.
    pub(super) async fn fence_without_guard(&mut self, heard: &mut mpsc::UnboundedReceiver<GuardEvent>) {
        while let Ok(event) = heard.try_recv() {
            self.hear_guard(event);
        }
        if self.guard_alive {
            return;
        }
        let may_be_open = |lease: &&Lease| {
            let paused = lease.terms().is_some_and(|terms| terms.paused);
            lease.is_guarded() && !paused && !matches!(lease.fence(), Fence::None | Fence::Closed { .. })
        };
        let open: Vec<ApplicationId> =
            self.leases.values().filter(may_be_open).map(|lease| lease.application().clone()).collect();
        for application in open {
            tracing::error!(%application, "told to end, and no guard answers: fencing before that");
            let stopped = self.steps.stop_opening(&application);
            let stopping = futures::future::join_all(stopped.iter().map(CancellationToken::cancelled));
            let _ = tokio::time::timeout(GENTLE_AT_THE_END, stopping).await;
            let guarded = self.guarded(&application);
            let fences = guarded
                .iter()
                .map(|(resource, driver)| crate::fence::one(&application, resource, driver, GENTLE_AT_THE_END));
            futures::future::join_all(fences).await;
        }
    }

    /// What must be fenced: guarded by the stored terms, and a database. Before any terms are stored, every database.
    pub(super) fn guarded(&self, application: &ApplicationId) -> Guarded {
        let terms = self.leases.get(application).and_then(|lease| lease.terms());
        let all = self.drivers.get(application).cloned().unwrap_or_default();
        let is_guarded = |resource: &ResourceId, driver: &Arc<dyn Driver>| match terms {
            Some(terms) => terms.guarded.contains(resource),
            None => driver.fence_reach() != FenceReach::Nothing,
        };
        all.into_iter().filter(|(resource, driver)| is_guarded(resource, driver)).collect()
    }

    /// What was opened at the stored epoch: only that is opened again. The rest waits for its promotion.
    pub(super) fn opened(&self, application: &ApplicationId) -> Guarded {
        let epoch = self.leases.get(application).map_or(Epoch(0), |lease| lease.epoch());
        let view = self.journal.view();
        let resources = view.applications.get(application).map(|view| &view.resources);
        let opened: BTreeSet<ResourceId> = resources
            .into_iter()
            .flatten()
            .filter(|(_, resource)| resource.opened == epoch && epoch > Epoch(0))
            .map(|(name, _)| name.clone())
            .collect();
        drop(view);
        self.guarded(application).into_iter().filter(|(resource, _)| opened.contains(resource)).collect()
    }

    /// The marker beside the data, then the journal: from here on these resources are guarded for good.
    fn write_guarded(&self, application: &ApplicationId, epoch: Epoch, resources: BTreeSet<ResourceId>) {
        let drivers = self.drivers.get(application).cloned().unwrap_or_default();
        let guarded: Guarded = drivers.into_iter().filter(|(resource, _)| resources.contains(resource)).collect();
        let missing: Vec<_> =
            resources.iter().filter(|one| !guarded.contains_key(*one)).map(ToString::to_string).collect();
        let (group, led) = {
            let view = self.journal.view();
            let led = view.applications.get(application).map_or(Epoch(0), |view| view.led);
            (view.group.clone(), led)
        };
        let marker = Marker {
            group: group.map(|group| group.0).unwrap_or_default(),
            application: application.to_string(),
            cluster: self.settings.cluster.to_string(),
            installation: self.installation.to_string(),
        };
        let found = if led == epoch {
            Found::BesideWhatRuns
        } else if epoch == Epoch(1) {
            Found::Adopted
        } else {
            Found::ToBePromoted
        };
        let guarding = Guarding { application: application.clone(), epoch, guarded, marker, found };
        let (journal, events, application) = (self.journal.clone(), self.events.clone(), application.clone());
        tokio::spawn(async move {
            if !missing.is_empty() {
                let missing = missing.join(", ");
                tracing::error!(%application, missing, "guarded by the terms and not in this agent's configuration");
            }
            let written = missing.is_empty() && guarding.write(&journal).await;
            if !written {
                // Not at every grant.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let _ = events.send(Event::GuardedWritten(application, epoch, resources, written));
        });
    }

    /// Fences and quiesces that were commanded survive a restart of the agent: they are carried out again, which
    /// changes nothing where they stand. They wait for no lock; a newer step that opens the resource waits for their
    /// end, so that none closes behind it what it has opened.
    pub(super) fn repeat_holds(&self, application: &ApplicationId) {
        let holds = self.journal.view().applications.get(application).map(|view| view.holds()).unwrap_or_default();
        for (resource, hold) in holds {
            let Some(driver) = self.drivers.get(application).and_then(|all| all.get(&resource)).cloned() else {
                continue;
            };
            let (application, events) = (application.clone(), self.events.clone());
            let half = self.word.borrow().fence_budget(&application).divided(2);
            let ended = self.steps.closing_again(&application, &resource);
            tokio::spawn(async move {
                let _ended = ended;
                let held = match hold {
                    Hold::Fence => {
                        let budget = Duration::from_millis(half.millis());
                        crate::fence::one(&application, &resource, &driver, budget).await
                    }
                    Hold::Quiesce => driver.quiesce().await,
                };
                let _ = events.send(Event::Held(application, resource, held.is_ok()));
            });
        }
    }
}

fn report(
    application: &ApplicationId,
    events: &mpsc::UnboundedSender<Event>,
    event: fn(ApplicationId, bool) -> Event,
) -> impl FnOnce(bool) + Send + 'static + use<> {
    let (application, events) = (application.clone(), events.clone());
    move |good| {
        let _ = events.send(event(application, good));
    }
}
