//! What is there for the day that goes wrong, and when it was last tried: backups and drills.

use super::{Looking, Place};
use crate::application::{Action, Line};
use crate::facts::BackupFacts;
use crate::id::ResourceId;
use crate::plan::DRILL;
use crate::preflight::Severity;
use crate::time::{Span, Timestamp};

/// A drill or a restore that is older says little: a quarter, and a week.
const STALE_REHEARSAL: Span = Span::from_secs(97 * 24 * 3600);

impl Looking<'_> {
    pub(super) fn of_backup(&mut self, here: &Place, facts: &BackupFacts) {
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
        let names = |line: &Line| resource.is_none_or(|one| line.resources.contains(one));
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

    pub(super) fn of_rehearsals(&mut self) {
        if !self.document().runbooks.contains_key(DRILL) {
            let detail = "the document has no runbook for drills: nothing shows that a failover would work";
            return self.add(Place::default(), Severity::Info, "no-drill-runbook", detail);
        }
        let primary = self.known.primary.clone();
        for cluster in self.document().clusters.iter().filter(|cluster| Some(*cluster) != primary.as_ref()) {
            let at = self.known.rehearsed.drills.get(cluster).map(|drilled| drilled.at);
            let here = Place::of(cluster);
            self.of_age(&here, at, "drill-old", "a failover to it was last rehearsed");
        }
    }
}
