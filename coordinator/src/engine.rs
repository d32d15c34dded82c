//! The leader's loop: evidence → core → raft → dispatch → outcome. Only here is anything dispatched.
//!
//! It keeps nothing that a new leader would need: what has to be done follows from the applied state, so whoever
//! leads next asks the core the same question and gets the same answer. Commands are sent again when an agent
//! connects, when leadership changes, and every second; an agent attaches a repeated one to the running step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use regent_core::breaker;
use regent_core::cause;
use regent_core::decide::{self, Ending, Viewpoint};
use regent_core::effect::Effect;
use regent_core::entry::{Entry, Outcome};
use regent_core::id::{Attempt, ClusterId, RunId, StepId};
use regent_core::planted::{self, Mistake};
use regent_core::run::{RunStatus, StepState, UNDO_STAGE};
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::peer::v1::RelayRequest;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::agent::convert;
use crate::node::Node;
use crate::observer::{Heardings, Post, Said};
use crate::proposals::{Offer, Proposals};
use crate::raft::Peers;
use crate::replica::{AppliedEvent, Leadership};

/// Between two looks when nothing happens; the core's own deadlines are met within it.
const TICK: Duration = Duration::from_millis(25);
/// Between two sendings of a command whose step still runs.
const SEND_AGAIN: Duration = Duration::from_secs(1);

/// The engine of one coordinator; it sleeps while another one leads.
pub struct Engine {
    node: Node,
    post: Post,
    peers: Arc<Peers>,
    proposals: Proposals,
    leading: bool,
    sent: Option<Instant>,
    /// Outcomes that were proposed and are not applied yet, by run: what follows from the next one follows from them, too.
    flying: BTreeMap<RunId, Vec<Ending>>,
}

impl Engine {
    /// Nothing is dispatched before [`Engine::run`].
    #[must_use]
    pub fn new(post: Post, peers: Arc<Peers>) -> Self {
        let (node, proposals) = (post.node().clone(), post.proposals().clone());
        Self { node, post, peers, proposals, leading: false, sent: None, flying: BTreeMap::new() }
    }

    /// Works until told to stop.
    pub async fn run(
        mut self,
        mut heardings: Heardings,
        mut events: mpsc::UnboundedReceiver<AppliedEvent>,
        stop: CancellationToken,
    ) {
        let mut leadership = self.node.replica.leadership();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.node.turns().engine.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = leadership.changed() => if changed.is_err() { break },
                Some(said) = heardings.statuses.recv() => {
                    self.status(&said);
                    while let Ok(said) = heardings.statuses.try_recv() {
                        self.status(&said);
                    }
                }
                Some(cluster) = heardings.connected.recv() => self.dispatch_again(Some(&cluster)),
                event = events.recv() => match event {
                    Some(event) => self.applied(&event),
                    None => break,
                },
                _ = tick.tick() => {}
            }
            let now = leadership.borrow_and_update().clone();
            self.follow(&now);
            self.think();
        }
    }

    /// Takes over what raft says of leadership.
    fn follow(&mut self, leadership: &Leadership) {
        let leading = leadership.is_leader();
        let now = self.node.now();
        let heard = leadership.heard.iter().map(|(id, at)| (*id, self.node.moment(*at))).collect();
        let calm = leading && self.node.replica.read(breaker::is_calm);
        self.node.note(|evidence| {
            evidence.voters_heard = heard;
            if leading {
                evidence.leading_since.get_or_insert(now);
                evidence.calm_since = calm.then(|| evidence.calm_since.unwrap_or(now));
            } else {
                evidence.leading_since = None;
                evidence.calm_since = None;
                evidence.relayed.clear();
                evidence.machines.clear();
            }
        });
        if leading && !self.leading {
            info!(term = leadership.term, "leading");
            self.dispatch_again(None);
        } else if !leading && self.leading {
            info!(term = leadership.term, "no longer leading");
        }
        self.leading = leading;
    }

    /// Asks the core what should be proposed now.
    fn think(&mut self) {
        if !self.leading {
            return;
        }
        let view = self.view();
        self.look_at_late(view);
        let entries = self.node.replica.read(|state| self.node.see(|evidence| decide::decide(state, evidence, view)));
        for entry in entries {
            self.proposals.offer(entry);
        }
        if self.sent.is_none_or(|sent| sent.elapsed() >= SEND_AGAIN) {
            self.dispatch_again(None);
        }
    }

    fn view(&self) -> Viewpoint {
        Viewpoint { me: self.node.id, now: self.node.now(), wall: self.node.wall() }
    }

    fn applied(&self, event: &AppliedEvent) {
        for effect in &event.effects {
            if let Effect::Dispatch(run, step) = effect {
                self.note_late(*run, *step);
            }
            match effect {
                Effect::Dispatch(run, step) if self.leading => self.dispatch(*run, *step),
                Effect::Dispatch(..)
                | Effect::TermsChanged(_)
                | Effect::VoteStands { .. }
                | Effect::VoteWithdrawn { .. }
                | Effect::AnswerChanged(..)
                | Effect::RunChanged(_)
                | Effect::CoordinatorsChanged
                | Effect::Audited => {}
            }
        }
    }

    /// An intent that was proposed long before it was applied here: its quorum was away meanwhile, or this process was,
    /// and what it was begun for may be gone.
    fn note_late(&self, run: RunId, step: StepId) {
        let wall = self.node.wall();
        let late = self.node.replica.read(|state| {
            let run = state.runs.get(&run)?;
            let bound = state.applications.get(&run.application)?.document.automation.bound;
            let (_, progress) = run.step(step)?;
            let proposed = progress.attempt_started?;
            Some(cause::is_only_fencing(run) && wall.since(proposed) > bound.heartbeat().times(3))
        });
        if late == Some(true) {
            warn!(
                run = run.0,
                step = step.0,
                "an intent was applied late: its cause is looked at again before it is dispatched"
            );
            self.node.note(|evidence| evidence.late_runs.insert(run));
        }
    }

    /// What was late and still holds is dispatched; what is over is forgotten.
    fn look_at_late(&mut self, view: Viewpoint) {
        let late: Vec<RunId> = self.node.see(|evidence| evidence.late_runs.iter().copied().collect());
        let (mut holding, mut over) = (Vec::new(), Vec::new());
        for run in late {
            let (past, holds) = self.node.replica.read(|state| {
                let known = state.runs.get(&run);
                let waits = known.is_some_and(cause::is_only_fencing);
                // Noted by one who did not lead then, it may have gone on without. What is undone stays held back.
                let went_on = known.is_some_and(|run| run.status == RunStatus::Running) && !waits;
                let past = went_on || known.is_none_or(|run| run.status.is_final());
                (past, waits && self.node.see(|evidence| cause::holds(state, evidence, view, run)))
            });
            if past {
                over.push(run);
            } else if holds {
                holding.push(run);
            }
        }
        self.node.note(|evidence| {
            over.iter().chain(&holding).for_each(|run| {
                evidence.late_runs.remove(run);
            });
        });
        if !holding.is_empty() {
            info!(runs = ?holding, "what was applied late still holds");
            self.dispatch_all(None);
        }
    }

    /// What was sent before may have been lost.
    fn dispatch_again(&mut self, only: Option<&ClusterId>) {
        if !planted::makes(Mistake::DispatchedOnce) {
            self.dispatch_all(only);
        }
    }

    /// Sends every step that runs, to one cluster or to all.
    fn dispatch_all(&mut self, only: Option<&ClusterId>) {
        if only.is_none() {
            self.sent = Some(Instant::now());
        }
        let running: Vec<(RunId, StepId)> = self.node.replica.read(|state| {
            let open = state.runs.values().filter(|run| !run.status.is_final());
            open.flat_map(|run| run.walk().map(move |(step, progress)| (run, step, progress)))
                .filter(|(_, step, progress)| {
                    progress.state == StepState::Running && only.is_none_or(|only| step.cluster == *only)
                })
                .map(|(run, step, _)| (run.id, step.id))
                .collect()
        });
        for (run, step) in running {
            self.dispatch(run, step);
        }
    }

    /// Sends one step down any coordinator's stream that reaches the agent. Its intent is committed (S3).
    fn dispatch(&self, run: RunId, step: StepId) {
        let late = self.node.see(|evidence| evidence.late_runs.contains(&run));
        let found = self.node.replica.read(|state| {
            let run = state.runs.get(&run)?;
            let (spec, _) = run.step(step)?;
            // What undoes is never held back, and what it undoes is not begun any more.
            if late && spec.stage != UNDO_STAGE {
                return None;
            }
            let document = &state.applications.get(&run.application)?.document;
            Some((spec.cluster.clone(), convert::command(state, document, run, spec)?))
        });
        let Some((cluster, command)) = found else { return };
        if self.post.send(&cluster, Body::Step(command.clone())) {
            return;
        }
        let heard = self.node.see(|evidence| {
            let by = evidence.relayed.iter().filter(|(_, clusters)| clusters.contains_key(&cluster));
            by.map(|(id, _)| *id).collect::<BTreeSet<_>>()
        });
        let peers = self.peers.clone();
        tokio::spawn(async move {
            for id in heard {
                let request = RelayRequest { cluster: cluster.to_string(), step: Some(command.clone()) };
                if let Ok(Ok(true)) = tokio::time::timeout(SEND_AGAIN, peers.relay(id, request)).await {
                    return;
                }
            }
            debug!(%cluster, run = run.0, step = step.0, "no coordinator reaches the agent");
        });
    }

    /// A step's status: a final one of the attempt that runs becomes its outcome.
    fn status(&mut self, said: &Said) {
        let status = &said.status;
        let Some(outcome) = convert::outcome(status) else { return };
        if !self.leading {
            self.post.keep_for_leader(said);
            return;
        }
        let (run, step) = (RunId(status.run), StepId(u64::from(status.step)));
        let attempt = Attempt(u64::from(status.attempt));
        let open = self.node.replica.read(|state| {
            let run = state.runs.get(&run)?;
            let (spec, progress) = run.step(step)?;
            // Only the agent that was asked, about the very intent: a fence is confirmed by nobody else.
            let open = spec.cluster == said.cluster
                && run.hears(spec, progress)
                && progress.attempts == attempt
                && progress.token == status.token.as_ref().map(convert::token_from);
            open.then_some(())
        });
        if open.is_none() {
            return;
        }
        let ending = Ending { step, attempt, outcome };
        let mut before = self.still_flying(run);
        before.retain(|ending| ending.step != step);
        if let Outcome::Failed { code, message, .. } = &ending.outcome {
            warn!(run = run.0, step = step.0, attempt = attempt.0, code, message, "a step failed");
        }
        let mut endings = before.clone();
        endings.push(ending.clone());
        let view = self.view();
        let follows = self
            .node
            .replica
            .read(|state| self.node.see(|evidence| decide::foresee(state, evidence, view, run, &endings)));
        let entry = |Ending { step, attempt, outcome }| Entry::StepOutcome { run, step, attempt, outcome };
        // Those before stand in the log, or come there by another way: only in front of what rests on them it is certain.
        let again = if follows.is_empty() { Vec::new() } else { before };
        let offers = again.into_iter().map(|ending| Offer::Again(entry(ending)));
        let offers = offers.chain([Offer::Own(entry(ending))]).chain(follows.into_iter().map(Offer::Guess));
        self.proposals.offer_in_order(offers.collect());
        self.flying.insert(run, endings);
    }

    /// Outcomes of a run that were proposed, and that its applied state does not show yet.
    fn still_flying(&mut self, run: RunId) -> Vec<Ending> {
        let flying = self.flying.remove(&run).unwrap_or_default();
        self.node.replica.read(|state| {
            self.flying.retain(|run, _| state.runs.get(run).is_some_and(|run| !run.status.is_final()));
            let runs = |ending: &Ending| {
                let step = state.runs.get(&run).and_then(|run| run.step(ending.step));
                step.is_some_and(|(_, progress)| {
                    progress.state == StepState::Running && progress.attempts == ending.attempt
                })
            };
            flying.into_iter().filter(runs).collect()
        })
    }
}
