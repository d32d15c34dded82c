//! The checks of each line of a runbook: the resources it names, and what its step can be done to.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{LineDraft, Operand, RunbookDraft, StepDraft};
use super::mistake::{Mistakes, Placed, quote};
use super::resource::{Known, unknown};
use super::{Action, Line, ResourceKind, Runbook, decode, default};
use crate::id::ResourceId;
use crate::time::Span;

/// Longest question to a human.
pub(super) const QUESTION_LIMIT: usize = 500;

/// Checks all runbooks.
pub(super) fn check(
    drafts: Vec<RunbookDraft>,
    known: &Known<'_>,
    mistakes: &mut Mistakes,
) -> Option<BTreeMap<String, Runbook>> {
    let mut runbooks = BTreeMap::new();
    for draft in drafts {
        let Some(lines) = draft.lines else { continue };
        if lines.is_empty() {
            mistakes.add(&draft.at, format_args!("the runbook {} has no steps", draft.name));
        }
        let lines = lines.into_iter().filter_map(|line| self::line(draft.name, line, known, mistakes)).collect();
        runbooks.insert(draft.name.to_owned(), Runbook { lines });
    }
    Some(runbooks)
}

fn line(runbook: &str, draft: LineDraft, known: &Known<'_>, mistakes: &mut Mistakes) -> Option<Line> {
    let StepDraft { action, at, operand } = draft.step?;
    let (mut command, mut question, mut duration) = (String::new(), String::new(), None);
    let resources = match operand {
        Operand::Resources(names, whole) => {
            if names.is_empty() && whole {
                mistakes.add(&at, format_args!("{action} names no resource"));
            }
            resources(action, &names, known, mistakes)
        }
        Operand::Command { resource, command: given } => {
            let name = given.as_ref().and_then(|given| {
                // A command has a name by the same rule; the agent's file says what it runs.
                decode::name(given, |text| ResourceId::new(text).ok(), mistakes)
            });
            let resources = resource.map(|name| resources(action, &[name], known, mistakes));
            command = name?.to_string();
            resources?
        }
        Operand::Duration(span) => {
            duration = Some(span);
            Vec::new()
        }
        Operand::Question(given) => {
            question = asked(&given, mistakes)?;
            Vec::new()
        }
    };
    let timeout = draft.timeout.then(mistakes, |timeout| allowed(timeout, duration));
    Some(Line {
        action,
        resources,
        timeout: timeout.or(default::timeout_in(runbook, action, duration))?,
        retries: draft.retries.or(default::retries(action))?,
        on_failure: draft.on_failure.or(default::ON_FAILURE)?,
        when: match draft.when.is_present() {
            true => Some(draft.when.given()?.value),
            false => None,
        },
        duration,
        command,
        question,
        always: draft.always.or(false)?,
    })
}

fn resources(action: Action, names: &[Placed<String>], known: &Known<'_>, mistakes: &mut Mistakes) -> Vec<ResourceId> {
    let mut resources = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names {
        let text = name.value.as_str();
        if !seen.insert(text) {
            mistakes.add(&name.at, format_args!("{} stands twice in this line", quote(text)));
            continue;
        }
        match known.get(text) {
            None => mistakes.add(&name.at, unknown(text, known, mistakes)),
            Some(Some(kind)) if !fits(action, *kind) => {
                mistakes.add(&name.at, format_args!("{action} is for {}; {text} is of kind {kind}", suited(action)));
            }
            Some(_) => resources.extend(ResourceId::new(text).ok()),
        }
    }
    resources
}

/// Whether a driver of this kind has the action.
pub(super) const fn fits(action: Action, kind: ResourceKind) -> bool {
    let command = matches!(kind, ResourceKind::Command);
    match action {
        Action::Fence | Action::CatchUp | Action::Rejoin => kind.is_guarded(),
        Action::Promote | Action::Restore => kind.is_guarded() || command,
        Action::Quiesce => kind.is_guarded() || kind.is_service(),
        Action::Activate | Action::Deactivate | Action::Run => kind.is_service(),
        Action::Redirect => matches!(kind, ResourceKind::Dns),
        Action::Verify => true,
        Action::Approve | Action::Wait => false,
    }
}

/// The kinds that have the action, in the words of a message.
pub(super) const fn suited(action: Action) -> &'static str {
    match action {
        Action::Fence | Action::CatchUp | Action::Rejoin => "databases",
        Action::Promote | Action::Restore => "databases and command resources",
        Action::Quiesce => "databases, command and kubernetes resources",
        Action::Activate | Action::Deactivate | Action::Run => "command and kubernetes resources",
        Action::Redirect => "dns resources",
        Action::Verify => "any resource",
        Action::Approve | Action::Wait => "no resource",
    }
}

fn allowed(timeout: Span, duration: Option<Span>) -> Result<Span, String> {
    match duration {
        _ if timeout == Span::ZERO => Err("an attempt needs some time".to_owned()),
        Some(duration) if timeout <= duration => Err(format!("a wait of {duration} cannot end within {timeout}")),
        _ => Ok(timeout),
    }
}

/// A question is shown in terminals and pages, so it is one line of plain text.
fn asked(given: &Placed<String>, mistakes: &mut Mistakes) -> Option<String> {
    let text = given.value.trim();
    let plain = !text.chars().any(|letter| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}'));
    if !text.is_empty() && plain && text.chars().count() <= QUESTION_LIMIT {
        return Some(text.to_owned());
    }
    let message = format!("a question is one line of text with 1 to {QUESTION_LIMIT} characters");
    mistakes.add(&given.at, message);
    None
}
