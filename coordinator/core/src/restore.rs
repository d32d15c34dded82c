//! The group after its quorum was lost for good: a backup's state, and what must be heard before anything is granted.
//!
//! ```text
//!  backup ─► restored: no votes, no runs, no terms, no members ─► every application *recovering*
//!  agents of all its clusters report, or are attested to be off ─► Recovered: highest epoch + 1, same primary
//! ```
//!
//! A backup knows nothing of what was decided after it was made. So nothing of its decisions is issued again: what
//! counts is what the agents have stored. The primary of their highest terms stays primary, one epoch above everything
//! that anybody has seen, and every number from then on has a restoration above all that they have seen (safety.md,
//! "Identity and numbers").

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, FORMAT};
use crate::evidence::Evidence;
use crate::id::{ApplicationId, ClusterId, CoordinatorId, Epoch, InstallationId, LogIndex, Token};
use crate::lease;
use crate::planted::{self, Mistake};
use crate::run::RunStatus;
use crate::state::{ApplicationState, AuditRecord, State};
use crate::terms::Terms;
use crate::time::{Moment, Timestamp};
use crate::verdict::rule;
use crate::why::Rule;

/// The log of a restored group begins at the next multiple of this: its numbers are told from the old ones at sight.
const ROUND: u64 = 1_000_000;

/// Serials of the zone that the lost group may have gone on to.
const SERIALS: u32 = 1 << 16;

/// An application of a restored group, before its agents have been heard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recovering {
    /// Its epoch when the backup was made; 0 if it was not adopted, or not known.
    pub epoch: Epoch,
    /// Its primary then.
    pub primary: Option<ClusterId>,
    /// Clusters whose databases are off, by an operator's word: who, and why.
    pub attested: BTreeMap<ClusterId, String>,
    /// A human's decision where the reports leave two, or one that is off.
    pub chosen: Option<ClusterId>,
    /// The installations that were registered when the backup was made.
    #[serde(default)]
    pub installations: BTreeMap<ClusterId, InstallationId>,
}

/// What an agent has stored of an application, as it said itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Who says so.
    pub installation: InstallationId,
    /// Highest epoch seen in any form.
    pub seen: Epoch,
    /// Highest number seen: of terms, or a fencing token.
    pub token: Token,
    /// Newest terms; none if it has none.
    pub terms: Option<Terms>,
}

/// What the reports come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Who stays primary; none: nobody ever was, it is adopted.
    pub primary: Option<ClusterId>,
    /// Above everything that was seen.
    pub epoch: Epoch,
    /// Above everything that was seen.
    pub restoration: u64,
    /// Who is no candidate, and why.
    pub excluded: BTreeMap<ClusterId, String>,
}

/// Index of the entry that a restored log begins behind.
#[must_use]
pub const fn first_index(backup: LogIndex) -> LogIndex {
    LogIndex((backup.0 / ROUND + 1) * ROUND)
}

/// The state that a restored group begins with.
#[must_use]
pub fn restored(backup: &State, voters: BTreeSet<CoordinatorId>, at: Timestamp) -> State {
    let mut state = backup.clone();
    state.format = FORMAT;
    state.restoration += 1;
    state.applied = first_index(backup.applied);
    state.voters = vec![voters];
    state.coordinators.clear();
    state.removed.clear();
    state.changing = None;
    state.observers.clear();
    state.votes.clear();
    state.frozen = None;
    state.acknowledged.clear();
    state.dns_serial = state.dns_serial.wrapping_add(SERIALS);
    for run in state.runs.values_mut().filter(|run| !run.status.is_final()) {
        run.end(RunStatus::Superseded, at);
    }
    for known in state.applications.values_mut() {
        let (epoch, primary) = (known.epoch, known.primary.take());
        // What was restored and never recovered knows no more than the backup before it.
        let before = known.recovering.take().unwrap_or_default();
        let mut installations = before.installations;
        for (cluster, agent) in &backup.agents {
            installations.entry(cluster.clone()).or_insert_with(|| agent.installation.clone());
        }
        known.recovering = Some(Recovering {
            epoch: epoch.max(before.epoch),
            primary: primary.or(before.primary),
            installations,
            ..Recovering::default()
        });
        known.epoch = Epoch(0);
        known.terms.clear();
        known.confirmed = false;
        known.refusal = None;
        known.run = None;
        // Orders and ways back were given for an epoch that is over.
        known.order = None;
        known.window = None;
    }
    let detail = format!("from a backup at index {}, for the {}. time", backup.applied, state.restoration);
    state.audit.push_back(AuditRecord {
        index: state.applied,
        at,
        event: "group-restored".to_owned(),
        application: None,
        run: None,
        actor: "coordinator".to_owned(),
        detail,
    });
    state
}

/// Weighs the reports, whoever collected them.
///
/// # Errors
/// The rule that forbids to go on, and what would be right.
pub fn weigh(
    state: &State,
    known: &ApplicationState,
    recovering: &Recovering,
    reports: &BTreeMap<ClusterId, AgentReport>,
) -> Result<Findings, Rule> {
    let terms = || reports.values().filter_map(|report| report.terms.as_ref());
    let needed: BTreeSet<&ClusterId> =
        known.document.clusters.iter().chain(terms().flat_map(|terms| terms.clusters.keys())).collect();
    let highest = terms().map(|terms| terms.epoch).max();
    let newest = terms().filter(|terms| Some(terms.epoch) == highest).max_by_key(|terms| terms.number);
    for cluster in needed {
        if recovering.attested.contains_key(cluster) {
            continue;
        }
        let registered = state.agents.get(cluster).map(|agent| &agent.installation);
        let report = reports.get(cluster).filter(|report| registered == Some(&report.installation));
        if report.is_some_and(|report| !was_there_last(recovering, newest, cluster, report)) {
            return Err(rule(
                "recovering",
                format!(
                    "the agent of {cluster} is not the installation that was there last, so what that one held and promised is \
                     not known; bring its data directory back, or attest that its databases are off"
                ),
            ));
        }
        if report.is_none() {
            return Err(rule(
                "recovering",
                format!(
                    "the group was restored from a backup: the agent of {cluster} has not reported what it has stored; start \
                     it, or attest that its databases are off"
                ),
            ));
        }
    }
    let primaries: BTreeSet<&ClusterId> =
        terms().filter(|terms| Some(terms.epoch) == highest).map(|terms| &terms.primary).collect();
    let primary = choose(recovering, reports, &primaries)?;
    fits(known, newest, primary.as_ref())?;
    let seen = reports.values().map(|report| report.seen).chain(highest).max().unwrap_or_default();
    let seen = if planted::makes(Mistake::EpochOfBackup) { Epoch(0) } else { seen };
    let above = reports.values().map(|report| report.token.restoration + 1).max().unwrap_or_default();
    let mut excluded = match newest {
        Some(terms) => terms
            .clusters
            .iter()
            .filter(|(_, listed)| listed.excluded)
            .map(|(cluster, _)| (cluster.clone(), "quarantined before the group was restored".to_owned()))
            .collect(),
        None => known.excluded.clone(),
    };
    for cluster in primaries {
        excluded.entry(cluster.clone()).or_insert_with(|| "primary until the group was restored".to_owned());
    }
    for (cluster, word) in &recovering.attested {
        excluded.insert(cluster.clone(), format!("off when the group was restored: {word}"));
    }
    if let Some(primary) = &primary {
        excluded.remove(primary);
    }
    Ok(Findings {
        epoch: if primary.is_some() { seen.max(recovering.epoch).next() } else { Epoch(0) },
        primary,
        restoration: state.restoration.max(above),
        excluded,
    })
}

/// An agent says what it has stored: no terms, and its cluster leads nothing. Only the installation that was there last can
/// say so: by the newest terms that anybody reports, and, of one without terms, by the backup. Any other one has not
/// stored what would have to be reported, and the last one may still write by it.
fn was_there_last(recovering: &Recovering, newest: Option<&Terms>, cluster: &ClusterId, report: &AgentReport) -> bool {
    let is = |before: &InstallationId| *before == report.installation;
    let listed = newest.and_then(|terms| terms.clusters.get(cluster)).and_then(|listed| listed.installation.as_ref());
    let known = recovering.installations.get(cluster).filter(|_| report.terms.is_none());
    listed.is_none_or(is) && known.is_none_or(is)
}

fn choose(
    recovering: &Recovering,
    reports: &BTreeMap<ClusterId, AgentReport>,
    primaries: &BTreeSet<&ClusterId>,
) -> Result<Option<ClusterId>, Rule> {
    let off = |cluster: &ClusterId| recovering.attested.contains_key(cluster);
    let living: Vec<&ClusterId> = primaries.iter().copied().filter(|cluster| !off(cluster)).collect();
    if let Some(chosen) = &recovering.chosen {
        if off(chosen) || !reports.contains_key(chosen) {
            return Err(rule("recovering", format!("{chosen} was chosen as primary and its agent has not reported")));
        }
        let stands_aside = primaries.iter().all(|primary| off(primary)) || primaries.contains(chosen);
        if !stands_aside {
            return Err(rule(
                "recovering-primary",
                format!(
                    "{} is the primary by the highest terms that were reported; another one may be chosen only when its \
                     databases are attested to be off",
                    names(&living)
                ),
            ));
        }
        return Ok(Some(chosen.clone()));
    }
    match (&living[..], primaries.len()) {
        ([one], 1) => Ok(Some((*one).clone())),
        ([], 0) => match &recovering.primary {
            // Nobody has stored any terms: at most the backup's own word is left.
            Some(primary) if off(primary) => Err(primary_off(&[primary])),
            other => Ok(other.clone()),
        },
        ([], _) => Err(primary_off(&primaries.iter().copied().collect::<Vec<_>>())),
        (living, _) => Err(rule(
            "two-primaries-reported",
            format!(
                "the agents have stored {} as primaries of one epoch (by now {} may be on): look at both databases, then \
                 choose one",
                names(&primaries.iter().copied().collect::<Vec<_>>()),
                names(living)
            ),
        )),
    }
}

fn primary_off(clusters: &[&ClusterId]) -> Rule {
    rule(
        "recovering-primary",
        format!("the primary, {}, is attested to be off: a human chooses which cluster takes over", names(clusters)),
    )
}

fn names(clusters: &[&ClusterId]) -> String {
    clusters.iter().map(|cluster| cluster.as_str()).collect::<Vec<_>>().join(" and ")
}

/// The document of an old backup may know less than what is guarded by now: then it is handed in again first.
fn fits(known: &ApplicationState, newest: Option<&Terms>, primary: Option<&ClusterId>) -> Result<(), Rule> {
    let older = |what: String| {
        let detail = format!("the document of the backup does not know {what}; apply the document as it was last");
        Err(rule("document-older", detail))
    };
    if let Some(primary) = primary.filter(|primary| !known.document.clusters.contains(primary)) {
        return older(format!("the cluster {primary}, which is primary"));
    }
    let guarded = known.document.guarded();
    match newest.and_then(|terms| terms.guarded.iter().find(|resource| !guarded.contains(*resource))) {
        Some(resource) => older(format!("the database {resource}, which is guarded")),
        None => Ok(()),
    }
}

/// What the leader proposes once every agent has reported, or what is still missing.
///
/// # Errors
/// The rule that holds it.
pub fn recover(
    state: &State,
    evidence: &Evidence,
    now: Moment,
    application: &ApplicationId,
    known: &ApplicationState,
) -> Result<Entry, Rule> {
    let Some(recovering) = &known.recovering else {
        return Err(rule("recovering", "it has recovered".to_owned()));
    };
    let recent = lease::heartbeat(known.document.automation.bound.fail_over_after).times(3);
    let mut reports = BTreeMap::new();
    for cluster in state.agents.keys() {
        let contacts = evidence.contacts_of(cluster).filter(|contact| {
            contact.stored.is_some() && contact.last_beat.is_some_and(|heard| now.since(heard) <= recent)
        });
        let newest = contacts.max_by_key(|contact| contact.last_beat);
        let Some((contact, stored)) = newest.and_then(|contact| Some((contact, contact.stored.as_ref()?))) else {
            continue;
        };
        let report = stored.get(application).cloned().unwrap_or_else(|| AgentReport {
            installation: contact.installation.clone(),
            seen: Epoch(0),
            token: Token::default(),
            terms: None,
        });
        if known.document.clusters.contains(cluster) || report.terms.is_some() {
            reports.insert(cluster.clone(), report);
        }
    }
    weigh(state, known, recovering, &reports)?;
    Ok(Entry::Recovered { application: application.clone(), reports })
}
