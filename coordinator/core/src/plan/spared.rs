//! A failover restores a database only where nothing but a backup is. A standby that is there has more than any backup: it
//! is promoted as it is, and what the runbook says of its restore is left out. Which of the two is so is decided by what
//! goes into the log beside the cause, so that what is shown, what is begun and what is decided are one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::Planning;
use crate::application::{Action, Application, Line, Manner};
use crate::entry::Gap;
use crate::id::{ClusterId, ResourceId};
use crate::preflight::{self, Note};
use crate::run::{Run, StepKind};

/// Databases that the runbook of a failover would restore, and of which the new side has a position.
pub(super) fn of<'a>(document: &'a Application, gaps: &BTreeMap<ResourceId, Gap>) -> BTreeSet<&'a ResourceId> {
    let lines = document.runbooks.get("failover").map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    let restores = lines.iter().filter(|line| line.action == Action::Restore && line.when != Some(Manner::Graceful));
    let is_there = |resource: &&ResourceId| gaps.get(*resource).is_some_and(|gap| gap.candidate.is_some());
    restores.flat_map(|line| &line.resources).filter(is_there).collect()
}

/// That it is left out, one note for each database.
pub(super) fn notes(document: &Application, to: &ClusterId, gaps: &BTreeMap<ResourceId, Gap>) -> Vec<Note> {
    let note = |resource: &ResourceId| {
        let gap = gaps.get(resource)?;
        let detail = format!(
            "{resource} in {to} is a standby at position {} ({}): it is promoted as it is, and its restore is left out",
            gap.candidate?, gap.text
        );
        Some(preflight::remark("restore-left-out", detail))
    };
    of(document, gaps).into_iter().filter_map(note).collect()
}

/// Why what is known of the new side now is not what the plan of this run was made for, if so: a backup would take the place
/// of a standby, or a database would be promoted that is none any more.
pub(crate) fn outdated(run: &Run, gaps: &BTreeMap<ResourceId, Gap>) -> Option<String> {
    let restores = |resource: &ResourceId| {
        let mut steps = run.steps.iter().filter(|step| step.resource.as_ref() == Some(resource));
        let first = steps.find(|step| matches!(step.kind, StepKind::Action(Action::Restore | Action::Promote)));
        first.is_some_and(|step| step.kind == StepKind::Action(Action::Restore))
    };
    gaps.iter().find_map(|(resource, gap)| match (restores(resource), gap.candidate) {
        (true, Some(position)) => {
            let found = format!("{resource} in {} is a standby at position {position} by now", run.to);
            Some(format!("{found}, and run {} would restore it from a backup", run.id))
        }
        (false, None) => {
            let found = format!("{resource} in {} is no standby any more ({})", run.to, gap.text);
            Some(format!("{found}, and run {} would promote it as it is", run.id))
        }
        (true, None) | (false, Some(_)) => None,
    })
}

impl Planning<'_> {
    /// The line without the restores that are left out; none if nothing is left of it.
    pub(super) fn without_spared<'l>(&self, line: &'l Line) -> Option<Cow<'l, Line>> {
        let goes = |resource: &ResourceId| line.action == Action::Restore && self.spared.contains(resource);
        if !line.resources.iter().any(goes) {
            return Some(Cow::Borrowed(line));
        }
        let resources: Vec<ResourceId> = line.resources.iter().filter(|resource| !goes(resource)).cloned().collect();
        (!resources.is_empty()).then(|| Cow::Owned(Line { resources, ..line.clone() }))
    }
}
