//! The first epoch of an application: roles as they are found in its databases.

use std::collections::BTreeMap;

use super::Viewpoint;
use crate::entry::{Database, Entry};
use crate::evidence::{Evidence, Role};
use crate::id::{ApplicationId, ClusterId, ResourceId};
use crate::state::{ApplicationState, State};
use crate::verdict::rule;
use crate::why::Rule;

/// The first epoch: every listed agent has reported just now, and exactly one cluster has writable databases.
///
/// # Errors
/// What is missing or contradictory, naming what was found.
pub fn adopt(
    state: &State,
    evidence: &Evidence,
    view: Viewpoint,
    application: &ApplicationId,
    known: &ApplicationState,
) -> Result<Entry, Rule> {
    let mut writable: BTreeMap<&ClusterId, BTreeMap<ResourceId, Database>> = BTreeMap::new();
    let guarded = known.document.guarded();
    for cluster in &known.document.clusters {
        declared(state, cluster, application, known)?;
    }
    for cluster in &known.document.clusters {
        let mut found = BTreeMap::new();
        for resource in &guarded {
            let Some(seen) = evidence.sighting(cluster, application, resource).filter(|seen| seen.is_fresh(view.now))
            else {
                return Err(rule(
                    "not-reported",
                    format!("the agent of {cluster} has not reported {resource} just now"),
                ));
            };
            match (seen.role, seen.writable) {
                (Role::Unknown, _) => {
                    return Err(rule("role-unknown", format!("{resource} in {cluster}: {}", seen.detail)));
                }
                (Role::Primary, true) => {
                    let database = Database { system_id: seen.system_id.clone(), timeline: seen.timeline };
                    found.insert(resource.clone(), database);
                }
                (Role::Primary, false) => {
                    return Err(rule(
                        "closed-primary",
                        format!(
                            "{resource} in {cluster} is a primary that refuses writes; open it once, so that it can be adopted"
                        ),
                    ));
                }
                (Role::Standby | Role::None, _) => {}
            }
        }
        if !found.is_empty() {
            writable.insert(cluster, found);
        }
    }
    if guarded.is_empty() {
        let first = known.document.clusters.first().ok_or_else(|| rule("no-cluster", "no cluster is listed"))?;
        return Ok(Entry::Adopt {
            application: application.clone(),
            primary: first.clone(),
            databases: BTreeMap::new(),
        });
    }
    if writable.len() > 1 {
        let names: Vec<&str> = writable.keys().map(|cluster| cluster.as_str()).collect();
        return Err(rule(
            "two-primaries",
            format!("writable in {}; make all but one of them standbys", names.join(" and ")),
        ));
    }
    let Some((primary, databases)) = writable.pop_first() else {
        return Err(rule("no-primary", "no cluster has a writable database; open one"));
    };
    if let Some(missing) = guarded.iter().find(|resource| !databases.contains_key(*resource)) {
        return Err(rule(
            "split-primary",
            format!("{primary} is primary of some databases, but {missing} is not writable there"),
        ));
    }
    Ok(Entry::Adopt { application: application.clone(), primary: primary.clone(), databases })
}

/// A listed cluster has an agent, and the agent knows where it has each database.
fn declared(
    state: &State,
    cluster: &ClusterId,
    application: &ApplicationId,
    known: &ApplicationState,
) -> Result<(), Rule> {
    let Some(agent) = state.agents.get(cluster) else {
        return Err(rule(
            "agent-missing",
            format!("no agent of {cluster} has ever registered; start one, or correct the name"),
        ));
    };
    let here = agent.endpoints.get(application);
    let missing =
        known.document.resources.keys().find(|resource| here.is_none_or(|here| !here.contains_key(*resource)));
    match missing {
        None => Ok(()),
        Some(resource) => {
            let detail = format!(
                "the agent of {cluster} does not say where {resource} of {application} is; add it to its agent.yaml"
            );
            Err(rule("resource-missing", detail))
        }
    }
}
