//! A run of the real core and the real steps of agents, without a network and without time, that can be stopped at every
//! moment: what takes a minute with real processes takes a millisecond here, so every *pair* of crashes can be tried.
//!
//! ```text
//!  Proposed → Committed → Sent → │ agent: Before → effect → After │ → Said → Noted
//! ```
//!
//! *Real* are: the state machine with its plans, runs and decisions, the conversion to commands and back, and in the agents
//! the carrying out of steps with their journal, which survives a crash. *Modelled* are: raft (an entry that was committed
//! stays), streams (what was under way is lost with either end), and what drivers act on, which counts its effects.
//! Leases are simply held where the applied state names the primary.
//!
//! What drivers do has its effect once, since they look first; but for a listed command, whose effect they cannot read. That
//! it is run again where its agent died before it had stored the end, and only there, is held by the count of such deaths.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use regent_coordinator::api::agent::convert;
use regent_core::decide::{self, Viewpoint};
use regent_core::effect::Effect;
use regent_core::entry::{Entry, FORMAT, Finding, Ground, Record};
use regent_core::evidence::Evidence;
use regent_core::id::{Attempt, ClusterId, CoordinatorId, LogIndex, RunId, StepId};
use regent_core::invariant;
use regent_core::planted::{self, Mistake};
use regent_core::run::{self, Proposal, RunStatus, StepState};
use regent_core::state::{Applied, State};
use regent_core::time::{Moment, Span, Timestamp, Waits};
use regent_proto::agent::v1 as wire;

mod agents;
mod effects;
mod scene;
pub mod words;

pub use effects::Effects;
pub use scene::{COMMAND, Kind, protected_application, quiesced_application, with_a_command, with_a_quiesce};

use agents::Agent;

/// What happens at a moment. Every moment of a run has a number, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// The leader dies: what it has not committed, and what is on its way to it or from it, is lost.
    Leader,
    /// The agent that acts dies: what it has not stored is lost.
    Agent,
    /// Both at once.
    Both,
    /// Whatever passes here passes twice.
    Twice,
}

impl Happening {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Leader, Self::Agent, Self::Both, Self::Twice];

    const fn ends_leader(self) -> bool {
        matches!(self, Self::Leader | Self::Both)
    }

    const fn ends_agent(self) -> bool {
        matches!(self, Self::Agent | Self::Both)
    }
}

/// What happens when, by the number of the moment.
pub type Schedule<'a> = &'a [(usize, Happening)];

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Of the run.
    pub status: RunStatus,
    /// Of the application.
    pub epoch: u64,
    /// The primary.
    pub primary: String,
    /// The serial number of the zone.
    pub serial: u32,
    /// Clusters that are quarantined.
    pub excluded: BTreeSet<String>,
    /// What databases, services and names have seen.
    pub effects: Effects,
}

/// Plays a run, in a folder for the journals; gives how it ended, and how many moments it had.
///
/// # Errors
/// An invariant was broken, or the run comes to no end.
pub fn play(kind: Kind, schedule: Schedule<'_>, folder: &Path) -> Result<(Ending, usize)> {
    let mut stage = Rehearsal::set(kind, schedule, folder)?;
    // Without a crash it takes some dozens of turns; every crash adds some.
    for _ in 0..2_000 {
        if stage.run().is_some_and(|run| run.status.is_final()) && stage.is_quiet() {
            return Ok((stage.ending()?, stage.moments()));
        }
        stage.turn()?;
    }
    bail!("it comes to no end: {:?}", stage.run().map(|run| (&run.status, &run.progress)))
}

/// The moments that have passed, and what is still to happen. Shared with the agents.
#[derive(Debug, Default)]
pub(crate) struct Clockwork {
    passed: usize,
    to_come: VecDeque<(usize, Happening)>,
    /// Happened inside an agent; the rehearsal has not seen to it yet.
    pub(crate) pending: Option<Happening>,
}

impl Clockwork {
    /// A moment passes.
    pub(crate) fn pass(&mut self) -> Option<Happening> {
        let now = self.passed;
        self.passed += 1;
        let due = self.to_come.front().is_some_and(|(at, _)| *at <= now);
        if due { self.to_come.pop_front().map(|(_, what)| what) } else { None }
    }
}

pub(crate) type Shared = Arc<Mutex<Clockwork>>;

struct Rehearsal {
    kind: Kind,
    state: State,
    wall: i64,
    run: RunId,
    agents: Vec<Agent>,
    commands: VecDeque<(ClusterId, wire::StepCommand)>,
    statuses: VecDeque<(ClusterId, wire::StepStatus)>,
    clockwork: Shared,
    effects: effects::World,
}

impl Rehearsal {
    fn set(kind: Kind, schedule: Schedule<'_>, folder: &Path) -> Result<Self> {
        let (mut state, mut wall) = (State::default(), 1_000_000);
        state.apply_membership(LogIndex(1), vec![(1..=3).map(CoordinatorId).collect()]);
        for entry in scene::protected(scene::document(kind)?) {
            done(&mut state, &mut wall, entry)?;
        }
        let confirmed = scene::confirmed(&state).context("nothing to confirm")?;
        done(&mut state, &mut wall, confirmed)?;
        let effects = effects::World::new();
        let clockwork = Shared::default();
        let clusters: Vec<ClusterId> = state.agents.keys().cloned().collect();
        let lost = kind.loses_the_region().then(scene::from);
        let mut agents = Vec::new();
        for cluster in clusters.into_iter().filter(|cluster| Some(cluster) != lost.as_ref()) {
            agents.push(Agent::start(cluster, folder, &effects, &clockwork)?);
        }
        let mut stage = Self {
            kind,
            state,
            wall,
            run: RunId(0),
            agents,
            commands: VecDeque::new(),
            statuses: VecDeque::new(),
            clockwork,
            effects,
        };
        stage.prelude()?;
        stage.clock().to_come = schedule.iter().copied().collect();
        stage.clock().passed = 0;
        Ok(stage)
    }

    /// What comes before the run that is looked at, and its first entry.
    fn prelude(&mut self) -> Result<()> {
        for entry in self.kind.opening(&self.state) {
            done(&mut self.state, &mut self.wall, entry)?;
        }
        if self.kind == Kind::Rejoin {
            // The failover before it.
            self.run = self.newest()?;
            while !self.run().is_some_and(|run| run.status.is_final()) || !self.is_quiet() {
                self.turn()?;
            }
            let rejoin = scene::rejoin();
            done(&mut self.state, &mut self.wall, rejoin)?;
        }
        self.run = self.newest()?;
        Ok(())
    }

    fn newest(&self) -> Result<RunId> {
        self.state.runs.keys().next_back().copied().context("there is no run")
    }

    fn run(&self) -> Option<&run::Run> {
        self.state.runs.get(&self.run)
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, Clockwork> {
        self.clockwork.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn moments(&self) -> usize {
        self.clock().passed
    }

    fn is_quiet(&self) -> bool {
        self.commands.is_empty() && self.statuses.is_empty() && self.agents.iter().all(|agent| agent.running() == 0)
    }

    /// One thing that is due.
    fn turn(&mut self) -> Result<()> {
        if let Some((cluster, command)) = self.commands.pop_front() {
            return self.deliver(&cluster, &command);
        }
        if let Some((cluster, status)) = self.statuses.pop_front() {
            return self.hear(&cluster, &status);
        }
        if self.undo_is_due() {
            return self.propose(vec![Entry::UndoBegun { run: self.run, reason: "not caught up".to_owned() }]);
        }
        let run = self.run().context("no run")?;
        let due = run::next(run, Waits { wall: Timestamp(self.wall), led: Span::ZERO }).into_iter().next();
        match due {
            Some(Proposal::Decide) => {
                let entry = self.decision()?;
                self.propose(vec![entry])
            }
            Some(Proposal::Entry(entry)) => self.propose(vec![*entry]),
            None => self.wait(),
        }
    }

    /// The leader proposes; whoever leads next asks the core again.
    fn propose(&mut self, entries: Vec<Entry>) -> Result<()> {
        let proposed = self.clock().pass();
        if proposed.is_some_and(Happening::ends_leader) {
            return self.crash(proposed, None);
        }
        let twice = proposed == Some(Happening::Twice);
        let mut due = Vec::new();
        for entry in entries {
            due.extend(self.apply(entry.clone())?);
            if twice {
                // That it is refused is as good as that it is ignored.
                due.extend(self.apply(entry).unwrap_or_default());
            }
        }
        let cluster = due
            .first()
            .and_then(|(run, step)| self.state.runs.get(run)?.step(*step).map(|(step, _)| step.cluster.clone()));
        let committed = self.clock().pass();
        if committed.is_some_and(|what| what.ends_leader() || what.ends_agent())
            || proposed.is_some_and(Happening::ends_agent)
        {
            self.crash(committed.or(proposed), cluster.as_ref())?;
            if committed.is_some_and(Happening::ends_leader) {
                return Ok(());
            }
        }
        for (run, step) in due {
            self.send(run, step);
            if committed == Some(Happening::Twice) {
                self.send(run, step);
            }
        }
        Ok(())
    }

    /// Steps that are to be dispatched.
    fn apply(&mut self, entry: Entry) -> Result<Vec<(RunId, StepId)>> {
        let before = self.state.clone();
        self.wall += 1;
        let record = Record { format: FORMAT, at: Timestamp(self.wall), request: None, entry };
        let (applied, effects) = self.state.apply(self.state.applied.next(), &record);
        let broken = [invariant::of_state(&self.state), invariant::of_change(&before, &self.state)].concat();
        ensure!(broken.is_empty(), "{broken:?} by {record:?}");
        if let Applied::Refused { rule, detail } = &applied {
            bail!("{:?} was refused: {rule}: {detail}", record.entry);
        }
        Ok(effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Dispatch(run, step) => Some((run, step)),
                Effect::TermsChanged(_)
                | Effect::VoteStands { .. }
                | Effect::VoteWithdrawn { .. }
                | Effect::AnswerChanged(..)
                | Effect::RunChanged(_)
                | Effect::CoordinatorsChanged
                | Effect::Audited => None,
            })
            .collect())
    }

    fn send(&mut self, run: RunId, step: StepId) {
        let command = self.state.runs.get(&run).and_then(|run| {
            let (spec, _) = run.step(step)?;
            let document = &self.state.applications.get(&run.application)?.document;
            Some((spec.cluster.clone(), convert::command(&self.state, document, run, spec)?))
        });
        self.commands.extend(command);
    }

    fn deliver(&mut self, cluster: &ClusterId, command: &wire::StepCommand) -> Result<()> {
        let sent = self.clock().pass();
        if sent.is_some_and(|what| what.ends_leader() || what.ends_agent()) {
            // It was on its way: it is lost, and whoever leads, or the one who led, sends it again.
            return self.crash(sent, Some(cluster));
        }
        let said = match self.agents.iter_mut().find(|agent| agent.cluster == *cluster) {
            Some(agent) => {
                let mut said = agent.take(&self.state, command);
                if sent == Some(Happening::Twice) {
                    said.extend(agent.take(&self.state, command));
                }
                said
            }
            None => Vec::new(),
        };
        self.statuses.extend(said.into_iter().map(|status| (cluster.clone(), status)));
        Ok(())
    }

    fn hear(&mut self, cluster: &ClusterId, status: &wire::StepStatus) -> Result<()> {
        let Some(outcome) = convert::outcome(status) else { return Ok(()) };
        let said = self.clock().pass();
        if said.is_some_and(|what| what.ends_leader() || what.ends_agent()) {
            return self.crash(said, Some(cluster));
        }
        let (run, step) = (RunId(status.run), StepId(u64::from(status.step)));
        let attempt = Attempt(u64::from(status.attempt));
        let follows = self.state.runs.get(&run).and_then(|run| {
            let (spec, progress) = run.step(step)?;
            let token = status.token.as_ref().map(convert::token_from);
            let open = spec.cluster == *cluster
                && run.hears(spec, progress)
                && progress.attempts == attempt
                && progress.token == token;
            let endings = [decide::Ending { step, attempt, outcome: outcome.clone() }];
            open.then(|| decide::foresee(&self.state, &Evidence::default(), self.viewpoint(), run.id, &endings))
        });
        let Some(mut follows) = follows else { return Ok(()) };
        if self.kind.gives_up() {
            // Its leader has not caught up in time: it does not decide in the same round.
            let decided = follows.iter().position(|entry| matches!(entry, Entry::Decide { .. }));
            follows.truncate(decided.unwrap_or(follows.len()));
        }
        let mut entries = vec![Entry::StepOutcome { run, step, attempt, outcome: outcome.clone() }];
        if said == Some(Happening::Twice) {
            entries.push(Entry::StepOutcome { run, step, attempt, outcome });
        }
        entries.extend(follows);
        self.propose(entries)
    }

    /// Whoever leads looks at nothing but the applied state, by one wall clock.
    const fn viewpoint(&self) -> Viewpoint {
        Viewpoint { me: CoordinatorId(1), now: Moment(0), wall: Timestamp(self.wall) }
    }

    /// Nothing is due: the agents work, or time passes.
    fn wait(&mut self) -> Result<()> {
        let mut happened = false;
        for index in 0..self.agents.len() {
            if self.agents[index].running() == 0 {
                continue;
            }
            happened = true;
            let cluster = self.agents[index].cluster.clone();
            let said = self.agents[index].work();
            self.statuses.extend(said.into_iter().map(|status| (cluster.clone(), status)));
            let pending = self.clock().pending.take();
            if pending.is_some() {
                return self.crash(pending, Some(&cluster));
            }
        }
        if !happened {
            // Back-offs end, and what runs and was not reported is commanded again.
            self.wall += 1_000;
            self.send_all();
        }
        Ok(())
    }

    /// Ends whom it concerns and starts them again; `cluster` is where the step acts.
    fn crash(&mut self, what: Option<Happening>, cluster: Option<&ClusterId>) -> Result<()> {
        let Some(what) = what else { return Ok(()) };
        let of_agent = |of: &ClusterId| cluster.is_none_or(|cluster| of == cluster);
        if what.ends_agent() {
            for agent in self.agents.iter_mut().filter(|agent| of_agent(&agent.cluster)) {
                agent.restart()?;
            }
            self.commands.retain(|(to, _)| !of_agent(to));
            self.statuses.retain(|(by, _)| !of_agent(by));
        }
        if what.ends_leader() {
            self.commands.clear();
            self.statuses.clear();
            // The streams begin anew: every agent says what runs and what has ended.
            for agent in &self.agents {
                self.statuses.extend(agent.all().into_iter().map(|status| (agent.cluster.clone(), status)));
            }
        }
        self.send_all();
        Ok(())
    }

    fn send_all(&mut self) {
        if planted::makes(Mistake::DispatchedOnce) {
            return;
        }
        let open = self.state.runs.values().filter(|run| !run.status.is_final());
        let running: Vec<_> = open
            .flat_map(|run| run.walk().map(move |(step, progress)| (run.id, step.id, progress.state)))
            .filter(|(_, _, state)| *state == StepState::Running)
            .map(|(run, step, _)| (run, step))
            .collect();
        for (run, step) in running {
            self.send(run, step);
        }
    }

    /// The leader of a switchover that is to be undone waits for the catch-up no longer.
    fn undo_is_due(&self) -> bool {
        self.kind.gives_up() && self.run().is_some_and(scene::has_caught_up)
    }

    fn decision(&self) -> Result<Entry> {
        let known = self.state.applications.get(&scene::application()).context("no application")?;
        let ground = match self.kind {
            Kind::Switchover | Kind::Undo | Kind::QuiescedUndo => Ground::Switched { run: self.run },
            Kind::Failover | Kind::Loss | Kind::Rejoin => Ground::Fenced { run: self.run },
            Kind::Drill => bail!("a drill wants to change the primary"),
        };
        Ok(Entry::Decide {
            application: scene::application(),
            from: known.epoch,
            to: scene::to(),
            terms: known.terms.last().context("no terms")?.number,
            ground,
            finding: Finding::default(),
        })
    }

    fn ending(&self) -> Result<Ending> {
        let known = self.state.applications.get(&scene::application()).context("no application")?;
        // Nobody waits until the old side has stopped its service: with its agent that may be lost. An undo starts it again,
        // and that is waited for.
        let left_alone = (!self.kind.gives_up()).then(scene::left_alone);
        Ok(Ending {
            status: self.run().context("no run")?.status,
            epoch: known.epoch.0,
            primary: known.primary.as_ref().map(ToString::to_string).unwrap_or_default(),
            serial: self.state.dns_serial,
            excluded: known.excluded.keys().map(ToString::to_string).collect(),
            effects: self.effects.seen_but_for(left_alone.as_deref()),
        })
    }
}

fn done(state: &mut State, wall: &mut i64, entry: Entry) -> Result<()> {
    *wall += 1;
    let record = Record { format: FORMAT, at: Timestamp(*wall), request: None, entry };
    let (applied, _) = state.apply(state.applied.next(), &record);
    ensure!(matches!(applied, Applied::Done(_)), "{:?} was {applied:?}", record.entry);
    Ok(())
}
