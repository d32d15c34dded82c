//! A restored group goes on: by what the agents reported, or by what a human attested and decided.

use std::collections::BTreeMap;

use super::apply::{Applying, ignored, refused};
use super::change::begin;
use super::register::renew_terms;
use super::{ApplicationState, Applied};
use crate::entry::{Cause, Finding, Ground};
use crate::id::{ApplicationId, ClusterId, Epoch, RunId};
use crate::plan::{self, Route};
use crate::restore::{self, AgentReport, Recovering};
use crate::run::{Decided, Opening, Run};
use crate::terms::Window;

/// Nothing is granted, decided or rebuilt before the agents have been heard.
pub(super) fn refuse_recovering(known: &ApplicationState) -> Result<(), Applied> {
    if known.recovering.is_none() {
        return Ok(());
    }
    Err(refused("recovering", format!("{} recovers from a restored backup", known.document.name)))
}

fn recovering<'a>(applying: &'a Applying<'_>, application: &ApplicationId) -> Result<&'a Recovering, Applied> {
    let Some(known) = applying.state.applications.get(application) else {
        return Err(refused("unknown-application", format!("{application} does not exist")));
    };
    known.recovering.as_ref().ok_or_else(|| refused("not-recovering", format!("{application} does not recover")))
}

/// An operator says that the databases of a cluster are off: its agent will not report.
pub(super) fn attested(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    cluster: &ClusterId,
    by: &str,
    reason: &str,
) -> Applied {
    if let Err(not) = recovering(applying, application) {
        return not;
    }
    if let Some(known) = applying.state.applications.get_mut(application)
        && let Some(recovering) = &mut known.recovering
    {
        recovering.attested.insert(cluster.clone(), format!("{by}: {reason}"));
    }
    applying.audit("attested-off", Some(application), None, by, format!("{cluster}: {reason}"));
    applying.done()
}

/// A human decides which cluster goes on as primary.
pub(super) fn chosen(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    cluster: &ClusterId,
    by: &str,
    reason: &str,
) -> Applied {
    if let Err(not) = recovering(applying, application) {
        return not;
    }
    let Some(known) = applying.state.applications.get_mut(application) else { return ignored("gone") };
    if !known.document.clusters.contains(cluster) {
        return refused("unlisted-cluster", format!("{cluster} is not listed"));
    }
    if let Some(recovering) = &mut known.recovering {
        recovering.chosen = Some(cluster.clone());
    }
    applying.audit("primary-chosen", Some(application), None, by, format!("{cluster}: {reason}"));
    applying.done()
}

/// The reports are complete: the primary of the highest terms stays, one epoch above all.
pub(super) fn recovered(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    reports: &BTreeMap<ClusterId, AgentReport>,
) -> Applied {
    let state = &*applying.state;
    let Some(known) = state.applications.get(application) else { return ignored("unknown application") };
    let Some(recovering) = &known.recovering else { return ignored("it has recovered") };
    let findings = match restore::weigh(state, known, recovering, reports) {
        Ok(findings) => findings,
        Err(rule) => return refused(&rule.code, rule.detail),
    };
    let (document, kept) = (known.document.clone(), recovering.clone());
    applying.state.restoration = findings.restoration;
    let Some(known) = applying.state.applications.get_mut(application) else { return ignored("gone") };
    known.recovering = None;
    known.excluded.clone_from(&findings.excluded);
    let Some(primary) = findings.primary else {
        applying.audit("recovered", Some(application), None, "leader", "nobody has stored terms: it is adopted anew");
        return applying.done();
    };
    known.epoch = findings.epoch;
    known.primary = Some(primary.clone());
    // The lost group may have granted to a boot that this log has never heard of.
    known.rebooted = findings.epoch;
    renew_terms(applying, application);
    let newest = applying.state.applications.get(application).map(|known| Window::new(&known.terms).guarded_in_each());
    let (cause, promotable) = (Cause::Recovered, newest.unwrap_or_default());
    let route = Route { from: &primary, to: &primary, promotable: &promotable, followers: &[] };
    let steps = plan::recovery(&document, &route);
    let id = RunId(applying.index.0);
    let (epoch, at) = (findings.epoch, applying.at);
    let opening = Opening {
        application: application.clone(),
        cause: cause.clone(),
        from: primary.clone(),
        to: primary.clone(),
        epoch: Epoch(epoch.0.saturating_sub(1)),
        finding: Finding { reasons: vec![told(&kept, reports)], ..Finding::default() },
        at,
    };
    let mut run = Run::begin(id, steps, opening);
    let finding = run.finding.clone();
    run.pass(Decided { index: applying.index, at, ground: Ground::Recovered, epoch }, finding);
    begin(applying, run);
    let detail = format!("epoch {epoch}: {primary} stays primary; restoration {}", findings.restoration);
    applying.audit("recovered", Some(application), Some(id), "leader", detail);
    crate::run::apply::finish_if_done(applying, id);
    applying.done()
}

/// For the report of the run.
fn told(recovering: &Recovering, reports: &BTreeMap<ClusterId, AgentReport>) -> String {
    let reported = reports.iter().map(|(cluster, report)| match &report.terms {
        Some(terms) => format!("{cluster} has stored epoch {} with primary {}", terms.epoch, terms.primary),
        None => format!("{cluster} has stored no terms"),
    });
    let attested = recovering.attested.iter().map(|(cluster, word)| format!("{cluster} is off ({word})"));
    let chosen = recovering.chosen.iter().map(|cluster| format!("{cluster} was chosen by a human"));
    reported.chain(attested).chain(chosen).collect::<Vec<_>>().join("; ")
}
