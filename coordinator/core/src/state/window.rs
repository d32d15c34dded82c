//! The commit window: for a while after a switchover the way back is open, until it is committed.
//!
//! ```text
//!  the old side follows ─► window ─┬─ rollback decided ──────► closed: rolled back
//!                                  ├─ commit, or time over ──► closed: committed
//!                                  ├─ another switchover ────► closed: committed by it
//!                                  └─ failover ──────────────► closed: the old side is no way back any more
//! ```
//!
//! It opens when the old side follows: with the end of the switchover if the runbook made it follow, else with the end of a
//! rejoin of its own. A side in quarantine is no way back, and a clock that ran meanwhile would count for nothing.
//! It promises no more than a switchover does: a rollback is one, with a cause of its own.

use serde::{Deserialize, Serialize};

use super::Applied;
use super::apply::{Applying, ignored, refused};
use crate::entry::{Cause, Ground};
use crate::id::{ApplicationId, ClusterId, RunId};
use crate::run::{Run, RunStatus};
use crate::switchover::Purpose;
use crate::time::{Span, Timestamp};

/// A finished switchover that can be rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitWindow {
    /// The switchover.
    pub run: RunId,
    /// Where the primary was before.
    pub back_to: ClusterId,
    /// When the switchover ended.
    pub since: Timestamp,
    /// How long it stays open.
    pub within: Span,
}

impl CommitWindow {
    /// How long it is still open.
    #[must_use]
    pub fn left(&self, wall: Timestamp) -> Span {
        self.within.minus(wall.since(self.since))
    }

    /// Its time has passed. Where two clocks differ it stays open for longer: the way back is what it is for.
    #[must_use]
    pub fn is_over(&self, wall: Timestamp) -> bool {
        wall.since(self.since) >= self.within
    }
}

/// A switchover has succeeded. Where its old side does not follow, since no line of the runbook says so, or one may fail and
/// has, a rejoin opens the way back.
pub(crate) fn open(applying: &mut Applying<'_>, id: RunId) {
    let Some(run) = applying.state.runs.get(&id) else { return };
    let known = applying.state.applications.get(&run.application);
    let follows = known.is_some_and(|known| !known.excluded.contains_key(&run.from));
    if run.status == RunStatus::Succeeded && opens(&run.cause) && follows {
        open_of(applying, id);
    }
}

/// The old side of a switchover follows by a rejoin of its own, since the one at the end of the switchover was stuck, failed,
/// was given up or never was: the way back opens as if it had gone well.
pub(crate) fn open_late(applying: &mut Applying<'_>, rejoin: RunId, cluster: &ClusterId) {
    let Some(rejoin) = applying.state.runs.get(&rejoin).filter(|run| matches!(run.cause, Cause::Rejoin { .. })) else {
        return;
    };
    let of_this_epoch = |run: &&Run| {
        let ended = matches!(run.status, RunStatus::Succeeded | RunStatus::Superseded | RunStatus::Aborted);
        let left = ended && !run.way_back_opened;
        let decided = run.decided.as_ref().is_some_and(|decided| decided.epoch == rejoin.epoch_before);
        left && decided && opens(&run.cause) && run.application == rejoin.application && run.from == *cluster
    };
    let switchover = applying.state.runs.values().find(of_this_epoch).map(|run| run.id);
    if let Some(id) = switchover {
        open_of(applying, id);
    }
}

fn open_of(applying: &mut Applying<'_>, id: RunId) {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else { return };
    let (application, back_to) = (run.application.clone(), run.from.clone());
    let Some(known) = applying.state.applications.get_mut(&application) else { return };
    // Once, by the document of that moment: a later rejoin opens nothing.
    run.way_back_opened = true;
    let Some(within) = known.document.automation.commit_within else { return };
    known.window = Some(CommitWindow { run: id, back_to: back_to.clone(), since: at, within });
    let detail = format!("it can be rolled back to {back_to} for {within}");
    applying.audit("commit-window", Some(&application), Some(id), "leader", detail);
}

/// A rollback ends the matter; it is no move of its own that could be rolled back.
const fn opens(cause: &Cause) -> bool {
    match cause {
        Cause::Switchover { purpose: Purpose::Switchover | Purpose::Failback, .. } => true,
        Cause::Switchover { purpose: Purpose::Rollback { .. }, .. }
        | Cause::RegionLost
        | Cause::ResourceFailed { .. }
        | Cause::AgentUnreachable
        | Cause::SelfFenced
        | Cause::Forced { .. }
        | Cause::Rejoin { .. }
        | Cause::Recovered
        | Cause::Drill { .. } => false,
    }
}

/// The switchover stands: by an operator's word, or because the time has passed.
pub(super) fn committed(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    run: RunId,
    by: Option<&str>,
) -> Applied {
    let at = applying.at;
    let Some(known) = applying.state.applications.get(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    let Some(window) = known.window.as_ref().filter(|window| window.run == run) else {
        return refused("no-commit-window", format!("run {run} of {application} can not be committed or rolled back"));
    };
    if let Some(back) = known.run.and_then(|run| applying.state.runs.get(&run)).filter(|run| rolls_back(run)) {
        return refused("run-under-way", format!("run {} rolls it back just now", back.id));
    }
    if by.is_none() && !window.is_over(at) {
        return ignored("its time has not passed");
    }
    let detail = match by {
        Some(_) => "it cannot be rolled back any more".to_owned(),
        None => format!("by itself: {} have passed", window.within),
    };
    if let Some(known) = applying.state.applications.get_mut(application) {
        known.window = None;
    }
    applying.audit("committed", Some(application), Some(run), by.unwrap_or("leader"), detail);
    applying.done()
}

/// True for the way back.
#[must_use]
pub fn rolls_back(run: &Run) -> bool {
    matches!(run.cause, Cause::Switchover { purpose: Purpose::Rollback { .. }, .. })
}

/// The primary changes: an open window closes, and the audit says by what.
pub(super) fn close(applying: &mut Applying<'_>, application: &ApplicationId, by: RunId, ground: &Ground) {
    let Some(known) = applying.state.applications.get_mut(application) else { return };
    let Some(window) = known.window.take() else { return };
    let back = applying.state.runs.get(&by).is_some_and(rolls_back);
    let (event, detail) = match ground {
        Ground::Switched { .. } if back => ("rolled-back", format!("by run {by}")),
        Ground::Switched { .. } => ("committed", format!("by run {by}, which moves the application on")),
        Ground::Lost { .. } | Ground::Fenced { .. } | Ground::Forced { .. } | Ground::Recovered => {
            ("commit-window-closed", format!("by run {by}, a failover: {} is no way back any more", window.back_to))
        }
    };
    applying.audit(event, Some(application), Some(window.run), "leader", detail);
}
