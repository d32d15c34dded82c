//! Text to a valid document, in three steps: nodes with marks, the draft as received, the checked document.
//!
//! ```text
//!  text --node::read--> nodes --Draft::read--> draft --check--> Application
//!            \_______________________\______________________\--> mistakes, all at once
//! ```

use super::decode::{self, Value};
use super::draft::{AutomationDraft, Draft, ObjectivesDraft};
use super::mistake::{Mistake, Mistakes, Place, Placed};
use super::{Application, Automation, Objectives, default, drill, node, promotion, resource, runbook};
use crate::id::{ApplicationId, ClusterId};
use crate::lease::{DEFAULT_FAIL_OVER_AFTER, SMALLEST_FAIL_OVER_AFTER, TimeBound};
use crate::switchover::WRITE_OUTAGES;
use crate::time::Span;

/// Parses and validates a document.
///
/// # Errors
/// All mistakes at once, in order of their place; never none.
pub fn parse(text: &str) -> Result<Application, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let node = node::read(text, &mut mistakes);
    let draft = node.and_then(|node| Draft::read(&Value::root(&node), &mut mistakes));
    let application = draft.and_then(|draft| check(draft, &mut mistakes));
    match application {
        Some(application) if mistakes.is_empty() => Ok(application),
        _ => {
            if mistakes.is_empty() {
                // Every part that is left out of a draft adds its mistake, so this is a defect of ours.
                mistakes.add(&Place::root(), "the document cannot be read, and the reason got lost; report this");
            }
            Err(mistakes.into_sorted())
        }
    }
}

/// Checks every part, whatever became of the others.
fn check(draft: Draft, mistakes: &mut Mistakes) -> Option<Application> {
    let name = draft.name.and_then(|given| decode::name(&given, |text| ApplicationId::new(text).ok(), mistakes));
    let clusters = draft.clusters.and_then(|given| clusters(&given, mistakes));
    let max_data_loss = draft.objectives.as_ref().and_then(|objectives| objectives.rpo.as_ref().map(|rpo| rpo.value));
    let objectives = draft.objectives.and_then(objectives);
    let named: Vec<String> = clusters.iter().flatten().map(ToString::to_string).collect();
    let has_drill = draft.runbooks.as_ref().is_none_or(|runbooks| runbooks.iter().any(|one| one.name == "drill"));
    let drills = drill::schedule(draft.drills, &named, has_drill, mistakes);
    let automation = draft.automation.and_then(|draft| automation(draft, max_data_loss, mistakes));
    let resources = draft.resources.as_ref().and_then(|drafts| resource::check(drafts, mistakes));
    // Without a list of resources every name in a runbook would be called unknown.
    let known = draft.resources.as_ref().map(|drafts| resource::known(&drafts.value));
    let runbooks = draft.runbooks.and_then(|drafts| {
        let known = known?;
        for draft in &drafts {
            promotion::check(draft, &known, mistakes);
            drill::check(draft, &known, mistakes);
        }
        runbook::check(drafts, &known, mistakes)
    });
    Some(Application {
        name: name?,
        objectives: objectives?,
        clusters: clusters?,
        resources: resources?,
        automation: automation?,
        runbooks: runbooks?,
        drills: drills?,
    })
}

fn objectives(draft: ObjectivesDraft) -> Option<Objectives> {
    Some(Objectives { rto: draft.rto?.value, rpo: draft.rpo?.value })
}

fn clusters(given: &Placed<Vec<Placed<String>>>, mistakes: &mut Mistakes) -> Option<Vec<ClusterId>> {
    let mut clusters: Vec<ClusterId> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for name in &given.value {
        let Some(cluster) = decode::name(name, |text| ClusterId::new(text).ok(), mistakes) else { continue };
        if seen.insert(cluster.clone()) {
            clusters.push(cluster);
        } else {
            mistakes.add(&name.at, format_args!("the cluster {cluster} is listed twice"));
        }
    }
    if given.value.len() < 2 {
        mistakes.add(&given.at, "at least two clusters are needed: one to serve and one to fail over to");
    }
    Some(clusters)
}

fn automation(draft: AutomationDraft, rpo: Option<Span>, mistakes: &mut Mistakes) -> Option<Automation> {
    let bound = draft.failover_after.then(mistakes, |given| {
        if given >= SMALLEST_FAIL_OVER_AFTER {
            return Ok(given);
        }
        Err(format!("{given} is too short: below {SMALLEST_FAIL_OVER_AFTER} a fence cannot be done in its share"))
    });
    let max_write_outage = draft.max_write_outage.then(mistakes, |given| {
        let (least, most) = (WRITE_OUTAGES.start(), WRITE_OUTAGES.end());
        if WRITE_OUTAGES.contains(&given) { Ok(given) } else { Err(format!("give a time from {least} to {most}")) }
    });
    let approve_within = draft.approve_within.then(mistakes, |given| match given {
        Span::ZERO => Err("a human needs some time to answer".to_owned()),
        given => Ok(given),
    });
    let commit_within = draft.commit_within.then(mistakes, |given| match given {
        Span::ZERO => Err("a window that closes at once is none; leave the key out".to_owned()),
        given => Ok(Some(given)),
    });
    Some(Automation {
        mode: draft.mode.or(default::MODE)?,
        bound: TimeBound::new(bound.or(DEFAULT_FAIL_OVER_AFTER)?),
        cooldown: draft.cooldown.or(default::COOLDOWN)?,
        max_data_loss: draft.max_data_loss.or(rpo?)?,
        beyond_max_data_loss: draft.beyond_max_data_loss.or(default::BEYOND)?,
        max_write_outage: max_write_outage.or(default::MAX_WRITE_OUTAGE)?,
        commit_within: commit_within.or(None)?,
        two_person: draft.two_person.or(false)?,
        approve_within: approve_within.or(default::APPROVE_WITHIN)?,
        on_silence: draft.on_silence.or(default::ON_SILENCE)?,
        on_coordinator_loss: draft.on_coordinator_loss.or(default::ON_COORDINATOR_LOSS)?,
        probe_failures: draft.probe_failures.or(default::PROBE_FAILURES)?,
    })
}
