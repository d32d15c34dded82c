//! Whether a time bound suits what was measured: the fences that were carried out, and the ways to the agents.
//!
//! The lease must outlive a few lost heartbeats (T ≥ 4 heartbeats + 2 RTT), and a fence must be done in half its budget,
//! since after that it goes hard (safety.md, "One knob" and "The quorum lease"). What was never measured refuses nothing:
//! a new application has fenced nothing yet. T ≥ 4 heartbeats alone follows from D ≥ 2 s and T ≥ D/2 for every document
//! that can be written, and is checked all the same.
//!
//! The round trip to an agent is an estimate from below: how old a receipt of this coordinator is when the agent names
//! it, less the heartbeat that the agent may have waited with that.

use std::collections::BTreeMap;

use crate::application::{Action, Application};
use crate::id::{ApplicationId, ClusterId, ResourceId};
use crate::run::StepKind;
use crate::state::State;
use crate::time::Span;
use crate::why::Rule;

/// Checks the bound of a document that is new, or says another bound or other clusters than before.
///
/// # Errors
/// Which measurement it does not suit, with the numbers.
pub fn check(state: &State, document: &Application, round_trips: &BTreeMap<ClusterId, Span>) -> Result<(), Rule> {
    let bound = document.automation.bound;
    if !is_new(state, document) {
        return Ok(());
    }
    let (lease, heartbeats) = (bound.lease(), bound.heartbeat().times(4));
    if lease < heartbeats {
        return short(format!("leases of {lease} are shorter than four heartbeats, {heartbeats}"));
    }
    for (cluster, round_trip) in round_trips.iter().filter(|(cluster, _)| document.clusters.contains(cluster)) {
        let needed = heartbeats.plus(round_trip.times(2));
        if lease < needed {
            return short(format!(
                "failoverAfter {} gives leases of {lease}; four heartbeats and two round trips of {round_trip} to the \
                 agent of {cluster} need {needed}",
                bound.fail_over_after
            ));
        }
    }
    for ((cluster, resource), took) in slowest_fences(state, &document.name) {
        let half = bound.fence_budget.divided(2);
        if document.clusters.contains(&cluster) && took >= half {
            return short(format!(
                "failoverAfter {} gives a fence {}, and after half of it the fence goes hard; that of {resource} in \
                 {cluster} has taken {took}",
                bound.fail_over_after, bound.fence_budget
            ));
        }
    }
    Ok(())
}

/// Checks such a document against the heartbeat of raft. A vote counts only while its voter was heard within three
/// heartbeats of the application; where raft speaks more seldom, no majority of votes would ever count (L1).
///
/// # Errors
/// With the numbers.
pub fn check_replication(state: &State, document: &Application, raft_heartbeat: Span) -> Result<(), Rule> {
    let bound = document.automation.bound;
    let heard = bound.heartbeat().times(3);
    // Two of raft's: one may be lost.
    let needed = raft_heartbeat.times(2);
    if !is_new(state, document) || heard >= needed {
        return Ok(());
    }
    short(format!(
        "with failoverAfter {} a coordinator's vote counts for {heard} after it was heard; the coordinators hear each \
         other every {raft_heartbeat} (raft.heartbeat), and {needed} are needed",
        bound.fail_over_after
    ))
}

fn is_new(state: &State, document: &Application) -> bool {
    state.applications.get(&document.name).is_none_or(|known| {
        let before = &known.document;
        before.automation.bound != document.automation.bound || before.clusters != document.clusters
    })
}

fn short<T>(detail: String) -> Result<T, Rule> {
    Err(Rule { code: "bound-too-short".to_owned(), detail })
}

/// The slowest confirmed fence of each resource, of those in the runs that are remembered. They are few: the slowest is
/// what stands for the slowest in a hundred.
fn slowest_fences(state: &State, application: &ApplicationId) -> BTreeMap<(ClusterId, ResourceId), Span> {
    let mut slowest = BTreeMap::new();
    for run in state.runs.values().filter(|run| run.application == *application) {
        for (step, progress) in run.walk().filter(|(step, _)| step.kind == StepKind::Action(Action::Fence)) {
            let (Some(resource), Some(report)) = (&step.resource, &progress.report) else { continue };
            // What went hard took its half of the budget first, and says nothing of how long a fence takes.
            if report.already || report.hard {
                continue;
            }
            let longest: &mut Span = slowest.entry((step.cluster.clone(), resource.clone())).or_default();
            *longest = report.driver.max(*longest);
        }
    }
    slowest
}
