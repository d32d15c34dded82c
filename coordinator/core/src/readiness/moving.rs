//! Whether a switchover would start.

use super::sides::VERSIONS_DIFFER;
use super::{Looking, Place};
use crate::id::ClusterId;
use crate::plan::SWITCHOVER;
use crate::preflight::{Note, Severity};
use crate::readiness_found::{MANAGED_ELSEWHERE, PERMISSION_MISSING};
use crate::switchover::{self, NO_TARGET};
use crate::target;
use crate::why::Rule;

/// What was found out of the moves to all other clusters.
pub(super) struct Moves {
    /// How much it weighs that some cluster cannot be moved to: as long as there is one that can, it blocks nothing.
    pub(super) at_worst: Severity,
    /// What is certain to fail in any of them.
    fails: Vec<(Place, Rule)>,
}

impl Looking<'_> {
    /// What would refuse a switchover, and how far the standbys are behind. None before there is a primary.
    pub(super) fn of_moving(&mut self) -> Option<Moves> {
        let Some(scene) = self.scene() else {
            self.add(Place::default(), Severity::Blocker, "not-adopted", "no primary is known yet");
            return None;
        };
        self.of_lag(&scene);
        let obstacles: Vec<(&ClusterId, Vec<Rule>)> =
            scene.others().map(|cluster| (cluster, switchover::of_target(&scene, cluster).1)).collect();
        let ready = obstacles.iter().any(|(_, obstacles)| obstacles.is_empty());
        let severity = if ready { Severity::Warning } else { Severity::Blocker };
        if !self.document().runbooks.contains_key(SWITCHOVER) {
            // It can only fail over: who could not take over is all the same worth a warning.
            for unfit in target::rank(&scene).into_iter().filter_map(Result::err) {
                self.add(Place::of(&unfit.cluster), Severity::Warning, unfit.code, unfit.detail);
            }
            let detail = "the document has no runbook for a switchover: it can only fail over";
            self.add(Place::default(), Severity::Info, "no-switchover-runbook", detail);
            return Some(Moves { at_worst: severity, fails: Vec::new() });
        }
        // Of other managers each place tells itself.
        let rules = switchover::of_application(&scene).into_iter();
        for rule in rules.filter(|rule| rule.code != MANAGED_ELSEWHERE) {
            self.add(Place::default(), Severity::Blocker, &rule.code, rule.detail);
        }
        if let Err(rule) = switchover::primary_serves(&scene) {
            self.add(Place::of(scene.primary), Severity::Blocker, &rule.code, rule.detail);
        }
        self.notes.extend(switchover::of_quiesces(&scene, self.document().automation.max_write_outage));
        if obstacles.is_empty() {
            self.add(Place::default(), Severity::Blocker, NO_TARGET, "no other cluster is listed");
        }
        let mut all = Vec::new();
        for (cluster, obstacles) in obstacles {
            let fails = switchover::certain_to_fail(&scene, cluster);
            // What differs, and what would fail, each place tells of itself.
            let told = |rule: &Rule| rule.code == VERSIONS_DIFFER || fails.iter().any(|(_, one)| one.code == rule.code);
            for rule in obstacles.into_iter().filter(|rule| !told(rule)) {
                self.add(Place::of(cluster), severity, &rule.code, rule.detail);
            }
            for (place, rule) in fails.iter().filter(|(_, rule)| rule.code != PERMISSION_MISSING) {
                let note = Note { severity, code: rule.code.clone(), detail: rule.detail.clone() };
                let one = (place.clone(), note);
                // The side that is left is the same for every target.
                if !self.notes.contains(&one) {
                    self.notes.push(one);
                }
            }
            all.extend(fails);
        }
        Some(Moves { at_worst: severity, fails: all })
    }

    /// What keeps one cluster from taking over blocks nothing as long as another one can. What lacks is a warning wherever no
    /// planned move needs it.
    pub(super) fn weigh_differences(&mut self, moves: &Moves) {
        let Moves { at_worst, fails } = moves;
        for (place, note) in &mut self.notes {
            let same = |rule: &Rule| (&rule.code, &rule.detail) == (&note.code, &note.detail);
            if fails.iter().any(|(at, rule)| *at == *place && same(rule)) {
                note.severity = note.severity.min(*at_worst);
            }
        }
        for (_, note) in self.notes.iter_mut().filter(|(_, note)| note.code == VERSIONS_DIFFER) {
            note.severity = note.severity.max(*at_worst);
        }
    }
}
