//! When something may start: (state, evidence, now) → entries to propose. The leader calls it at every change and
//! every tick; calling it again changes nothing, since each proposal is valid only in the situation it names.
//!
//! ```text
//!  not adopted ──► Adopt                       exactly one cluster found writable
//!  majority of votes, D passed, no life ──► Decide{Lost}
//!  database failed, agent talks ──► RunStarted → fence → Decide{Fenced}
//!  agent talks, self-fenced for D ──► RunStarted → fence → Decide{Fenced}
//!  an operator's RunStarted → fence → catchUp → Decide{Switched}
//!  agent unreachable for most, heard by one ──► RunStarted → fence → Decide{Fenced}
//!  a rule holds it ──► Refused, once           why says which
//! ```

mod adopt;
mod follow;
mod foresee;
mod gates;
mod order;
mod schedule;

pub use adopt::adopt;
pub use foresee::{Ending, foresee};
pub use order::{Way, awaits, look as look_at_order};

use self::gates::gates;
use crate::application::Beyond;
use crate::breaker;
use crate::entry::{Cause, Entry, Ground};
use crate::evidence::Evidence;
use crate::id::{CoordinatorId, Epoch};
use crate::planted::{self, Mistake};
use crate::restore;
use crate::rogue;
use crate::run::{Run, RunStatus};
use crate::state::{State, rolls_back};
use crate::target::{self, Candidate, Unfit};
use crate::time::{Moment, Span, Timestamp};
use crate::verdict::{Failure, Loss, Scene, rule};
use crate::why::Rule;

/// Who looks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Viewpoint {
    /// The coordinator.
    pub me: CoordinatorId,
    /// Its monotonic clock.
    pub now: Moment,
    /// Its wall clock, for cool-downs.
    pub wall: Timestamp,
}

/// What would make a failover start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// Nothing.
    None,
    /// A majority has lost the primary.
    Lost(Loss),
    /// A database failed where the agent talks.
    Failed(Failure),
    /// The agent talks and has fenced its primaries itself, since then.
    SelfFenced(Moment),
    /// Most have lost the agent, one still hears it, and the time for signs of life is over.
    Unreachable(Loss),
}

/// Everything about one application that decides whether a failover starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// What would make it start.
    pub trigger: Trigger,
    /// What holds it, most important first.
    pub held_by: Vec<Rule>,
    /// To where it would go.
    pub target: Option<Candidate>,
    /// The other clusters, and why not.
    pub unfit: Vec<Unfit>,
}

/// Everything the leader should propose now.
#[must_use]
pub fn decide(state: &State, evidence: &Evidence, view: Viewpoint) -> Vec<Entry> {
    if evidence.leading_since.is_none() {
        return Vec::new();
    }
    let mut entries: Vec<Entry> = breaker::propose(state, evidence, view).into_iter().collect();
    for (application, known) in &state.applications {
        if known.recovering.is_some() {
            entries.extend(restore::recover(state, evidence, view.now, application, known).ok());
            continue;
        }
        if known.epoch == Epoch(0) {
            entries.extend(adopt(state, evidence, view, application, known).ok());
            continue;
        }
        let Some(scene) = Scene::new(state, evidence, view.now, view.me, application) else { continue };
        entries.extend(of_application(&scene, view));
    }
    entries
}

fn of_application(scene: &Scene<'_>, view: Viewpoint) -> Vec<Entry> {
    let mut entries = Vec::new();
    let run = scene.known.run.and_then(|id| scene.state.runs.get(&id));
    if let Some(run) = run {
        entries.extend(follow::of_run(scene, run, view));
    }
    entries.extend(rogue::propose(scene));
    entries.extend(follow::of_clean_ups(scene, view));
    entries.extend(commit_in_time(scene, run, view));
    let assessment = assess(scene, view);
    // An operator's order goes before what would start by itself; what cannot be carried out holds up nothing.
    let ordered = order::of_order(scene, &assessment, run, view);
    let begins = matches!(ordered, Some(Entry::RunStarted { .. } | Entry::Decide { .. }));
    entries.extend(ordered);
    match start(scene, &assessment, view, run).filter(|_| !begins) {
        Some(entry) => entries.push(entry),
        None if begins => {}
        None => {
            entries.extend(refusal(scene, &assessment, run));
            entries.extend(schedule::drill(scene, &assessment, view));
        }
    }
    entries
}

/// A switchover that nobody rolled back in its time stands.
fn commit_in_time(scene: &Scene<'_>, run: Option<&Run>, view: Viewpoint) -> Option<Entry> {
    let window = scene.known.window.as_ref().filter(|window| window.is_over(view.wall))?;
    let application = scene.application.clone();
    (!run.is_some_and(rolls_back)).then_some(Entry::Committed { application, run: window.run, by: None })
}

fn start(scene: &Scene<'_>, assessment: &Assessment, view: Viewpoint, run: Option<&Run>) -> Option<Entry> {
    if !assessment.held_by.is_empty() {
        return None;
    }
    let candidate = assessment.target.as_ref()?;
    let terms = scene.known.terms.last()?.number;
    let started = |cause: Cause, reason: String| {
        run.is_none_or(Run::yields_to_failover).then(|| Entry::RunStarted {
            application: scene.application.clone(),
            epoch: scene.known.epoch,
            cause,
            to: candidate.cluster.clone(),
            finding: target::finding(scene, candidate, order::with_answer(scene, reason), view.wall),
            plan: None,
        })
    };
    match &assessment.trigger {
        Trigger::None => None,
        Trigger::Lost(loss) => {
            let reason = assessment.trigger.sentence(scene);
            Some(Entry::Decide {
                application: scene.application.clone(),
                from: scene.known.epoch,
                to: candidate.cluster.clone(),
                terms,
                ground: Ground::Lost { votes: loss.votes.clone() },
                finding: target::finding(scene, candidate, order::with_answer(scene, reason), view.wall),
            })
        }
        Trigger::Failed(failure) => started(
            Cause::ResourceFailed { resource: failure.resource.clone(), detail: failure.detail.clone() },
            assessment.trigger.sentence(scene),
        ),
        Trigger::SelfFenced(_) => started(Cause::SelfFenced, assessment.trigger.sentence(scene)),
        Trigger::Unreachable(_) => started(Cause::AgentUnreachable, assessment.trigger.sentence(scene)),
    }
}

impl Trigger {
    /// For humans: why a failover is due.
    pub(crate) fn sentence(&self, scene: &Scene<'_>) -> String {
        let (primary, bound) = (scene.primary, scene.fail_over_after());
        match self {
            Self::None => format!("{primary} is not lost"),
            Self::Lost(loss) => {
                format!("{} of the coordinators have not heard the agent of {primary} for {bound}", loss.votes.len())
            }
            Self::Failed(failure) => {
                format!("{} in {primary}: {}; the standby has lost its upstream, too", failure.resource, failure.detail)
            }
            Self::SelfFenced(_) => {
                format!("the agent of {primary} talks, and has fenced its primaries itself for {bound}")
            }
            Self::Unreachable(_) => {
                format!("a majority has lost the agent of {primary}; it is still heard by one coordinator")
            }
        }
    }
}

/// Looks at everything that decides whether a failover starts.
#[must_use]
pub fn assess(scene: &Scene<'_>, view: Viewpoint) -> Assessment {
    let mut held_by = Vec::new();
    let trigger = trigger(scene, &mut held_by);
    held_by.extend(gates(scene, view, &trigger));
    let mut target = None;
    let mut unfit = Vec::new();
    for judged in target::rank(scene) {
        match judged {
            Ok(candidate) if target.is_none() => target = Some(candidate),
            Ok(candidate) => {
                let cluster = candidate.cluster;
                unfit.push(Unfit {
                    cluster,
                    code: "less-preferred",
                    detail: "fit; stands later in the list".to_owned(),
                });
            }
            Err(reason) => unfit.push(reason),
        }
    }
    if target.is_none() {
        held_by.push(no_target(scene, &unfit, &trigger));
    }
    Assessment { trigger, held_by, target, unfit }
}

fn no_target(scene: &Scene<'_>, unfit: &[Unfit], trigger: &Trigger) -> Rule {
    if let Some(beyond) = unfit.iter().find(|one| one.code == "beyond-max-data-loss") {
        let detail = |advice: &str| format!("{}: {}; {advice}", beyond.cluster, beyond.detail);
        let advice = match scene.known.document.automation.beyond_max_data_loss {
            Beyond::Refuse | Beyond::Accept => "refused by the document".to_owned(),
            // Counted from when the failover was due. It ends as a question: that a human was slow allows no loss.
            Beyond::Wait(wait) => match due_since(trigger).map(|since| wait.minus(scene.now.since(since))) {
                Some(left) if left > Span::ZERO => {
                    return rule("waiting-for-candidate", detail(&format!("{left} left for a better candidate")));
                }
                Some(_) => format!("none came within {wait}; a human must allow it"),
                None => format!("it would be waited {wait} for a better candidate"),
            },
            Beyond::Ask => "a human must allow it".to_owned(),
        };
        return rule("beyond-max-data-loss", detail(&advice));
    }
    let mut why: Vec<String> = unfit.iter().map(|one| format!("{}: {}", one.cluster, one.detail)).collect();
    // What no standby has may be in a backup; whether that is enough is for an operator to say.
    if let Some(cluster) = scene.others().find(|cluster| target::judge_for(scene, cluster, true).is_ok()) {
        let command = format!("regentctl failover {} --to {cluster} --allow-data-loss REASON", scene.application);
        why.push(format!("the runbook can restore {cluster} from a backup: `{command}`"));
    }
    rule("no-target", format!("no other cluster can take over: {}", why.join("; ")))
}

/// Since when a failover would have started, had there been a target.
const fn due_since(trigger: &Trigger) -> Option<Moment> {
    match trigger {
        Trigger::None => None,
        Trigger::Lost(loss) | Trigger::Unreachable(loss) => Some(loss.ripe),
        Trigger::Failed(failure) => Some(failure.since),
        Trigger::SelfFenced(due) => Some(*due),
    }
}

fn trigger(scene: &Scene<'_>, held_by: &mut Vec<Rule>) -> Trigger {
    if let Some(loss) = scene.loss() {
        if scene.now < loss.ripe && !planted::makes(Mistake::DecideAtOnce) {
            let left = loss.ripe.since(scene.now);
            held_by
                .push(rule("time-bound", format!("the old lease may run and the fence may work for another {left}")));
            return Trigger::Lost(loss);
        }
        let signs = scene.signs_of_life();
        if !signs.is_empty() && scene.life_counts(&loss) {
            held_by.extend(signs);
            return Trigger::Lost(loss);
        }
        if scene.agent_reachable() && has_life_in_agent(scene) {
            return Trigger::Unreachable(loss);
        }
        return Trigger::Lost(loss);
    }
    if let Some(failure) = scene.failure() {
        if !failure.confirmed_by_standby {
            let detail = format!(
                "only the agent of {} says that {} failed: {}",
                scene.primary, failure.resource, failure.detail
            );
            held_by.push(rule("one-kind-of-evidence", detail));
        }
        if scene.now < failure.ripe {
            let left = failure.ripe.since(scene.now);
            let detail =
                format!("{} in {}: {}; it counts as failed in {left}", failure.resource, scene.primary, failure.detail);
            held_by.push(rule("no-answer", detail));
        }
        return Trigger::Failed(failure);
    }
    if let Some(due) = scene.self_fenced_due() {
        // It may get its lease back any moment; it serves nobody so long, but nothing is lost by waiting either.
        if scene.now < due {
            let detail = format!(
                "the agent of {} holds no lease and has fenced its primaries itself; {} left for it to open them again",
                scene.primary,
                due.since(scene.now)
            );
            held_by.push(rule("self-fenced", detail));
        }
        return Trigger::SelfFenced(due);
    }
    held_by.extend(scene.needs_hand());
    held_by.push(rule("primary-not-lost", format!("no majority has lost the agent of {}", scene.primary)));
    Trigger::None
}

fn has_life_in_agent(scene: &Scene<'_>) -> bool {
    scene.signs_of_life().iter().any(|sign| sign.code == "agent-heard")
}

/// A rule, or a human, keeps it from starting, and not the time alone that it needs.
fn is_due(assessment: &Assessment) -> bool {
    let waits = |held: &Rule| matches!(held.code.as_str(), "time-bound" | "leads-too-briefly");
    assessment.trigger != Trigger::None && !assessment.held_by.iter().any(waits)
}

/// A failover that would be due and is held is audited, once for each change of the rule.
fn refusal(scene: &Scene<'_>, assessment: &Assessment, run: Option<&Run>) -> Option<Entry> {
    let due = match &assessment.trigger {
        // Not a failover that is held, but as silent, and as much in need of a human.
        Trigger::None => scene.needs_hand().is_some(),
        Trigger::Lost(_) | Trigger::Unreachable(_) => is_due(assessment),
        // The run that it has begun itself, and that has come to no end yet, is no refusal.
        Trigger::Failed(_) | Trigger::SelfFenced(_) => {
            run.is_none_or(|run| run.gives_way() || run.decided.is_some() || run.status != RunStatus::Running)
        }
    };
    let now = if due { assessment.held_by.first() } else { None };
    let code = |rule: &Rule| rule.code.clone();
    if scene.known.refusal.as_ref().map(|(rule, _)| rule.clone()) == now.map(code) {
        return None;
    }
    let (rule, detail) = now.map(|held| (held.code.clone(), held.detail.clone())).unwrap_or_default();
    Some(Entry::Refused { application: scene.application.clone(), rule, detail })
}
