//! Everything that speaks against a planned move, and what an operator should know of it: the dry run. All notes at once,
//! the worst first. The first blocker is the rule that refuses.

use serde::Serialize;

use crate::application::Action;
use crate::entry::Cause;
use crate::plan::{SWITCHOVER, Shown, keeps_out};
use crate::readiness;
use crate::run::{Run, Step, StepKind};
use crate::switchover::{self, Purpose};
use crate::time::{Span, Timestamp};
use crate::verdict::Scene;
use crate::why::Rule;

/// How much a note weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It does not start.
    Blocker,
    /// It starts, and may end otherwise than is wished.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocker => "blocker",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// What an operator should know before something is begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// How much it weighs.
    pub severity: Severity,
    /// Stable code; that of a blocker or a warning has a page.
    pub code: String,
    /// For humans.
    pub detail: String,
}

impl From<Rule> for Note {
    fn from(rule: Rule) -> Self {
        Self { severity: Severity::Blocker, code: rule.code, detail: rule.detail }
    }
}

pub(crate) fn warning(code: &str, detail: impl Into<String>) -> Note {
    Note { severity: Severity::Warning, code: code.to_owned(), detail: detail.into() }
}

pub(crate) fn remark(topic: &str, detail: impl Into<String>) -> Note {
    Note { severity: Severity::Info, code: topic.to_owned(), detail: detail.into() }
}

/// What to know of a planned move beside what refuses it, which is on the plan already.
pub(crate) fn of_move(scene: &Scene<'_>, shown: &Shown, max_write_outage: Span, wall: Timestamp) -> Vec<Note> {
    let Shown { steps, forecast, to, notes: refused, .. } = shown;
    let to = to.as_ref();
    let mut notes = readiness::before_move(scene, to, wall);
    notes.retain(|note| !refused.iter().any(|blocker| (&blocker.code, &blocker.detail) == (&note.code, &note.detail)));
    let known = scene.known;
    notes.extend(ends_run(scene));
    // The way back ends the matter by using it.
    let rolls_back = matches!(shown.cause, Cause::Switchover { purpose: Purpose::Rollback { .. }, .. });
    if let Some(window) = known.window.as_ref().filter(|_| !rolls_back) {
        notes.push(warning(
            "commits-earlier-run",
            format!(
                "run {} can be rolled back for another {}; its window closes when this one is decided",
                window.run,
                window.left(wall)
            ),
        ));
    }
    if forecast.until_decided.span > max_write_outage {
        notes.push(warning(
            "longer-than-allowed",
            format!(
                "until the decision it took {} before; maxWriteOutage is {max_write_outage}, and then it is undone",
                forecast.until_decided
            ),
        ));
    }
    let grace = switchover::of_quiesces(scene, max_write_outage).filter(|(_, note)| note.severity == Severity::Warning);
    notes.extend(grace.map(|(place, note)| place.before(note)));
    let closing = steps.iter().position(|step| keeps_out(step.kind));
    let before = || steps.iter().take(closing.unwrap_or_default());
    let waits = before().filter(|step| step.kind == StepKind::Action(Action::Wait));
    if let Some(longest) = waits.map(|step| step.duration).max() {
        let shortens = before().any(Step::is_ttl_alone);
        let meanwhile = if shortens {
            "no more is touched than the TTL of names, and `regentctl abort` ends it and restores that"
        } else {
            "nothing is touched, and `regentctl abort` ends it at once"
        };
        let detail = format!(
            "before writes are kept out it waits {longest}, so that clients hold no answer of before; until then {meanwhile}"
        );
        notes.push(remark("waits-first", detail));
    }
    let rejoined = |resource: &_| {
        // What other standbys are made to follow is no word on the old side.
        let rejoins = |step: &&Step| step.kind == StepKind::Action(Action::Rejoin) && step.cluster == *scene.primary;
        steps.iter().filter(rejoins).any(|step| step.resource.as_ref() == Some(resource))
    };
    if let Some(left) = known.document.guarded().iter().find(|resource| !rejoined(resource)) {
        let window = known.document.automation.commit_within.map_or("", |_| ", and no commit window opens before");
        notes.push(warning(
            "old-side-left",
            format!(
                "no rejoin of {left} in the runbook {SWITCHOVER}: the old side stays quarantined until it rejoins{window}"
            ),
        ));
    }
    for cluster in scene.others().filter(|cluster| steps.iter().all(|step| step.cluster != **cluster)) {
        notes.push(warning(
            "third-left",
            format!("{cluster} follows the old primary and is not pointed to the new one: it has to rejoin afterwards"),
        ));
    }
    let decided = steps.iter().position(|step| step.kind == StepKind::Decide).unwrap_or(0);
    for (position, step) in steps.iter().enumerate() {
        if step.kind == StepKind::Action(Action::Approve) {
            let question = &step.question;
            let closed = closing.is_some_and(|closing| closing < position);
            notes.push(if closed && position < decided {
                warning(
                    "asks-while-closed",
                    format!("step {} asks before the decision, within maxWriteOutage: {question}", step.id),
                )
            } else {
                remark("asks", format!("step {} waits for a human: {question}", step.id))
            });
        }
    }
    notes
}

/// What is under way and gives way to a run that moves the primary: it ends without having come to its end.
pub(crate) fn ends_run(scene: &Scene<'_>) -> Option<Note> {
    let run = scene.known.run.and_then(|run| scene.state.runs.get(&run))?;
    if !run.gives_way() || run.is_cleaning_up() {
        return None;
    }
    let Run { id, from, .. } = run;
    let detail = match &run.cause {
        Cause::Drill { .. } => {
            format!("run {id}, a drill, is under way and ends when this one begins; it proves nothing then")
        }
        Cause::Rejoin { reclone: true, .. } => format!(
            "run {id}, which makes {from} follow with a fresh copy if need be, is under way and ends when this one begins: \
             what was copied until then is lost, and {from} has to rejoin anew"
        ),
        Cause::Rejoin { reclone: false, .. }
        | Cause::RegionLost
        | Cause::ResourceFailed { .. }
        | Cause::AgentUnreachable
        | Cause::SelfFenced
        | Cause::Switchover { .. }
        | Cause::Forced { .. }
        | Cause::Recovered => format!(
            "run {id}, which makes {from} follow, is under way and ends when this one begins: {from} has to rejoin anew"
        ),
    };
    Some(warning("ends-run", detail))
}
