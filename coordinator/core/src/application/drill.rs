//! A drill leaves the real things alone: its runbook can name only what is done with copies, or beside them.

use std::collections::BTreeSet;

use super::draft::{Operand, RunbookDraft, StepDraft};
use super::mistake::{Mistakes, Placed};
use super::resource::Known;
use super::{Action, ResourceKind};

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
        (Action::Promote | Action::Restore, _) => {
            copied.insert(value);
        }
        _ => {}
    }
}
