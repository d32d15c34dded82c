//! A runbook that changes the primary promotes the application whole, and in an order that can be.
//!
//! A database that is left out would stay a standby of the old side while the rest serves from the new one: a half
//! promoted application contradicts itself. `drill` promotes nothing for good and is free.

use std::collections::BTreeMap;

use super::draft::{LineDraft, Operand, RunbookDraft, StepDraft};
use super::mistake::{Mistakes, Place, Placed};
use super::resource::Known;
use super::{Action, Manner, ResourceKind};

/// Checks one runbook.
pub(super) fn check(draft: &RunbookDraft, known: &Known<'_>, mistakes: &mut Mistakes) {
    let Some(lines) = &draft.lines else { return };
    if !matches!(draft.name, "failover" | "switchover") {
        return;
    }
    phases(lines, mistakes);
    each_once(Action::Promote, draft, lines, known, mistakes);
    if draft.name == "switchover" {
        each_once(Action::CatchUp, draft, lines, known, mistakes);
        opens_late(lines, mistakes);
        restores_nothing(lines, mistakes);
    } else {
        restores_before_it_starts(lines, known, mistakes);
    }
}

/// The side that is left stands still, the new one catches up, takes over, and only then the old one follows it.
fn phases(lines: &[LineDraft], mistakes: &mut Mistakes) {
    let order = [Action::Quiesce, Action::Fence, Action::CatchUp, Action::Promote, Action::Rejoin];
    let phase = |action: Action| order.iter().position(|one| *one == action);
    let mut latest: Option<(usize, Action)> = None;
    for StepDraft { action, at, .. } in lines.iter().filter_map(|line| line.step.as_ref()) {
        let Some(this) = phase(*action) else { continue };
        match latest {
            Some((phase, before)) if this < phase => {
                let order = order.map(Action::as_str).join(", ");
                mistakes.add(at, format_args!("{action} comes after {before}; the order is {order}"));
            }
            _ => latest = Some((this, *action)),
        }
    }
}

/// Until the new side has caught up everything can be undone; what leads clients there comes after.
fn opens_late(lines: &[LineDraft], mistakes: &mut Mistakes) {
    let steps = || lines.iter().filter_map(|line| line.step.as_ref());
    let places = steps().enumerate().filter(|(_, step)| step.action == Action::CatchUp);
    let Some(last) = places.map(|(place, _)| place).last() else { return };
    for StepDraft { action, at, .. } in steps().take(last) {
        let why = match action {
            Action::Activate | Action::Redirect => "until then a switchover may be undone",
            Action::Run => "until then a switchover may be undone, and nothing undoes a command",
            _ => continue,
        };
        mistakes.add(at, format_args!("{action} stands before catchUp: {why}; put it after"));
    }
}

/// The new side has every write when it takes over; a backup in its place would lose some.
fn restores_nothing(lines: &[LineDraft], mistakes: &mut Mistakes) {
    for StepDraft { action, at, .. } in lines.iter().filter_map(|line| line.step.as_ref()) {
        if *action == Action::Restore {
            let message = "restore is nothing for a switchover: the new side has every write, and no backup has; \
                           put it under failover";
            mistakes.add(at, message);
        }
    }
}

/// What runs is not restored by a command: the agent refuses, and the runbook would be stuck there every time.
fn restores_before_it_starts(lines: &[LineDraft], known: &Known<'_>, mistakes: &mut Mistakes) {
    let mut started: BTreeMap<&str, Action> = BTreeMap::new();
    // A failover is never graceful: such a line is not done.
    let done = |line: &&LineDraft| !line.when.given().is_some_and(|when| when.value == Manner::Graceful);
    for StepDraft { action, operand, .. } in lines.iter().filter(done).filter_map(|line| line.step.as_ref()) {
        let Operand::Resources(names, _) = operand else { continue };
        for Placed { value, at } in names {
            let is_command = matches!(known.get(value.as_str()), Some(Some(ResourceKind::Command)));
            match action {
                Action::Activate | Action::Promote => _ = started.entry(value).or_insert(*action),
                Action::Restore if is_command => {
                    if let Some(before) = started.get(value.as_str()) {
                        let why = "what runs is not restored; put it before";
                        mistakes.add(at, format_args!("restore of {value} stands after {before}: {why}"));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Every database is named by exactly one line of the action, and whatever the manner of the run.
fn each_once(action: Action, draft: &RunbookDraft, lines: &[LineDraft], known: &Known<'_>, mistakes: &mut Mistakes) {
    let mut named: BTreeMap<&str, &Place> = BTreeMap::new();
    // A line that could not be read may have named anything.
    let mut whole = true;
    for line in lines {
        let Some(step) = &line.step else {
            whole = false;
            continue;
        };
        let Operand::Resources(names, all) = &step.operand else { continue };
        if step.action != action {
            continue;
        }
        whole &= *all;
        for Placed { value, at } in names {
            let Some(kind) = known.get(value.as_str()) else {
                // Most likely a slip of the database that would now be called missing.
                whole = false;
                continue;
            };
            if !kind.is_some_and(ResourceKind::is_guarded) {
                continue;
            }
            if let Some(when) = line.when.given() {
                let missing = format!("a run of the other manner would leave {value} out");
                mistakes.add(&when.at, format_args!("{action} of a database cannot depend on when: {missing}"));
            }
            match named.get(value.as_str()) {
                // Twice in one line is reported as that.
                Some(first) if !first.is_sibling(at) => {
                    let message = format!("{value} stands under {action} twice, first in line {}", first.line());
                    mistakes.add(at, message);
                }
                _ => {
                    named.insert(value, at);
                }
            }
        }
    }
    if !whole {
        return;
    }
    for (name, _) in known.iter().filter(|(_, kind)| kind.is_some_and(ResourceKind::is_guarded)) {
        if !named.contains_key(name) {
            mistakes.add(&draft.at, missing(action, draft.name, name));
        }
    }
}

fn missing(action: Action, runbook: &str, name: &str) -> String {
    match action {
        Action::CatchUp => {
            format!("{runbook} never lets {name} catch up: writes would be lost without need; name it under catchUp")
        }
        _ => format!("{runbook} never promotes {name}: the application would be half promoted; name it under promote"),
    }
}
