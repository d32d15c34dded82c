//! A new installation of an agent takes the place of the registered one, whose data directory is gone for good.
//!
//! Only an operator can say that it is. What the old one promised, held and fenced stood in that directory, so nothing
//! of it may still count (safety.md, "Identity and numbers"):
//!
//! ```text
//!  nothing that lists it recovers        else nobody knows what the old one is; or it is attested off
//!  its cluster is primary nowhere        a failover has taken that away, with all its own waiting
//!  a majority has voted it lost          it is not merely the newer of two that run
//!  D has passed since the last grant     by the votes, as for a failover
//!  ──► the new one is registered, and its cluster is quarantined until it rejoins
//! ```

use crate::evidence::Evidence;
use crate::id::{ClusterId, CoordinatorId, InstallationId};
use crate::restore::Recovering;
use crate::state::{ApplicationState, State};
use crate::terms::{Window, is_majority};
use crate::time::{Moment, Span};
use crate::verdict::{is_lost, rule};
use crate::why::Rule;

/// Whether this installation may take the place of the registered one now.
///
/// # Errors
/// The rule that refuses it.
pub fn preflight(
    state: &State,
    evidence: &Evidence,
    now: Moment,
    cluster: &ClusterId,
    installation: &InstallationId,
) -> Result<(), Rule> {
    check(state, cluster, installation)?;
    if !counts_anywhere(state, cluster) {
        return Ok(());
    }
    let left = ripe(state, evidence, now, cluster).map(|ripe| ripe.since(now));
    match left {
        Some(Span::ZERO) => Ok(()),
        Some(left) => Err(heard(cluster, &format!("what it promised and held may count for another {left}"))),
        None => Err(heard(cluster, "no majority has lost it")),
    }
}

/// What the state machine can tell without a clock.
pub(crate) fn check(state: &State, cluster: &ClusterId, installation: &InstallationId) -> Result<(), Rule> {
    let Some(agent) = state.agents.get(cluster) else {
        return Err(rule("no-agent", format!("no agent of {cluster} has registered; the first one is taken as it is")));
    };
    if agent.installation == *installation {
        return Err(rule("installation-known", format!("{cluster} belongs to installation {installation} already")));
    }
    // While it recovers an application has no primary, so the rules below would ask for nothing: this very cluster may
    // be the primary, and write on by what its old installation has stored (safety.md, "Identity and numbers").
    if let Some((application, _)) = state.applications.iter().find(|(_, known)| may_turn_up(known, cluster)) {
        let detail = format!(
            "{application} recovers from a restored backup, and what the registered installation of {cluster} has stored is \
             not known yet; start its agent with its data directory. If that is gone, or if {installation} was taken in its \
             place after the backup was made, which the backup does not know, end the databases there and say so: \
             `regentctl recover {application} --database-off {cluster} --reason TEXT`; then repeat this"
        );
        return Err(rule("recovering", detail));
    }
    if let Some((application, _)) = state.applications.iter().find(|(_, known)| known.primary.as_ref() == Some(cluster))
    {
        let detail = format!("{cluster} is the primary of {application}; move it first, by switchover or failover");
        return Err(rule("installation-primary", detail));
    }
    if counts_anywhere(state, cluster) && !is_lost(state, cluster) {
        return Err(heard(cluster, "no majority has lost it"));
    }
    Ok(())
}

fn heard(cluster: &ClusterId, why: &str) -> Rule {
    rule("installation-heard", format!("the registered installation of {cluster}: {why}; stop its agent, and wait"))
}

/// What its agent has stored of an application that recovers is still to be heard.
fn may_turn_up(known: &ApplicationState, cluster: &ClusterId) -> bool {
    let waits = |recovering: &Recovering| !recovering.attested.contains_key(cluster);
    known.document.clusters.contains(cluster) && known.recovering.as_ref().is_some_and(waits)
}

/// Somebody counts by its word: it is listed where there is a primary.
fn counts_anywhere(state: &State, cluster: &ClusterId) -> bool {
    state.applications.values().any(|known| known.primary.is_some() && known.document.clusters.contains(cluster))
}

/// From when the largest D that concerns it has passed since the last contact of each of a majority.
fn ripe(state: &State, evidence: &Evidence, now: Moment, cluster: &ClusterId) -> Option<Moment> {
    let listing = state.applications.values().filter(|known| known.document.clusters.contains(cluster));
    let bound = listing.map(|known| Window::new(&known.terms).fail_over_after()).max().unwrap_or(Span::ZERO);
    let mut ripening: Vec<(Moment, CoordinatorId)> = state
        .votes
        .get(cluster)?
        .iter()
        .filter_map(|(observer, ballot)| {
            let vote = ballot.standing?;
            let applied = evidence.votes_applied.get(&vote.index).copied().unwrap_or(now);
            Some((applied.before(vote.silence).after(bound), *observer))
        })
        .collect();
    ripening.sort_unstable();
    let mut observers = std::collections::BTreeSet::new();
    ripening
        .into_iter()
        .find(|(_, observer)| {
            observers.insert(*observer);
            is_majority(&state.voters, &observers)
        })
        .map(|(ripe, _)| ripe)
}
