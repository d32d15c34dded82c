//! What an operator says in the middle of a run, at each of its moments: whatever it is, the run comes to an end that has a
//! name, and what is advised there leads to a good one.
//!
//! ```text
//!  word ─┬─ refused ──► the run goes on as if nothing had been said
//!        └─ taken ────► settled ─┬─ succeeded: the new side serves
//!                                ├─ undone: the old side serves, services as before
//!                                └─ paused, stuck, aborted: the command that is advised is given ─► settled …
//! ```
//!
//! The leader is the core itself here ([`regent_core::decide::decide`]), with what it would see of these databases; it
//! proposes one entry at a time, so a word stands between any two entries of the log. *Not shown* is what needs leases: the
//! primary's agent simply holds its own, but for the failover of an agent that has fenced itself, and confirms new terms at
//! once. What agents do in a pause, or when a lease ends under a step, is for the simulation.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use regent_coordinator::api::agent::convert;
use regent_core::advice::{self, Advice};
use regent_core::application::ResourceKind;
use regent_core::decide;
use regent_core::effect::Effect;
use regent_core::entry::{Clearing, Entry, FORMAT, Outcome, Record};
use regent_core::id::{Attempt, ClusterId, RunId, StepId};
use regent_core::invariant;
use regent_core::run::{Run, RunStatus, StepState};
use regent_core::state::{ApplicationState, Applied};
use regent_core::time::{Moment, Timestamp};
use regent_proto::agent::v1 as wire;

use super::{Effects, Ending, Kind, Rehearsal, scene};

mod seen;

/// So many seconds without anything to do are taken for the end. Longer than `failoverAfter` and every back-off.
const IDLE: u32 = 15;
/// What no run needs, and no row of commands.
const TURNS: usize = 3_000;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// `regentctl abort`.
    Abort,
    /// `regentctl pause`; ended only when nothing happens any more.
    Pause,
    /// The same, ended before anybody has looked.
    PauseThenResume,
    /// `regentctl clear --retry`, of what is stuck or of the first step.
    Retry,
    /// `regentctl clear --done`, of the same.
    Done,
}

impl Word {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Abort, Self::Pause, Self::PauseThenResume, Self::Retry, Self::Done];
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The word was refused or had no effect, and the run ended as it would have.
    Unmoved,
    /// The run, or the one that followed it, did what it was for.
    Succeeded,
    /// Everything is as it was before.
    Undone,
}

/// Plays a run without a word: how it ends, and how many moments it has.
///
/// # Errors
/// It does not succeed, or not even end.
pub fn undisturbed(kind: Kind, folder: &Path) -> Result<(Ending, usize)> {
    let mut play = Play::set(kind, folder)?;
    let mut moments = 0;
    for turn in 0..TURNS {
        if play.is_settled()? {
            play.judge()?;
            return Ok((play.stage.ending()?, moments));
        }
        play.turn()?;
        if play.idle == 0 {
            moments = turn + 1;
        }
    }
    bail!("it comes to no end: {:?}", play.stage.run())
}

/// Plays a run with a word at this moment; with `late`, what the leader was about to propose comes after it. `wanted` is how
/// the run ends without.
///
/// # Errors
/// It ends otherwise than it may.
pub fn say(kind: Kind, moment: usize, word: Word, late: bool, wanted: &Ending, folder: &Path) -> Result<Fate> {
    let mut play = Play::set(kind, folder)?;
    for _ in 0..moment {
        play.turn()?;
    }
    let under_way = if late { play.due()? } else { Vec::new() };
    let taken = play.say(word)?;
    for entry in under_way {
        play.commit(entry)?;
    }
    let fate = play.see_through()?;
    if taken {
        return Ok(fate);
    }
    let ending = play.stage.ending()?;
    ensure!(ending == *wanted, "it was refused, and without it {wanted:?}, with it {ending:?}");
    Ok(Fate::Unmoved)
}

/// Plays a run of which one step fails until it is cleared, and says the word when it is stuck. None if nothing was stuck.
///
/// # Errors
/// It ends otherwise than it may.
pub fn say_where_stuck(kind: Kind, step: StepId, word: Word, folder: &Path) -> Result<Option<Fate>> {
    let mut play = Play::set(kind, folder)?;
    play.broken = Some(step);
    for _ in 0..TURNS {
        if play.stuck().is_some() {
            play.say(word)?;
            return play.see_through().map(Some);
        }
        if play.is_settled()? {
            return play.see_through().map(|_| None);
        }
        play.turn()?;
    }
    bail!("it comes to no end: {:?}", play.stage.run())
}

/// The steps of the plan.
///
/// # Errors
/// The run does not begin.
pub fn steps(kind: Kind, folder: &Path) -> Result<Vec<StepId>> {
    let play = Play::set(kind, folder)?;
    Ok(play.run()?.steps.iter().map(|step| step.id).collect())
}

struct Play {
    stage: Rehearsal,
    /// What stood where at the start.
    start: Effects,
    /// This step of the run fails, and would for ever.
    broken: Option<StepId>,
    /// Nothing is judged here: a human has done something by hand, or something has failed and was given up.
    excused: Option<String>,
    /// Turns in a row in which nothing was to be done.
    idle: u32,
}

impl Play {
    fn set(kind: Kind, folder: &Path) -> Result<Self> {
        let stage = Rehearsal::set(kind, &[], folder)?;
        let start = standing(&stage.effects.seen_but_for(None));
        Ok(Self { stage, start, broken: None, excused: None, idle: 0 })
    }

    fn known(&self) -> Result<&ApplicationState> {
        self.stage.state.applications.get(&scene::application()).context("no application")
    }

    fn run(&self) -> Result<&Run> {
        self.stage.run().context("no run")
    }

    /// One thing that is due; else time passes.
    fn turn(&mut self) -> Result<()> {
        if let Some((cluster, command)) = self.stage.commands.pop_front() {
            self.idle = 0;
            return self.deliver(&cluster, &command);
        }
        if let Some((_, status)) = self.stage.statuses.pop_front() {
            self.idle = 0;
            return self.hear(&status);
        }
        self.confirm()?;
        for entry in self.due()? {
            if matches!(self.commit(entry)?, Applied::Done(_)) {
                self.idle = 0;
                return Ok(());
            }
        }
        let busy = !self.stage.is_quiet();
        self.stage.wait()?;
        self.idle = if busy { 0 } else { self.idle + 1 };
        Ok(())
    }

    /// What the leader proposes now.
    fn due(&self) -> Result<Vec<Entry>> {
        if self.stage.undo_is_due() {
            return Ok(vec![Entry::UndoBegun { run: self.stage.run, reason: "not caught up".to_owned() }]);
        }
        Ok(decide::decide(&self.stage.state, &self.evidence()?, self.stage_view()?))
    }

    fn stage_view(&self) -> Result<decide::Viewpoint> {
        Ok(decide::Viewpoint { now: self.now()?, ..self.stage.viewpoint() })
    }

    fn now(&self) -> Result<Moment> {
        Ok(Moment(u64::try_from(self.stage.wall)?))
    }

    /// Whatever is said of it, the state takes it or leaves it.
    fn commit(&mut self, entry: Entry) -> Result<Applied> {
        let before = self.stage.state.clone();
        self.stage.wall += 1;
        let record = Record { format: FORMAT, at: Timestamp(self.stage.wall), request: None, entry };
        let index = self.stage.state.applied.next();
        let (applied, effects) = self.stage.state.apply(index, &record);
        let now = &self.stage.state;
        let broken = [invariant::of_state(now), invariant::of_change(&before, now)].concat();
        ensure!(broken.is_empty(), "{broken:?} by {record:?}");
        for effect in effects {
            if let Effect::Dispatch(run, step) = effect {
                self.stage.send(run, step);
            }
        }
        Ok(applied)
    }

    fn deliver(&mut self, cluster: &ClusterId, command: &wire::StepCommand) -> Result<()> {
        let (run, step) = (RunId(command.run), StepId(u64::from(command.step)));
        if run != self.stage.run || self.broken != Some(step) {
            return self.stage.deliver(cluster, command);
        }
        self.excused = Some(format!("{} in {cluster}", command.resource));
        let attempt = Attempt(u64::from(command.attempt));
        let outcome = Outcome::Failed { code: "broken".to_owned(), message: "it broke".to_owned(), retryable: false };
        self.commit(Entry::StepOutcome { run, step, attempt, outcome })?;
        Ok(())
    }

    /// What comes late or twice is ignored when it is applied.
    fn hear(&mut self, status: &wire::StepStatus) -> Result<()> {
        let Some(outcome) = convert::outcome(status) else { return Ok(()) };
        let (run, step) = (RunId(status.run), StepId(u64::from(status.step)));
        let attempt = Attempt(u64::from(status.attempt));
        self.commit(Entry::StepOutcome { run, step, attempt, outcome })?;
        Ok(())
    }

    /// The primary's agent names new terms in its next heartbeat.
    fn confirm(&mut self) -> Result<()> {
        let known = self.known()?;
        let Some(primary) = known.primary.clone() else { return Ok(()) };
        let heard = self.stage.agents.iter().any(|agent| agent.cluster == primary);
        if !heard || (known.confirmed && known.terms.len() == 1) {
            return Ok(());
        }
        let entry = Entry::TermsConfirmed {
            application: scene::application(),
            terms: known.terms.last().context("no terms")?.number,
            installation: self.stage.state.agents.get(&primary).context("no agent")?.installation.clone(),
            databases: known.databases.get(&primary).cloned().unwrap_or_default(),
            cluster: primary,
        };
        self.commit(entry)?;
        Ok(())
    }

    /// Says it; true if it was taken.
    fn say(&mut self, word: Word) -> Result<bool> {
        let run = self.stage.run;
        let (by, reason) = ("ann".to_owned(), "not now".to_owned());
        let application = Some(scene::application());
        let applied = match word {
            Word::Abort => self.commit(Entry::Aborted { run, by, reason })?,
            Word::Pause => self.commit(Entry::Paused { application, by, reason })?,
            Word::PauseThenResume => {
                self.commit(Entry::Paused { application: application.clone(), by: by.clone(), reason })?;
                self.commit(Entry::Resumed { application, by })?
            }
            Word::Retry => self.clear(Clearing::Retry)?,
            Word::Done => self.clear(Clearing::Done)?,
        };
        Ok(match applied {
            Applied::Done(_) | Applied::Repeated(_) => true,
            Applied::Ignored(_) | Applied::Refused { .. } => false,
        })
    }

    fn stuck(&self) -> Option<StepId> {
        let is_stuck = |state: StepState| state == StepState::Stuck;
        let (step, _) = self.stage.run()?.walk().find(|(_, progress)| is_stuck(progress.state))?;
        Some(step.id)
    }

    fn clear(&mut self, how: Clearing) -> Result<Applied> {
        let step = self.stuck().unwrap_or(StepId(0));
        let applied = self.commit(Entry::Cleared {
            run: self.stage.run,
            step,
            how,
            by: "ann".to_owned(),
            reason: String::new(),
        })?;
        if matches!(applied, Applied::Done(_)) {
            self.broken = None;
            // What was done by hand is not for Regent to show.
            self.excused = self.excused.take().filter(|_| how == Clearing::Done);
        }
        Ok(applied)
    }

    /// Until it has ended well, whatever commands that takes.
    fn see_through(&mut self) -> Result<Fate> {
        for _ in 0..6 {
            self.settle()?;
            let Some(told) = self.told()? else { return self.judge() };
            self.obey(&told).with_context(|| format!("by {told:?}"))?;
        }
        bail!("what is advised leads nowhere: {:?}", self.told()?)
    }

    fn settle(&mut self) -> Result<()> {
        self.idle = 0;
        for _ in 0..TURNS {
            if self.is_settled()? {
                return Ok(());
            }
            self.turn()?;
        }
        bail!("it comes to no end: {:?}", self.stage.run())
    }

    /// No run is under way but one that waits for a human.
    fn is_settled(&self) -> Result<bool> {
        let under_way = self.known()?.run.is_some() && self.stuck().is_none();
        Ok(self.idle >= IDLE && self.stage.is_quiet() && !under_way)
    }

    fn newest(&self) -> Result<&Run> {
        self.stage.state.runs.values().next_back().context("there is no run")
    }

    /// What is advised, if it has not ended well yet.
    fn told(&self) -> Result<Option<Advice>> {
        let (state, known) = (&self.stage.state, self.known()?);
        if known.paused.is_some() || known.run.is_some() {
            let wall = Timestamp(self.stage.wall);
            return Ok(Some(advice::of_application(state, &scene::application(), known, wall)));
        }
        let newest = self.newest()?;
        // The last side may have followed already when the word came: then nothing is left out, and nothing to be done.
        let left_out = newest.status == RunStatus::Aborted && !known.excluded.is_empty();
        Ok(left_out.then(|| advice::of_run(state, newest)))
    }

    /// Gives the first command that a sentence names, as it stands there.
    fn obey(&mut self, told: &Advice) -> Result<()> {
        let mut commands = told.next.split('`').skip(1).step_by(2);
        let command = commands.find(|text| text.starts_with("regentctl ")).context("it names no command")?;
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let (application, by) = (scene::application(), "ann".to_owned());
        let entry = match words.as_slice() {
            ["resume", name] if *name == application.as_str() => Entry::Resumed { application: Some(application), by },
            ["clear", run, "--step", step, "--retry"] => {
                (self.broken, self.excused) = (None, None);
                let (run, step) = (RunId(run.parse()?), StepId(step.parse()?));
                Entry::Cleared { run, step, how: Clearing::Retry, by, reason: String::new() }
            }
            ["rejoin", name, cluster] if *name == application.as_str() => {
                Entry::RejoinStarted { application, cluster: ClusterId::new(cluster)?, reclone: false, by }
            }
            other => bail!("nobody can type {other:?}"),
        };
        let applied = self.commit(entry)?;
        ensure!(matches!(applied, Applied::Done(_)), "{applied:?}");
        Ok(())
    }

    /// It has ended: one side is open, with its services, and every effect happened once.
    fn judge(&self) -> Result<Fate> {
        let seen = self.stage.effects.seen_but_for(None);
        for (what, times) in seen.iter().filter(|(what, _)| what.contains(" was ")) {
            ensure!(*times == 1, "{what} {times} times");
        }
        let newest = self.newest()?;
        // A drill has nothing to undo: one that failed or was given up has left nothing behind.
        let failed = newest.is_drill() && newest.status == RunStatus::Failed;
        if newest.status == RunStatus::Undone || failed {
            self.is_as_before(&seen)?;
            return Ok(Fate::Undone);
        }
        let followed = newest.status == RunStatus::Aborted && self.known()?.excluded.is_empty();
        ensure!(newest.status == RunStatus::Succeeded || followed, "it ended {}: {newest:?}", newest.status);
        self.serves(&seen)?;
        Ok(Fate::Succeeded)
    }

    fn is_excused(&self, what: &str) -> bool {
        self.excused.as_ref().is_some_and(|place| what.contains(place.as_str()))
    }

    fn is_as_before(&self, seen: &Effects) -> Result<()> {
        let judged = |all: &Effects| -> Effects {
            all.iter().filter(|(what, _)| !self.is_excused(what)).map(|(what, n)| (what.clone(), *n)).collect()
        };
        let (before, now) = (judged(&self.start), judged(&standing(seen)));
        ensure!(before == now, "undone, and before {before:?}, now {now:?}");
        let known = self.known()?;
        ensure!(known.excluded.is_empty(), "undone, and {:?} is left out", known.excluded);
        Ok(())
    }

    fn serves(&self, seen: &Effects) -> Result<()> {
        let known = self.known()?;
        let primary = known.primary.as_ref().context("no primary")?;
        let stands = |what: &str| seen.get(what) == Some(&1);
        for resource in known.document.guarded() {
            for cluster in &known.document.clusters {
                let heard = self.stage.agents.iter().any(|agent| agent.cluster == *cluster);
                let what = format!("{resource} in {cluster} is Primary");
                let fits = stands(&what) == (cluster == primary);
                ensure!(fits || !heard || self.is_excused(&what), "the primary is {primary}: {seen:?}");
            }
        }
        let services = known.document.resources.iter().filter(|(_, resource)| resource.kind == ResourceKind::Command);
        for (name, _) in services {
            let what = format!("{name} in {primary} runs");
            ensure!(stands(&what) || self.is_excused(&what), "not so: {what}: {seen:?}");
        }
        let left = seen.keys().find(|what| what.starts_with("a copy of") && !self.is_excused(what));
        ensure!(left.is_none(), "{left:?}");
        Ok(())
    }
}

/// What is, and not what was done.
fn standing(seen: &Effects) -> Effects {
    let stands = |what: &str| !what.contains(" was ");
    seen.iter().filter(|(what, _)| stands(what)).map(|(what, times)| (what.clone(), *times)).collect()
}
