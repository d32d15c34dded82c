//! Which cluster takes over, and why not the others; and what would be lost.

use std::collections::BTreeMap;

use crate::application::{Action, Beyond, Manner, ResourceKind};
use crate::entry::{Finding, Gap};
use crate::evidence::{Health, Role, Sighting};
use crate::id::{ClusterId, ResourceId};
use crate::terms::Window;
use crate::time::{Span, Timestamp};
use crate::verdict::{Scene, is_lost};

/// A cluster that could take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub cluster: ClusterId,
    /// What may be lost, by database.
    pub gaps: BTreeMap<ResourceId, Gap>,
    /// The largest expected loss in time; none if it cannot be told.
    pub loss: Option<Span>,
}

impl Candidate {
    /// The expected loss, one sentence for each database.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        self.gaps.iter().map(|(resource, gap)| sentence(resource, gap)).collect()
    }
}

fn sentence(resource: &ResourceId, gap: &Gap) -> String {
    let time = gap.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
    format!("{resource}: {time} ({})", gap.text)
}

/// Why a cluster cannot take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Which.
    pub cluster: ClusterId,
    /// Stable code.
    pub code: &'static str,
    /// For humans.
    pub detail: String,
}

/// What may be lost by a failover to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// What the document lets go.
    ByDocument,
    /// Anything, but a standby must be there that has something.
    AnyLoss,
    /// Anything: where the runbook restores a database before it promotes it, nothing needs to be there.
    FromBackup,
}

/// All clusters beside the primary, in order of preference. Each must have a standby: what nobody has ordered begins with
/// no backup.
#[must_use]
pub fn rank(scene: &Scene<'_>) -> Vec<Result<Candidate, Unfit>> {
    let allowed = |cluster| match scene.known.order.as_ref().is_some_and(|order| order.allows_loss_in(cluster)) {
        true => Allowed::AnyLoss,
        false => Allowed::ByDocument,
    };
    scene.others().map(|cluster| judge(scene, cluster, allowed(cluster))).collect()
}

/// One cluster for an operator's failover, with or without the word that any loss is allowed. With it, a database that the
/// runbook restores before it promotes it may be down, empty or another one.
///
/// # Errors
/// Why it cannot take over.
pub fn judge_for(scene: &Scene<'_>, cluster: &ClusterId, any_loss: bool) -> Result<Candidate, Unfit> {
    if cluster == scene.primary {
        return Err(Unfit { cluster: cluster.clone(), code: "same-cluster", detail: "it is the primary".to_owned() });
    }
    if !scene.known.document.clusters.contains(cluster) {
        return Err(Unfit {
            cluster: cluster.clone(),
            code: "unlisted-cluster",
            detail: "it is not listed".to_owned(),
        });
    }
    judge(scene, cluster, if any_loss { Allowed::FromBackup } else { Allowed::ByDocument })
}

fn judge(scene: &Scene<'_>, cluster: &ClusterId, allowed: Allowed) -> Result<Candidate, Unfit> {
    let unfit = |code, detail: String| Err(Unfit { cluster: cluster.clone(), code, detail });
    let under_way = scene.known.run.and_then(|run| scene.state.runs.get(&run));
    if let Some(run) = under_way.filter(|run| run.gives_way() && run.from == *cluster) {
        return unfit("rejoining", format!("run {} makes its databases follow the primary", run.id));
    }
    if let Some(reason) = scene.known.excluded.get(cluster) {
        return unfit("quarantined", reason.clone());
    }
    let Some(agent) = scene.state.agents.get(cluster) else {
        return unfit("no-agent", "no agent has registered".to_owned());
    };
    if !Window::new(&scene.known.terms).lists(cluster, &agent.installation) {
        return unfit("unconfirmed", "the primary's agent has not confirmed terms that list it".to_owned());
    }
    if is_lost(scene.state, cluster) {
        return unfit("lost", "a majority of coordinators has lost its agent".to_owned());
    }
    let heard = scene.evidence.last_beat(cluster);
    if heard.is_none_or(|heard| scene.now.since(heard) > scene.interval().times(3)) {
        return unfit("not-heard", "its agent has not been heard within three heartbeats".to_owned());
    }
    let mut gaps = BTreeMap::new();
    let mut loss = Some(Span::ZERO);
    for resource in scene.known.document.guarded() {
        if let Some(run) = scene.known.stuck.get(cluster).and_then(|stuck| stuck.get(&resource)) {
            return unfit("stuck", format!("{resource} was left half-changed by run {run}"));
        }
        let Some(seen) = scene.evidence.sighting(cluster, scene.application, &resource) else {
            return unfit("not-probed", format!("{resource} has not been reported"));
        };
        if !seen.is_fresh(scene.now) {
            return unfit("stale", format!("the last report on {resource} is older than three probes"));
        }
        let (gap, expected) = match fitness(scene, &resource, seen) {
            Ok(position) => gap(scene, cluster, &resource, position),
            Err((_, why)) if allowed == Allowed::FromBackup && restores(scene, &resource) && is_no_use(scene, seen) => {
                (of_backup(scene, &resource, &why), None)
            }
            Err((code, why)) => return unfit(code, why),
        };
        loss = loss.zip(expected).map(|(so_far, one)| so_far.max(one));
        gaps.insert(resource, gap);
    }
    let candidate = Candidate { cluster: cluster.clone(), gaps, loss };
    let limit = scene.known.document.automation.max_data_loss;
    let within = candidate.loss.is_some_and(|loss| loss <= limit);
    let any_loss = match allowed {
        Allowed::ByDocument => false,
        Allowed::AnyLoss | Allowed::FromBackup => true,
    };
    if within || any_loss || scene.known.document.automation.beyond_max_data_loss == Beyond::Accept {
        return Ok(candidate);
    }
    let told = candidate.loss.map_or_else(|| "cannot be told".to_owned(), |loss| format!("would be {loss}"));
    unfit("beyond-max-data-loss", format!("the loss {told}, the limit is {limit}"))
}

/// Those databases of a cluster that could be promoted as they are, whatever else speaks against it.
pub(crate) fn at_hand(scene: &Scene<'_>, cluster: &ClusterId) -> BTreeMap<ResourceId, Gap> {
    let of = |resource: ResourceId| {
        let seen = scene.evidence.sighting(cluster, scene.application, &resource)?;
        let position = fitness(scene, &resource, seen).ok().filter(|_| seen.is_fresh(scene.now))?;
        let (gap, _) = gap(scene, cluster, &resource, position);
        Some((resource, gap))
    };
    scene.known.document.guarded().into_iter().filter_map(of).collect()
}

/// The expected loss in a cluster that may not take over as it stands, one sentence for each database: whoever overrules what
/// speaks against it has to know the loss.
pub(crate) fn sentences_of_unfit(scene: &Scene<'_>, cluster: &ClusterId) -> Vec<String> {
    let of = |resource: ResourceId| {
        let Some(seen) = scene.evidence.sighting(cluster, scene.application, &resource) else {
            return format!("{resource}: unknown; it has not been reported from {cluster}");
        };
        if !seen.is_fresh(scene.now) {
            return format!("{resource}: unknown; the last report from {cluster} is older than three probes");
        }
        match fitness(scene, &resource, seen) {
            Ok(position) => sentence(&resource, &gap(scene, cluster, &resource, position).0),
            Err((_, why)) => format!("{resource}: unknown; in {cluster} {why}"),
        }
    };
    scene.known.document.guarded().into_iter().map(of).collect()
}

/// What a database has that could be promoted as it is: its position; else why not, by a stable code and for humans.
fn fitness(scene: &Scene<'_>, resource: &ResourceId, seen: &Sighting) -> Result<u64, (&'static str, String)> {
    let unfit = |code, detail: String| Err((code, detail));
    if seen.health != Health::Healthy {
        return unfit("unhealthy", format!("{resource}: {}", seen.detail));
    }
    if seen.role != Role::Standby {
        return unfit("no-standby", format!("{resource} is no standby"));
    }
    if let Some(why) = parted(scene, resource, seen) {
        return unfit("another-history", why);
    }
    let nothing = || unfit("no-position", format!("{resource} answers probes and reports no position"));
    seen.position.map_or_else(nothing, Ok)
}

/// It is certain that this is no standby: one failed probe tells nothing, and a backup has less than any standby.
fn is_no_use(scene: &Scene<'_>, seen: &Sighting) -> bool {
    let certain = match seen.health {
        Health::Healthy => true,
        Health::Failed => seen.failures >= scene.known.document.automation.probe_failures,
        Health::Unknown => false,
    };
    certain && !seen.writable
}

/// Whether a failover's runbook brings this database back from a backup before it promotes it.
fn restores(scene: &Scene<'_>, resource: &ResourceId) -> bool {
    let lines = scene.known.document.runbooks.get("failover").map(|runbook| runbook.lines.as_slice());
    let mut lines = lines.unwrap_or_default().iter().filter(|line| line.when != Some(Manner::Graceful));
    let first = lines
        .find(|line| matches!(line.action, Action::Restore | Action::Promote) && line.resources.contains(resource));
    first.is_some_and(|line| line.action == Action::Restore)
}

/// Nothing is there but a backup: how much it lacks, nobody knows.
fn of_backup(scene: &Scene<'_>, resource: &ResourceId, why: &str) -> Gap {
    let last = scene.evidence.last_position(scene.primary, scene.application, resource);
    Gap {
        primary: last.map(|last| last.position),
        primary_age: last.map(|last| scene.now.since(last.at)),
        candidate: None,
        lag: None,
        text: format!("restored from a backup: {why}"),
    }
}

/// A standby whose history is not the primary's: another database, or one that stayed on a timeline which the primary has
/// left. What it has beyond the fork, nobody else has; what it lacks, it will not get.
fn parted(scene: &Scene<'_>, resource: &ResourceId, seen: &Sighting) -> Option<String> {
    let postgres = scene.known.document.resources.get(resource)?.kind == ResourceKind::Postgres;
    if !postgres {
        return None;
    }
    let primary = scene.evidence.sighting(scene.primary, scene.application, resource);
    let adopted = scene.known.databases.get(scene.primary).and_then(|databases| databases.get(resource));
    let known = primary.map(|seen| &seen.system_id).filter(|id| !id.0.is_empty());
    let system = known.or(adopted.map(|database| &database.system_id).filter(|id| !id.0.is_empty()));
    if let Some(system) = system.filter(|id| !seen.system_id.0.is_empty() && **id != seen.system_id) {
        return Some(format!("{resource} is another database: {} instead of {system}", seen.system_id));
    }
    let led = primary.filter(|seen| seen.role == Role::Primary).map_or(0, |seen| seen.timeline);
    let led = led.max(adopted.map_or(0, |database| database.timeline));
    (seen.timeline > 0 && seen.timeline < led).then(|| {
        format!(
            "{resource} stayed on timeline {}, the primary's is {led}; have it follow: `regentctl rejoin`",
            seen.timeline
        )
    })
}

/// Why what a standby has cannot be measured by what the primary had: it follows another side, or is on a history that
/// the primary's does not go on from. It may lack anything since then.
fn strays(scene: &Scene<'_>, resource: &ResourceId, standby: Option<&Sighting>) -> Option<String> {
    let (primary, standby) = (scene.primary, standby?);
    if let Some(upstream) = standby.upstream.as_ref().filter(|upstream| !upstream.is_of(primary)) {
        let followed = upstream.cluster.as_ref().map_or("?", ClusterId::as_str);
        return Some(format!("it follows {followed}, not {primary}: `regentctl rejoin`"));
    }
    // PostgreSQL's histories are told by their timelines.
    if scene.known.document.resources.get(resource)?.kind != ResourceKind::Redis || standby.system_id.0.is_empty() {
        return None;
    }
    let led = scene.evidence.sighting(primary, scene.application, resource);
    let led = led.filter(|seen| seen.role == Role::Primary && !seen.system_id.0.is_empty())?;
    let before = led.previous.as_ref().filter(|(id, _)| *id == standby.system_id);
    let same = led.system_id == standby.system_id
        || before.is_some_and(|(_, until)| standby.position.is_none_or(|position| position <= *until));
    (!same).then(|| format!("its history is not that of {primary}: `regentctl rejoin`"))
}

/// The distance between what the primary last reported and what the candidate has, and the loss in time.
fn gap(scene: &Scene<'_>, cluster: &ClusterId, resource: &ResourceId, position: u64) -> (Gap, Option<Span>) {
    let standby = scene.evidence.sighting(cluster, scene.application, resource);
    // A database that failed reports no position: how far it was before counts, by its date.
    let last = scene.evidence.last_position(scene.primary, scene.application, resource);
    let known = last.map(|last| last.position);
    let upstream = standby.and_then(|seen| seen.upstream.as_ref());
    let heard = upstream.and_then(|upstream| upstream.last_heard);
    let primary = scene.evidence.sighting(scene.primary, scene.application, resource);
    let strays = strays(scene, resource, standby);
    let lag = if strays.is_some() {
        // Its position is one in another history: it tells nothing.
        None
    } else if known.is_some_and(|known| position >= known) {
        // One that only does not answer may go on acknowledging: what came after the last that is known of it counts.
        let may_write = primary.is_some_and(|seen| seen.is_fresh(scene.now) && seen.health == Health::Unknown);
        let since = last.map(|last| last.at).max(heard).filter(|_| may_write);
        Some(since.map_or(Span::ZERO, |since| scene.now.since(since)))
    } else {
        // Behind: by its own reckoning, or since it last heard from the primary.
        let since_heard = last.zip(heard).map(|(last, heard)| last.at.since(heard));
        upstream.and_then(|upstream| upstream.lag).max(since_heard)
    };
    let text = |text: Option<&String>| text.map_or("?", String::as_str).to_owned();
    let gap = Gap {
        primary: known,
        primary_age: last.map(|last| scene.now.since(last.at)),
        candidate: Some(position),
        lag,
        text: strays.unwrap_or_else(|| {
            format!("{} → {}", text(last.map(|last| &last.text)), text(standby.map(|seen| &seen.position_text)))
        }),
    };
    (gap, lag)
}

/// What goes with the decision into the log.
#[must_use]
pub fn finding(scene: &Scene<'_>, candidate: &Candidate, reasons: Vec<String>, wall: Timestamp) -> Finding {
    let last_contact = scene.evidence.last_beat(scene.primary).map(|heard| {
        let ago = i64::try_from(scene.now.since(heard).millis()).unwrap_or(i64::MAX);
        Timestamp(wall.0.saturating_sub(ago))
    });
    Finding { reasons, last_contact, gaps: candidate.gaps.clone() }
}
