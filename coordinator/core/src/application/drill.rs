//! A drill leaves the real things alone: its runbook can name only what is done with copies, or beside them.

use std::collections::BTreeSet;

use super::decode::Field;
use super::draft::{DrillsDraft, Operand, RunbookDraft, StepDraft};
use super::mistake::{Mistakes, Placed, list, quote};
use super::resource::Known;
use super::{Action, Drills, ResourceKind};
use crate::id::ClusterId;
use crate::time::Span;

/// Drills more often than this would never end.
pub(super) const SHORTEST: Span = Span::from_secs(3600);

/// Checks when drills begin by themselves: `Some(None)` without, none for a mistake.
#[expect(clippy::option_option, reason = "a mistake and a document without a schedule are not the same")]
pub(super) fn schedule(
    draft: Field<DrillsDraft>,
    clusters: &[String],
    has_runbook: bool,
    mistakes: &mut Mistakes,
) -> Option<Option<Drills>> {
    let Placed { value: DrillsDraft { every, cluster }, at } = match draft {
        Field::Absent => return Some(None),
        Field::Bad => return None,
        Field::Given(draft) => draft,
    };
    if !has_runbook {
        mistakes.add(&at, "there is no runbook named drill that could be done; add it under runbooks");
    }
    let every = every.then(mistakes, |every| {
        if every >= SHORTEST {
            Ok(every)
        } else {
            Err(format!("drills are at least {SHORTEST} apart, and this is {every}"))
        }
    });
    let cluster = cluster.then(mistakes, |name| {
        // Without a readable list every name would be called unknown.
        let known = clusters.is_empty() || clusters.contains(&name);
        ClusterId::new(&name).ok().filter(|_| known).ok_or_else(|| {
            format!("there is no cluster {}; known here: {}", quote(&name), list(clusters.iter().map(String::as_str)))
        })
    });
    let wanted = match cluster {
        Field::Absent => None,
        Field::Bad => return None,
        Field::Given(cluster) => Some(cluster.value),
    };
    Some(Some(Drills { every: every.given()?.value, cluster: wanted }))
}

/// Checks one runbook: of a drill, and that no other has what only a drill has.
pub(super) fn check(draft: &RunbookDraft, known: &Known<'_>, mistakes: &mut Mistakes) {
    let Some(lines) = &draft.lines else { return };
    let is_drill = draft.name == "drill";
    let mut copied = BTreeSet::new();
    for line in lines {
        let action = line.step.as_ref().map(|step| step.action);
        if let Some(always) = line.always.given() {
            let fits = is_drill && action.is_none_or(|action| action == Action::Run);
            if !fits {
                let message = "always is for run lines of a drill: what they do at its end, whatever came before";
                mistakes.add(&always.at, message);
            }
        }
        if let Some(step) = line.step.as_ref().filter(|_| is_drill) {
            self::step(step, known, &mut copied, mistakes);
        }
    }
}

fn step<'d>(step: &'d StepDraft, known: &Known<'_>, copied: &mut BTreeSet<&'d str>, mistakes: &mut Mistakes) {
    let StepDraft { action, at, operand } = step;
    match action {
        Action::Fence
        | Action::Quiesce
        | Action::CatchUp
        | Action::Activate
        | Action::Deactivate
        | Action::Redirect
        | Action::Rejoin => {
            let message = format!(
                "{action} is nothing for a drill: it would touch the real thing; run a listed command in its place"
            );
            mistakes.add(at, message);
        }
        Action::Promote | Action::Restore | Action::Verify => {
            let Operand::Resources(names, _) = operand else { return };
            for name in names {
                resource(*action, name, known, copied, mistakes);
            }
        }
        Action::Run | Action::Approve | Action::Wait => {}
    }
}

fn resource<'d>(
    action: Action,
    Placed { value, at }: &'d Placed<String>,
    known: &Known<'_>,
    copied: &mut BTreeSet<&'d str>,
    mistakes: &mut Mistakes,
) {
    let Some(Some(kind)) = known.get(value.as_str()) else { return };
    match (action, kind) {
        (Action::Verify, ResourceKind::Dns) => {
            mistakes.add(at, format_args!("{value} stays where it is in a drill: there is nothing to verify"));
        }
        (Action::Verify, kind) if kind.is_guarded() && !copied.contains(value.as_str()) => {
            let message = format!("there is no copy of {value} yet: promote or restore it in a line before");
            mistakes.add(at, message);
        }
        (Action::Promote, ResourceKind::Command) => {
            let message = format!("a drill promotes copies of databases, and {value} is of kind {kind}; use run");
            mistakes.add(at, message);
        }
        (Action::Restore, ResourceKind::Command) => {
            let message = format!(
                "a drill restores beside the database, and {value} is of kind {kind}: its command would work on the \
                 live service; use run with one that restores elsewhere"
            );
            mistakes.add(at, message);
        }
        (Action::Promote | Action::Restore, _) => {
            copied.insert(value);
        }
        _ => {}
    }
}
