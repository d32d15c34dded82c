//! What an agent has stored of each application, from and to the wire: what a restored group goes by.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::application::OnCoordinatorLoss;
use regent_core::id::{ApplicationId, ClusterId, CoordinatorId, Epoch, InstallationId, ResourceId};
use regent_core::lease::TimeBound;
use regent_core::restore::AgentReport;
use regent_core::state::State;
use regent_core::terms::{Listed, Terms};
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;

use super::convert;
use super::text::TEXT_LIMIT;

/// Applications of one agent that are taken note of; no agent has so many.
const LIMIT: usize = 1024;

/// From the wire. What cannot be understood makes the whole unusable: half a report would be taken for a whole one.
#[must_use]
pub(crate) fn reports(
    stored: &[wire::StoredTerms],
    installation: &str,
) -> Option<BTreeMap<ApplicationId, AgentReport>> {
    if stored.len() > LIMIT || installation.len() > TEXT_LIMIT {
        return None;
    }
    let report = |one: &wire::StoredTerms| {
        let terms = match &one.full {
            Some(update) => Some(terms(update)?),
            None if one.epoch > 0 => return None,
            None => None,
        };
        let report = AgentReport {
            installation: InstallationId(installation.to_owned()),
            seen: Epoch(one.seen.max(one.epoch)),
            token: one.token.as_ref().map(convert::token_from).unwrap_or_default(),
            terms,
        };
        Some((ApplicationId::new(&one.application).ok()?, report))
    };
    stored.iter().map(report).collect()
}

/// To the wire, for the leader.
#[must_use]
pub(crate) fn to_wire(state: &State, reports: &BTreeMap<ApplicationId, AgentReport>) -> Vec<wire::StoredTerms> {
    let one = |(application, report): (&ApplicationId, &AgentReport)| wire::StoredTerms {
        application: application.to_string(),
        epoch: report.terms.as_ref().map_or(0, |terms| terms.epoch.0),
        terms: report.terms.as_ref().map(|terms| convert::token(terms.number)),
        primary: false,
        seen: report.seen.0,
        token: Some(convert::token(report.token)),
        full: report.terms.as_ref().map(|terms| convert::terms(state, application, terms)),
    };
    reports.iter().map(one).collect()
}

fn terms(update: &wire::TermsUpdate) -> Option<Terms> {
    let cluster = |listed: &wire::ListedCluster| {
        if listed.installation.len() > TEXT_LIMIT {
            return None;
        }
        let installation = (!listed.installation.is_empty()).then(|| InstallationId(listed.installation.clone()));
        Some((ClusterId::new(&listed.cluster).ok()?, Listed { installation, excluded: listed.excluded }))
    };
    let voters = |set: &wire::VoterSet| set.coordinators.iter().copied().map(CoordinatorId).collect();
    Some(Terms {
        number: update.number.as_ref().map(convert::token_from)?,
        epoch: Epoch(update.epoch),
        primary: ClusterId::new(&update.primary).ok()?,
        bound: TimeBound {
            fail_over_after: Span::from_millis(update.fail_over_after_ms),
            fence_budget: Span::from_millis(update.fence_budget_ms),
        },
        clusters: update.clusters.iter().map(cluster).collect::<Option<_>>()?,
        guarded: update.guarded.iter().map(|name| ResourceId::new(name).ok()).collect::<Option<BTreeSet<_>>>()?,
        voters: update.voters.iter().map(voters).collect(),
        on_coordinator_loss: if update.failsafe { OnCoordinatorLoss::Failsafe } else { OnCoordinatorLoss::Fence },
        paused: update.paused,
    })
}

#[cfg(test)]
mod tests {
    use regent_core::id::{LogIndex, Token};

    use super::*;

    #[test]
    fn what_went_to_the_wire_comes_back_and_half_a_report_is_none() {
        let eu = ClusterId::new("eu").unwrap();
        let listed = Listed { installation: Some(InstallationId("i".to_owned())), excluded: true };
        let terms = Terms {
            number: Token { restoration: 2, index: LogIndex(7) },
            epoch: Epoch(3),
            primary: eu.clone(),
            bound: TimeBound::new(Span::from_secs(10)),
            clusters: BTreeMap::from([(eu, listed)]),
            guarded: BTreeSet::from([ResourceId::new("db").unwrap()]),
            voters: vec![BTreeSet::from([CoordinatorId(1)])],
            on_coordinator_loss: OnCoordinatorLoss::Failsafe,
            paused: false,
        };
        let report = AgentReport {
            installation: InstallationId("i".to_owned()),
            seen: Epoch(4),
            token: Token { restoration: 2, index: LogIndex(9) },
            terms: Some(terms),
        };
        let all = BTreeMap::from([(ApplicationId::new("shop").unwrap(), report)]);
        let mut sent = to_wire(&State::default(), &all);
        assert_eq!(reports(&sent, "i"), Some(all));
        sent[0].full = None;
        assert_eq!(reports(&sent, "i"), None, "it has terms and does not say which");
    }
}
