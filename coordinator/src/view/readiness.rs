//! What speaks against moving an application, and what will hurt on the day it must be moved.

use regent_core::decide::Viewpoint;
use regent_core::id::ApplicationId;
use regent_core::readiness;
use serde::Serialize;

use super::Inputs;

/// One note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoteView {
    /// `blocker`, `warning` or `info`.
    pub severity: &'static str,
    /// Stable code; has a page.
    pub code: String,
    /// For humans.
    pub detail: String,
    /// In which cluster; none: about the application as a whole.
    pub cluster: Option<String>,
    /// About which resource; none: about the cluster as a whole.
    pub resource: Option<String>,
}

/// The notes on one application, the worst first.
pub(super) fn notes(inputs: &Inputs<'_>, id: &ApplicationId) -> Vec<NoteView> {
    let view = Viewpoint { me: inputs.me, now: inputs.now, wall: inputs.wall };
    let notes = readiness::notes(inputs.state, inputs.evidence, view, id).unwrap_or_default();
    let notes = notes.into_iter().map(|(place, note)| NoteView {
        severity: note.severity.as_str(),
        code: note.code,
        detail: note.detail,
        cluster: place.cluster.map(|cluster| cluster.to_string()),
        resource: place.resource.map(|resource| resource.to_string()),
    });
    notes.collect()
}
