//! What is no mistake in a document, and may all the same not be what its author expects of it.

use super::{Action, Application, Manner};
use crate::id::ResourceId;
use crate::plan::SWITCHOVER;

impl Application {
    /// One sentence each, for whoever validates or applies the document.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.window_without_rejoin().into_iter().collect()
    }

    /// A commit window opens only when the old side follows.
    fn window_without_rejoin(&self) -> Option<String> {
        let within = self.automation.commit_within?;
        let Some(runbook) = self.runbooks.get(SWITCHOVER) else {
            return Some(format!(
                "spec.automation.commitWithin is {within}, and there is no runbook {SWITCHOVER}: no commit window ever opens"
            ));
        };
        let rejoins = |resource: &ResourceId| {
            let mut lines = runbook.lines.iter().filter(|line| line.when != Some(Manner::Ungraceful));
            lines.any(|line| line.action == Action::Rejoin && line.resources.contains(resource))
        };
        let left = self.guarded().into_iter().find(|resource| !rejoins(resource))?;
        Some(format!(
            "spec.automation.commitWithin is {within}, and the runbook {SWITCHOVER} has no rejoin of {left}: a commit window opens \
             only when `regentctl rejoin` has made the old side follow"
        ))
    }
}
