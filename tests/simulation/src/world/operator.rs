//! What a human does meanwhile: pauses and resumes, switches over, takes a cluster back, replaces a coordinator.
//!
//! Everything is asked of the leader, as `regentctl` would; nobody answers while there is none.

use std::sync::PoisonError;

use regent_core::entry::{Cause, Clearing, Entry, FORMAT, Finding, Record};
use regent_core::id::{ClusterId, CoordinatorId};
use regent_core::members::{self, MemberChange};
use regent_core::run::{RunStatus, StepState};
use regent_core::state::State;
use regent_core::switchover::{self, Purpose};
use regent_core::time::Span;
use regent_core::verdict::Scene;

use crate::process::Process;
use crate::program::{self, Seat};
use crate::world::World;

/// As the command asks without an option.
const MAX_WRITE_OUTAGE: Span = Span::from_secs(30);

/// Between two tries at a step that was not done.
const AGAIN: u64 = 2_000;

/// A coordinator is replaced: the spare one learns, votes, and then the other one leaves.
pub(super) struct Replacing {
    leaves: u64,
    /// When it was asked for last.
    asked: u64,
}

impl World {
    /// The coordinator that leads, by its own word.
    pub(super) fn leader(&self) -> Option<(Seat, &Process)> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let leads = |seat: &&Seat| seat.node.replica.leadership().borrow().is_leader();
        let (id, seat) = seats.iter().find(|(_, seat)| leads(seat))?;
        Some((seat.clone(), self.processes.get(&format!("coordinator-{id}"))?))
    }

    pub(super) fn ask(&self, what: &str, entry: Entry) {
        let Some((seat, leader)) = self.leader() else {
            return self.trace.say(format_args!("ann wants to {what}, and nobody leads"));
        };
        let (trace, what) = (self.trace.clone(), what.to_owned());
        leader.beside(async move {
            let record = Record { format: FORMAT, at: seat.node.wall(), request: None, entry };
            let answer = seat.node.replica.propose(record).await;
            trace.say(format_args!("ann wants to {what}: {answer:?}"));
        });
    }

    pub(super) fn pause(&self) {
        let (application, by, reason) = (Some(program::application()), "ann".to_owned(), "maintenance".to_owned());
        self.ask("pause", Entry::Paused { application, by, reason });
    }

    /// Until it is so: see [`World::operate`].
    pub(super) fn resume(&mut self) {
        self.resumes = Some(0);
    }

    pub(super) fn rejoin(&self, cluster: &str) {
        let (application, by) = (program::application(), "ann".to_owned());
        let Ok(cluster) = ClusterId::new(cluster) else { return };
        self.ask(&format!("rejoin {cluster}"), Entry::RejoinStarted { application, cluster, reclone: false, by });
    }

    /// Only where both sides are ready, as the command does.
    pub(super) fn switch_over(&self, to: &str) {
        let Some((seat, leader)) = self.leader() else {
            return self.trace.say(format_args!("ann wants to switch over to {to}, and nobody leads"));
        };
        let Ok(to) = ClusterId::new(to) else { return };
        let application = program::application();
        let node = &seat.node;
        let now = leader.within(|| node.now());
        let looked = node.replica.read(|state| {
            node.see(|evidence| {
                let scene = Scene::new(state, evidence, now, node.id, &application)?;
                Some((scene.known.epoch, switchover::preflight(&scene, Purpose::Switchover, Some(&to))))
            })
        });
        let Some((epoch, fit)) = looked else { return };
        if let Err(rule) = fit {
            return self.trace.say(format_args!("ann wants to switch over to {to}: {}: {}", rule.code, rule.detail));
        }
        let cause = Cause::Switchover {
            by: "ann".to_owned(),
            max_write_outage: MAX_WRITE_OUTAGE,
            purpose: Purpose::Switchover,
        };
        let what = format!("switch over to {to}");
        self.ask(&what, Entry::RunStarted { application, epoch, cause, to, finding: Finding::default(), plan: None });
    }

    pub(super) fn replace(&mut self, leaves: u64) {
        self.replacing = Some(Replacing { leaves, asked: 0 });
        let spare = format!("coordinator-{}", self.coordinators);
        self.due.entry(spare).or_insert(self.time.now());
    }

    /// What takes more than one word.
    pub(super) fn operate(&mut self) {
        let now = self.time.now();
        if self.resumes.is_some_and(|asked| now >= asked + AGAIN) {
            let paused = self.newest(|state| state.applications.values().any(|known| known.paused.is_some()));
            if paused == Some(false) {
                self.resumes = None;
            } else {
                self.resumes = Some(now);
                self.ask("resume", Entry::Resumed { application: Some(program::application()), by: "ann".to_owned() });
            }
        }
        if self.clears.is_some_and(|asked| now >= asked + AGAIN) {
            self.clears = Some(now);
            self.clear();
        }
        if self.replacing.as_ref().is_some_and(|replacing| now >= replacing.asked + AGAIN) {
            self.replace_on();
        }
    }

    /// Whoever is told that a run is stuck mends what is wrong, and has it tried again.
    fn clear(&self) {
        let stuck = |state: &State| {
            let stuck = state.runs.values().filter(|run| run.status == RunStatus::Stuck);
            let steps = stuck.flat_map(|run| run.walk().map(|(step, progress)| (run.id, step.id, progress.state)));
            steps.filter(|(.., state)| *state == StepState::Stuck).collect::<Vec<_>>()
        };
        for (run, step, _) in self.newest(stuck).unwrap_or_default() {
            let (how, by) = (Clearing::Retry, "ann".to_owned());
            self.ask(&format!("clear {run}"), Entry::Cleared { run, step, how, by, reason: "mended".to_owned() });
        }
    }

    /// One member at a time, the next after the primary's agent has confirmed the terms that count the one before.
    fn replace_on(&mut self) {
        let now = self.time.now();
        let (spare, Some(replacing)) = (self.coordinators, &mut self.replacing) else { return };
        replacing.asked = now;
        let leaves = replacing.leaves;
        let Some((seat, leader)) = self.leader() else { return };
        let settled = |state: &State| state.applications.values().all(|known| known.terms.len() == 1);
        if !seat.node.replica.read(settled) {
            return self.trace.say("the last change of the members is not confirmed yet");
        }
        let (voters, learners) = seat.membership.members();
        let (added, left) = (CoordinatorId(spare), CoordinatorId(leaves));
        if voters.contains(&added) && !voters.contains(&left) {
            self.trace.say(format_args!("coordinator-{leaves} has left"));
            self.replacing = None;
            self.gone.push(leaves);
            self.left = Some(leaves);
            return self.kill(&format!("coordinator-{leaves}"));
        }
        let (trace, address) = (self.trace.clone(), program::coordinator_address(spare));
        // What the product's own change of members waits for.
        let change = if voters.contains(&added) {
            MemberChange::Remove { id: left }
        } else {
            MemberChange::Add { id: added, address: address.clone() }
        };
        let (node, moment) = (&seat.node, leader.within(|| seat.node.now()));
        let hold = |change: &MemberChange| {
            node.replica.read(|state| node.see(|evidence| members::hold(state, evidence, moment, node.id, change)))
        };
        let begun = voters.contains(&added) || learners.contains(&added);
        let mut lost_first = None;
        if let Some(rule) = hold(&change).filter(|_| begun) {
            // As the rule says: who is lost is removed first, and then nobody else leaves.
            let lost = voters
                .iter()
                .copied()
                .find(|one| !self.processes.contains_key(&format!("coordinator-{one}")) || self.gone.contains(&one.0));
            lost_first = lost
                .filter(|lost| rule.code == "majority-too-thin" && hold(&MemberChange::Remove { id: *lost }).is_none());
            if lost_first.is_none() {
                return self.trace.say(format_args!("the members do not change: {}", rule.code));
            }
        }
        leader.beside(async move {
            let membership = &seat.membership;
            let changed = if let Some(lost) = lost_first {
                membership.remove(lost).await
            } else if voters.contains(&added) {
                membership.remove(left).await
            } else if learners.contains(&added) {
                membership.add_voter(added).await
            } else {
                membership.begin_learner(added, &address).await
            };
            trace.say(format_args!("the members change: {changed:?}"));
        });
        if let (Some(lost), Some(replacing)) = (lost_first, &mut self.replacing) {
            replacing.leaves = lost.0;
        }
    }
}
