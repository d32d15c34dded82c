//! Whether an application could be moved, or would be well served after a failover, looked at all the time: facts of both
//! sides in, notes out. It changes nothing and starts nothing.
//!
//! A blocker is what refuses a switchover now; before a failover, which nobody chose, the same is a warning that it would
//! go badly. Warnings are what will hurt on the day it matters. Each code has a page.

use crate::application::Application;
use crate::decide::Viewpoint;
use crate::evidence::{Contact, Evidence};
use crate::facts::Facts;
use crate::id::{ApplicationId, ClusterId, ResourceId};
use crate::preflight::{Note, Severity};
use crate::state::{ApplicationState, State};
use crate::time::Timestamp;
use crate::verdict::Scene;

mod age;
mod database;
mod lag;
mod machines;
mod moving;
mod rehearsed;
mod service;
mod sides;
mod wal;

pub use self::age::age;

/// Told before a failover though it is only worth knowing.
const ASYNCHRONOUS: &str = "asynchronous";
/// The same.
const DRILL_OLD: &str = "drill-old";

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
    let moves = looking.of_moving();
    looking.of_everything_seen();
    if let Some(moves) = moves {
        looking.weigh_differences(&moves);
    }
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

/// What will hurt in a planned move to this cluster, as warnings: all that is seen of either side, and what differs in any
/// other cluster, which will follow the new primary. What refuses the move is not told here.
pub(crate) fn before_move(scene: &Scene<'_>, to: Option<&ClusterId>, wall: Timestamp) -> Vec<Note> {
    let mut looking = Looking::at(scene, wall);
    looking.of_lag(scene);
    looking.of_everything_seen();
    let differs = between_sides(scene);
    let concerned = |place: &Place| match &place.cluster {
        None => true,
        Some(cluster) => cluster == scene.primary || Some(cluster) == to,
    };
    let hurts = looking.notes.into_iter().filter(|(_, note)| note.severity != Severity::Info);
    let hurts = hurts.filter(|told| concerned(&told.0) || differs.contains(told));
    hurts.map(|(place, note)| place.before(Note { severity: Severity::Warning, ..note })).collect()
}

/// What would hurt after a failover, of any cluster. Nothing of it holds one: a failover is nobody's choice, and what
/// blocks a switchover is a warning here. Why a switchover would not start is not among it. Of what is only worth knowing,
/// it says what may be lost, and that nobody has ever tried.
pub(crate) fn before_failover(scene: &Scene<'_>, wall: Timestamp) -> Vec<Note> {
    let mut looking = Looking::at(scene, wall);
    looking.of_lag(scene);
    looking.of_everything_seen();
    // Whether services and names are well on the side that is lost says nothing of the day after.
    let left = |place: &Place| {
        let spec = place.resource.as_ref().and_then(|id| scene.known.document.resources.get(id));
        place.cluster.as_ref() == Some(scene.primary) && spec.is_some_and(|spec| !spec.kind.is_guarded())
    };
    let hurts =
        looking.notes.into_iter().filter(|(place, _)| !left(place)).filter(|(_, note)| {
            note.severity != Severity::Info || [ASYNCHRONOUS, DRILL_OLD].contains(&note.code.as_str())
        });
    // A warning is the worst that it can be.
    let at_worst = |note: Note| Note { severity: note.severity.max(Severity::Warning), ..note };
    hurts.map(|(place, note)| place.before(at_worst(note))).collect()
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
    /// A cluster as a whole.
    fn of(cluster: &ClusterId) -> Self {
        Self { cluster: Some(cluster.clone()), resource: None }
    }

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

    /// None before there is a primary.
    fn scene(&self) -> Option<Scene<'a>> {
        Scene::new(self.state, self.evidence, self.view.now, self.view.me, self.application)
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
        self.of_coordinators();
        for cluster in &self.document().clusters {
            for resource in self.document().guarded() {
                self.of_resource(cluster, &resource);
            }
            self.of_services(cluster);
        }
        for resource in self.document().guarded() {
            self.of_sides(&resource);
        }
        self.notes.extend(crate::readiness_found::of_all(self.known, self.evidence, self.application, self.view.now));
        self.of_rehearsals();
    }
}

fn place(cluster: &ClusterId, resource: &ResourceId) -> Place {
    Place { cluster: Some(cluster.clone()), resource: Some(resource.clone()) }
}
