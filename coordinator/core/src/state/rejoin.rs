//! An operator takes a cluster back: a run that makes its databases follow the primary, at the present epoch.
//!
//! It moves no primary and opens no writes, so it needs no ground. While it is under way its cluster is no candidate,
//! and a failover supersedes it: the way back must not hold up the way out.

use super::Applied;
use super::apply::{Applying, ignored, refused};
use super::change::{begin, supersede};
use super::recovery::refuse_recovering;
use super::register::renew_terms;
use crate::entry::{Cause, Finding};
use crate::id::{ApplicationId, ClusterId, RunId};
use crate::plan;
use crate::run::rejoin::readmit;
use crate::run::{Opening, Run, RunStatus};

pub(super) fn started(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    cluster: &ClusterId,
    reclone: bool,
    by: &str,
) -> Applied {
    let Some(known) = applying.state.applications.get(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    if let Err(not) = refuse_recovering(known) {
        return not;
    }
    let Some(primary) = known.primary.clone() else {
        return refused("not-adopted", "no primary is known that could be followed");
    };
    if primary == *cluster {
        return refused("rejoin-primary", format!("{cluster} is the primary; it follows nobody"));
    }
    if !known.document.clusters.contains(cluster) {
        return refused("unlisted-cluster", format!("{cluster} is not listed"));
    }
    if !applying.state.agents.contains_key(cluster) {
        return refused("no-agent", format!("no agent of {cluster} has registered"));
    }
    let under_way = known.run.and_then(|id| applying.state.runs.get(&id));
    if let Some(run) = under_way
        && !(run.gives_way() && run.from == *cluster && run.status == RunStatus::Stuck)
    {
        return refused("run-under-way", format!("run {} is under way", run.id));
    }
    let steps = plan::rejoin(&known.document, cluster, reclone);
    let id = RunId(applying.index.0);
    let opening = Opening {
        application: application.clone(),
        cause: Cause::Rejoin { by: by.to_owned(), reclone },
        from: cluster.clone(),
        to: primary.clone(),
        epoch: known.epoch,
        finding: Finding::default(),
        at: applying.at,
    };
    // A stuck one of the same cluster is begun anew.
    supersede(applying, application, None);
    begin(applying, Run::begin(id, steps, opening));
    // What is being rebuilt is no target, whoever proposes it: a decision in flight meets newer terms.
    let rebuilt = format!("run {id} makes its databases follow the primary");
    if let Some(known) = applying.state.applications.get_mut(application)
        && known.excluded.insert(cluster.clone(), rebuilt).is_none()
    {
        renew_terms(applying, application);
    }
    let how = if reclone { "; a fresh copy is allowed" } else { "" };
    applying.audit("rejoin", Some(application), Some(id), by, format!("{cluster} follows {primary}{how}"));
    // Without a database there is nothing to wait for.
    readmit(applying, id, cluster);
    crate::run::apply::finish_if_done(applying, id);
    applying.done()
}

/// A run that moves the primary begins: what gives way to it ends.
pub(super) fn give_way(applying: &mut Applying<'_>, application: &ApplicationId, cause: &Cause) -> Result<(), Applied> {
    let Some(known) = applying.state.applications.get(application) else { return Err(ignored("unknown application")) };
    let yields = match cause {
        Cause::ResourceFailed { .. } | Cause::AgentUnreachable | Cause::SelfFenced => Run::yields_to_failover,
        Cause::RegionLost
        | Cause::Switchover { .. }
        | Cause::Forced { .. }
        | Cause::Rejoin { .. }
        | Cause::Recovered
        | Cause::Drill { .. } => Run::gives_way,
    };
    match known.run.and_then(|id| applying.state.runs.get(&id)) {
        Some(run) if !yields(run) => Err(refused("run-under-way", format!("run {} is under way", run.id))),
        Some(_) | None => {
            supersede(applying, application, None);
            Ok(())
        }
    }
}
