//! Everything that speaks against a planned move, and what an operator should know of it: the dry run. All notes at once,
//! the worst first. The first blocker is the rule that refuses.

use serde::Serialize;

use crate::application::Action;
use crate::plan::{SWITCHOVER, Shown, keeps_out};
use crate::readiness;
use crate::run::{Step, StepKind};
use crate::switchover;
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
    if let Some(window) = &known.window {
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
    let closing = steps.iter().position(|step| keeps_out(step.kind)).unwrap_or_default();
    let waits = steps.iter().take(closing).filter(|step| step.kind == StepKind::Action(Action::Wait));
    if let Some(longest) = waits.map(|step| step.duration).max() {
        let detail = format!(
            "before writes are kept out it waits {longest}, so that clients hold no answer of before; until then nothing is \
             touched, and `regentctl abort` ends it at once"
        );
        notes.push(remark("waits-first", detail));
    }
    let rejoined = |resource: &_| {
        // What other standbys are made to follow is no word on the old side.
        let rejoins = |step: &&Step| step.kind == StepKind::Action(Action::Rejoin) && step.cluster == *scene.primary;
        steps.iter().filter(rejoins).any(|step| step.resource.as_ref() == Some(resource))
    };
    if let Some(left) = known.document.guarded().iter().find(|resource| !rejoined(resource)) {
        notes.push(warning(
            "old-side-left",
            format!("no rejoin of {left} in the runbook {SWITCHOVER}: the old side stays quarantined until it rejoins"),
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
            notes.push(if position < decided {
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
