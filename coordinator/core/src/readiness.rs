//! Whether an application could be moved, or would be well served after a failover, looked at all the time: facts of both
//! sides in, notes out. It changes nothing and starts nothing.
//!
//! A blocker is what refuses a switchover now; before a failover, which nobody chose, the same is a warning that it would
//! go badly. Warnings are what will hurt on the day it matters. Each code has a page.

use std::collections::BTreeSet;

use crate::application::{Action, Application};
use crate::decide::Viewpoint;
use crate::evidence::{Contact, Evidence};
use crate::facts::{BackupFacts, Facts, PostgresFacts, RedisFacts, SlotFacts};
use crate::id::{ApplicationId, ClusterId, ResourceId};
use crate::plan::{DRILL, SWITCHOVER};
use crate::preflight::{Note, Severity};
use crate::state::{ApplicationState, State};
use crate::switchover::{self, NO_TARGET, Purpose};
use crate::time::{Span, Timestamp};
use crate::verdict::Scene;

/// A drill or a restore that is older says little: a quarter, and a week.
const STALE_REHEARSAL: Span = Span::from_secs(97 * 24 * 3600);
/// A certificate that expires sooner is told of.
const CERTIFICATE_NEAR: Span = Span::from_secs(14 * 24 * 3600);
/// Clocks that differ by more make reports hard to read, and certificates fail.
const CLOCKS_APART: Span = Span::from_secs(2);
/// The one difference between the sides that blocks; each place tells of its own.
const VERSIONS_DIFFER: &str = "versions-differ";
/// A slot that nobody reads may hold back so much WAL unnoticed.
const SLOT_HOLDS: u64 = 1 << 30;

/// Where a note belongs; empty where it is about the application as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Place {
    /// In which cluster.
    pub cluster: Option<ClusterId>,
    /// About which resource.
    pub resource: Option<ResourceId>,
}

/// Everything to know about one application now, the worst first; none if it does not exist.
#[must_use]
pub fn notes(
    state: &State,
    evidence: &Evidence,
    view: Viewpoint,
    application: &ApplicationId,
) -> Option<Vec<(Place, Note)>> {
    let known = state.applications.get(application)?;
    let mut looking = Looking { state, evidence, view, application, known, notes: Vec::new() };
    looking.of_moving();
    looking.of_everything_seen();
    let mut notes = looking.notes;
    notes.sort_by(|one, other| (one.1.severity, &one.0, &one.1.code).cmp(&(other.1.severity, &other.0, &other.1.code)));
    Some(notes)
}

/// What differs between the sides, for whoever is about to move an application: what blocks is among it.
pub(crate) fn between_sides(scene: &Scene<'_>) -> Vec<(Place, Note)> {
    // Nothing of it depends on the wall clock.
    let mut looking = Looking::at(scene, Timestamp::default());
    for resource in scene.known.document.guarded() {
        looking.of_sides(&resource);
    }
    looking.notes
}

/// What would hurt after a failover, of any cluster. Nothing of it holds one: a failover is nobody's choice, and what
/// blocks a switchover is a warning here. Why a switchover would not start is not among it.
pub(crate) fn before_failover(scene: &Scene<'_>, wall: Timestamp) -> Vec<Note> {
    let mut looking = Looking::at(scene, wall);
    looking.of_lag(scene);
    looking.of_everything_seen();
    let hurts = looking.notes.into_iter().filter(|(_, note)| note.severity != Severity::Info);
    hurts.map(|(place, note)| place.before(Note { severity: Severity::Warning, ..note })).collect()
}

struct Looking<'a> {
    state: &'a State,
    evidence: &'a Evidence,
    view: Viewpoint,
    application: &'a ApplicationId,
    known: &'a ApplicationState,
    notes: Vec<(Place, Note)>,
}

impl Place {
    /// The note with its place before it.
    pub(crate) fn before(&self, note: Note) -> Note {
        let detail = if *self == Self::default() { note.detail } else { format!("{self}: {}", note.detail) };
        Note { detail, ..note }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.resource, &self.cluster) {
            (Some(resource), Some(cluster)) => write!(f, "{resource} in {cluster}"),
            (Some(resource), None) => resource.fmt(f),
            (None, Some(cluster)) => cluster.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

impl<'a> Looking<'a> {
    fn at(scene: &Scene<'a>, wall: Timestamp) -> Self {
        let view = Viewpoint { me: scene.me, now: scene.now, wall };
        let (state, evidence, application, known) = (scene.state, scene.evidence, scene.application, scene.known);
        Self { state, evidence, view, application, known, notes: Vec::new() }
    }

    fn add(&mut self, place: Place, severity: Severity, code: &str, detail: impl Into<String>) {
        self.notes.push((place, Note { severity, code: code.to_owned(), detail: detail.into() }));
    }

    fn document(&self) -> &'a Application {
        &self.known.document
    }

    fn contact(&self, cluster: &ClusterId) -> Option<&'a Contact> {
        self.evidence.contacts.get(cluster)
    }

    /// Fresh ones only: what is old is unknown.
    fn facts(&self, cluster: &ClusterId, resource: &ResourceId) -> Option<&'a Facts> {
        let facts = self.contact(cluster)?.facts.get(self.application)?.get(resource)?;
        Some(facts).filter(|facts| facts.is_fresh(self.view.now))
    }

    /// All but what would refuse a switchover.
    fn of_everything_seen(&mut self) {
        self.of_nodes();
        for cluster in &self.document().clusters {
            for resource in self.document().guarded() {
                self.of_resource(cluster, &resource);
            }
        }
        for resource in self.document().guarded() {
            self.of_sides(&resource);
        }
        self.notes.extend(crate::readiness_found::of_all(self.known, self.evidence, self.application, self.view.now));
        self.of_rehearsals();
    }

    /// How far the standbys are behind.
    fn of_lag(&mut self, scene: &Scene<'_>) {
        let limit = self.document().automation.max_data_loss;
        for cluster in scene.others() {
            for resource in self.document().guarded() {
                let seen = self.evidence.sighting(cluster, self.application, &resource);
                let lag = seen.and_then(|seen| seen.upstream.as_ref()).and_then(|upstream| upstream.lag);
                if let Some(lag) = lag.filter(|lag| *lag > limit.divided(2)) {
                    let detail = format!("{resource} is {lag} behind; maxDataLoss is {limit}");
                    self.add(place(cluster, &resource), Severity::Warning, "lag-near-limit", detail);
                }
            }
        }
    }

    /// What would refuse a switchover, and how far the standbys are behind.
    fn of_moving(&mut self) {
        let (state, evidence, view) = (self.state, self.evidence, self.view);
        let Some(scene) = Scene::new(state, evidence, view.now, view.me, self.application) else {
            return self.add(Place::default(), Severity::Blocker, "not-adopted", "no primary is known yet");
        };
        self.of_lag(&scene);
        if !self.document().runbooks.contains_key(SWITCHOVER) {
            let detail = "the document has no runbook for a switchover: it can only fail over";
            return self.add(Place::default(), Severity::Info, "no-switchover-runbook", detail);
        }
        let (_, refusals) = switchover::look(&scene, Purpose::Switchover, None);
        let of_all: BTreeSet<String> = refusals.iter().map(|rule| rule.code.clone()).collect();
        // Another one that could not take over is no obstacle as long as there is one that can.
        let severity = if of_all.contains(NO_TARGET) { Severity::Blocker } else { Severity::Warning };
        let mut told = BTreeSet::from([VERSIONS_DIFFER.to_owned()]);
        for cluster in scene.others() {
            let (_, refusals) = switchover::look(&scene, Purpose::Switchover, Some(cluster));
            for rule in refusals.into_iter().filter(|rule| !of_all.contains(&rule.code) && rule.code != VERSIONS_DIFFER)
            {
                let here = Place { cluster: Some(cluster.clone()), resource: None };
                self.add(here, severity, &rule.code, rule.detail);
                // Why each of them cannot says more than that none can.
                told.insert(NO_TARGET.to_owned());
            }
        }
        for rule in refusals.into_iter().filter(|rule| !told.contains(&rule.code)) {
            self.add(Place::default(), Severity::Blocker, &rule.code, rule.detail);
        }
    }

    fn of_nodes(&mut self) {
        for cluster in &self.document().clusters {
            let Some(node) = self.contact(cluster).and_then(|contact| contact.node) else { continue };
            let here = Place { cluster: Some(cluster.clone()), resource: None };
            if node.ahead_ms.unsigned_abs() > CLOCKS_APART.millis() {
                let apart = Span::from_millis(node.ahead_ms.unsigned_abs());
                let way = if node.ahead_ms > 0 { "ahead of" } else { "behind" };
                let detail = format!("the clock of its agent is {apart} {way} that of coordinator {}", self.view.me);
                self.add(here.clone(), Severity::Warning, "clocks-apart", detail);
            }
            let Some(until) = node.certificate_until else { continue };
            let left = until.since(self.view.wall);
            if until.0 <= self.view.wall.0 {
                let detail = "the certificate of its agent has expired: it cannot connect anew";
                self.add(here, Severity::Warning, "certificate-expires", detail);
            } else if left < CERTIFICATE_NEAR {
                let detail = format!("the certificate of its agent expires in {left}");
                self.add(here, Severity::Warning, "certificate-expires", detail);
            }
        }
    }

    fn of_resource(&mut self, cluster: &ClusterId, resource: &ResourceId) {
        let here = place(cluster, resource);
        let Some(facts) = self.facts(cluster, resource) else {
            let detail = "its agent has told nothing of its settings within three minutes";
            return self.add(here, Severity::Info, "facts-missing", detail);
        };
        for (other, answer) in &facts.reaches {
            if let Err(why) = answer {
                let detail = format!("{other} does not answer it as a rejoin would need: {why}");
                self.add(here.clone(), Severity::Warning, "rejoin-unreachable", detail);
            }
        }
        if let Some(postgres) = &facts.postgres {
            self.of_postgres(&here, postgres);
        }
        if let Some(backup) = &facts.backup {
            self.of_backup(&here, backup);
        }
    }

    fn of_postgres(&mut self, here: &Place, facts: &PostgresFacts) {
        if facts.wal_level == "minimal" {
            let detail = "wal_level is minimal: no standby can follow it";
            self.add(here.clone(), Severity::Warning, "wal-level", detail);
        }
        if facts.max_wal_senders <= facts.wal_senders.saturating_add(1) {
            let detail = format!(
                "max_wal_senders is {}, and {} stream: a further standby or a copy finds no room",
                facts.max_wal_senders, facts.wal_senders
            );
            self.add(here.clone(), Severity::Warning, "wal-senders", detail);
        }
        if facts.wal_keep_bytes == 0 && facts.slots.is_empty() {
            let detail =
                "wal_keep_size is 0 and there is no slot: a standby that was away for a while may need a fresh copy";
            self.add(here.clone(), Severity::Warning, "wal-not-kept", detail);
        }
        if !facts.rewindable {
            let detail =
                "neither wal_log_hints nor checksums are on: after a failover it can only come back by a fresh copy";
            self.add(here.clone(), Severity::Warning, "not-rewindable", detail);
        }
        if !facts.hot_standby {
            let detail = "hot_standby is off: as a standby it answers nobody, so it could not be promoted";
            self.add(here.clone(), Severity::Warning, "hot-standby-off", detail);
        }
        for slot in &facts.slots {
            self.of_slot(here, slot);
        }
        let primary = here.cluster.is_some() && here.cluster == self.known.primary;
        if primary && !facts.synchronous {
            let detail = "replication is asynchronous: in a failover the last writes may be lost";
            self.add(here.clone(), Severity::Info, "asynchronous", detail);
        }
    }

    fn of_slot(&mut self, here: &Place, slot: &SlotFacts) {
        let name = &slot.name;
        if slot.lost {
            let detail =
                format!("the WAL that the slot {name} needs is gone: whoever reads from it needs a fresh copy");
            self.add(here.clone(), Severity::Warning, "slot-lost", detail);
        } else if !slot.active
            && let Some(held) = slot.retained_bytes.filter(|held| *held >= SLOT_HOLDS)
        {
            let detail = format!("nobody reads from the slot {name}, and it holds back {} MiB of WAL", held >> 20);
            self.add(here.clone(), Severity::Warning, "slot-idle", detail);
        }
    }

    fn of_backup(&mut self, here: &Place, facts: &BackupFacts) {
        if !facts.problem.is_empty() {
            self.add(here.clone(), Severity::Warning, "backup-unreadable", facts.problem.clone());
            return;
        }
        let Some(newest) = &facts.newest else {
            self.add(here.clone(), Severity::Warning, "backup-missing", "there is no backup");
            return;
        };
        if newest.age > facts.max_age {
            let detail =
                format!("the newest backup, {}, is {} old; maxAge is {}", newest.name, newest.age, facts.max_age);
            self.add(here.clone(), Severity::Warning, "backup-old", detail);
        }
        if let Some(Err(why)) = &newest.whole {
            let detail = format!("the newest backup, {}, is not whole: {why}", newest.name);
            self.add(here.clone(), Severity::Warning, "backup-damaged", detail);
        }
        if let Some(median) = facts.median_bytes
            && (newest.bytes < median / 2 || newest.bytes / 2 > median)
        {
            let detail = format!(
                "the newest backup, {}, has {} KiB; those before had {} KiB at the median",
                newest.name,
                newest.bytes >> 10,
                median >> 10
            );
            self.add(here.clone(), Severity::Warning, "backup-size", detail);
        }
        // Wherever it was restored: the backups are of the same database.
        let mut everywhere = self.known.rehearsed.restores.values();
        let last = |resource| everywhere.by_ref().filter_map(|of| of.get(resource).copied()).max();
        let restored = here.resource.as_ref().and_then(last);
        if self.rehearses(Action::Restore, here.resource.as_ref()) {
            self.of_age(here, restored, "restore-old", "a backup of it was last restored and looked at");
        }
    }

    fn rehearses(&self, action: Action, resource: Option<&ResourceId>) -> bool {
        let lines = self.document().runbooks.get(DRILL).map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
        let names = |line: &crate::application::Line| resource.is_none_or(|one| line.resources.contains(one));
        lines.iter().any(|line| line.action == action && names(line))
    }

    fn of_age(&mut self, here: &Place, at: Option<Timestamp>, code: &str, what: &str) {
        match at.map(|at| self.view.wall.since(at)) {
            None => self.add(here.clone(), Severity::Info, code, format!("{what} never")),
            Some(age) if age > STALE_REHEARSAL => {
                self.add(here.clone(), Severity::Warning, code, format!("{what} {age} ago"));
            }
            Some(_) => {}
        }
    }

    /// What differs between the primary's side and the others.
    fn of_sides(&mut self, resource: &ResourceId) {
        let Some(primary) = self.known.primary.clone() else { return };
        let Some(ours) = self.facts(&primary, resource) else { return };
        for cluster in self.document().clusters.iter().filter(|cluster| **cluster != primary) {
            let Some(theirs) = self.facts(cluster, resource) else { continue };
            let here = place(cluster, resource);
            if let (Some(ours), Some(theirs)) = (&ours.postgres, &theirs.postgres) {
                self.of_postgres_sides(&here, &primary, ours, theirs);
            }
            if let (Some(ours), Some(theirs)) = (&ours.redis, &theirs.redis) {
                self.of_redis_sides(&here, &primary, ours, theirs);
            }
        }
    }

    fn of_postgres_sides(&mut self, here: &Place, primary: &ClusterId, ours: &PostgresFacts, theirs: &PostgresFacts) {
        let (one, other) = (ours.version, theirs.version);
        if one / 10_000 != other / 10_000 {
            let detail = format!(
                "PostgreSQL {} here, {} in {primary}: one cannot follow the other",
                other / 10_000,
                one / 10_000
            );
            self.add(here.clone(), Severity::Blocker, VERSIONS_DIFFER, detail);
        } else if one != other {
            let detail = format!("PostgreSQL {other} here, {one} in {primary}");
            self.add(here.clone(), Severity::Warning, VERSIONS_DIFFER, detail);
        }
        self.of_settings(here, primary, &ours.settings, &theirs.settings);
    }

    fn of_redis_sides(&mut self, here: &Place, primary: &ClusterId, ours: &RedisFacts, theirs: &RedisFacts) {
        if ours.version != theirs.version {
            let detail = format!("Redis {} here, {} in {primary}", theirs.version, ours.version);
            self.add(here.clone(), Severity::Warning, VERSIONS_DIFFER, detail);
        }
        self.of_settings(here, primary, &ours.settings, &theirs.settings);
    }

    fn of_settings(
        &mut self,
        here: &Place,
        primary: &ClusterId,
        ours: &std::collections::BTreeMap<String, String>,
        theirs: &std::collections::BTreeMap<String, String>,
    ) {
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let shown =
            |value: Option<&String>| value.filter(|text| !text.is_empty()).map_or("nothing", String::as_str).to_owned();
        let differ = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
        let differ: Vec<String> = differ
            .map(|name| format!("{name} is {} here and {} there", shown(theirs.get(name)), shown(ours.get(name))))
            .collect();
        if !differ.is_empty() {
            let detail = format!("other settings than in {primary}: {}", differ.join("; "));
            self.add(here.clone(), Severity::Warning, "settings-differ", detail);
        }
    }

    fn of_rehearsals(&mut self) {
        if !self.document().runbooks.contains_key(DRILL) {
            let detail = "the document has no runbook for drills: nothing shows that a failover would work";
            return self.add(Place::default(), Severity::Info, "no-drill-runbook", detail);
        }
        let primary = self.known.primary.clone();
        for cluster in self.document().clusters.iter().filter(|cluster| Some(*cluster) != primary.as_ref()) {
            let at = self.known.rehearsed.drills.get(cluster).map(|drilled| drilled.at);
            let here = Place { cluster: Some(cluster.clone()), resource: None };
            self.of_age(&here, at, "drill-old", "a failover to it was last rehearsed");
        }
    }
}

fn place(cluster: &ClusterId, resource: &ResourceId) -> Place {
    Place { cluster: Some(cluster.clone()), resource: Some(resource.clone()) }
}
