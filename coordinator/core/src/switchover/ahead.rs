//! What is certain to fail in a switchover, and can be seen before: a step whose resource the agent's file does not name, a
//! right that is lacking, a command that is not listed. Behind the point of no return there is no way back from it, so it
//! refuses the move. A failover is nobody's choice, and is only warned.
//!
//! A step that may fail by the document, or that nothing waits for, refuses nothing. Nor does what is not known: a look that
//! is old, and what an agent of an older release does not tell.

use crate::application::{Action, OnFailure, ResourceKind};
use crate::entry::Endpoint;
use crate::facts::{Facts, Listed};
use crate::id::{ClusterId, ResourceId};
use crate::plan::{self, SWITCHOVER};
use crate::readiness::Place;
use crate::run::{Step, StepKind};
use crate::verdict::{Scene, rule};
use crate::why::Rule;

/// The rules that refuse a switchover to this cluster, each with the place that it is about, in the order of the steps.
pub(crate) fn certain_to_fail(scene: &Scene<'_>, to: &ClusterId) -> Vec<(Place, Rule)> {
    let mut told: Vec<(Place, Rule)> = Vec::new();
    if !scene.known.document.runbooks.contains_key(SWITCHOVER) {
        return told;
    }
    let steps = plan::planned(scene.known, to).unwrap_or_default();
    for step in steps.iter().filter(|step| must_succeed(step)) {
        let Some(resource) = &step.resource else { continue };
        let place = Place { cluster: Some(step.cluster.clone()), resource: Some(resource.clone()) };
        for rule in of_step(scene, step, resource, to) {
            let one = (place.clone(), rule);
            // Several steps may need the same.
            if !told.contains(&one) {
                told.push(one);
            }
        }
    }
    told
}

fn must_succeed(step: &Step) -> bool {
    // The group itself refuses an empty answer, whatever the document says of a failure.
    let flips = step.kind == StepKind::Action(Action::Redirect) && !step.is_ttl_alone();
    let may_fail = step.on_failure == OnFailure::Continue && !flips;
    !step.detached && !may_fail
}

fn of_step(scene: &Scene<'_>, step: &Step, resource: &ResourceId, to: &ClusterId) -> Vec<Rule> {
    // That no agent has registered is told of the cluster as a whole.
    let Some(agent) = scene.state.agents.get(&step.cluster) else { return Vec::new() };
    let Some(endpoint) = agent.endpoints.get(scene.application).and_then(|here| here.get(resource)) else {
        let detail = "the agent's file does not name it, and a step needs it there; add it to agent.yaml";
        return vec![rule("resource-missing", detail)];
    };
    let mut rules = Vec::new();
    rules.extend(without_address(step, endpoint));
    let Some(facts) = facts(scene, step, resource) else { return rules };
    if step.cluster == *to || step.kind == StepKind::Action(Action::Fence) {
        rules.extend(facts.findings.lacks.iter().map(|lack| rule("permission-missing", lack.clone())));
    }
    let kind = scene.known.document.resources.get(resource).map(|spec| spec.kind);
    if let (Some(listed), Some(kind)) = (&facts.findings.listed, kind) {
        rules.extend(unlisted(step, kind, listed));
    }
    rules
}

/// Fresh ones only: what is old is unknown.
fn facts<'a>(scene: &Scene<'a>, step: &Step, resource: &ResourceId) -> Option<&'a Facts> {
    let contact = scene.evidence.contacts.get(&step.cluster)?;
    let facts = contact.facts.get(scene.application)?.get(resource)?;
    Some(facts).filter(|facts| facts.is_fresh(scene.now))
}

fn without_address(step: &Step, endpoint: &Endpoint) -> Option<Rule> {
    let redirects = step.kind == StepKind::Action(Action::Redirect) && !step.is_ttl_alone();
    let detail = "its agent declares no address, so the answer would be empty; add one to agent.yaml";
    (redirects && endpoint.addresses.is_empty()).then(|| rule("dns-would-be-empty", detail))
}

/// What the step would run, if agent.yaml does not list it.
fn unlisted(step: &Step, kind: ResourceKind, listed: &Listed) -> Option<Rule> {
    let StepKind::Action(action) = step.kind else { return None };
    match kind {
        ResourceKind::Command => {
            let (needed, list) = match action {
                Action::Run => (step.command.as_str(), &listed.commands),
                Action::Promote | Action::Activate => ("activate", &listed.actions),
                Action::Quiesce | Action::Deactivate => ("deactivate", &listed.actions),
                Action::Verify => ("status", &listed.actions),
                Action::Restore => ("restore", &listed.actions),
                Action::Fence
                | Action::CatchUp
                | Action::Redirect
                | Action::Rejoin
                | Action::Approve
                | Action::Wait => return None,
            };
            let detail = || format!("its agent lists no command {needed:?}, which a step runs; add it to agent.yaml");
            (!list.contains(needed)).then(|| rule("command-not-listed", detail()))
        }
        ResourceKind::Kubernetes => {
            let needed = &step.command;
            let detail = || format!("its agent lists no job {needed:?}, which a step runs; add it to agent.yaml");
            let missing = action == Action::Run && !listed.commands.contains(needed);
            missing.then(|| rule("kubernetes-job-not-listed", detail()))
        }
        ResourceKind::Postgres | ResourceKind::Redis | ResourceKind::Dns | ResourceKind::Http => None,
    }
}
