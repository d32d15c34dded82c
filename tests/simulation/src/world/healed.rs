//! The healed world: what must be so in it.

use regent_core::decide::{self, Assessment, Viewpoint};
use regent_core::id::{ApplicationId, CoordinatorId};
use regent_core::run::RunStatus;
use regent_core::state::State;
use regent_core::terms;
use regent_core::verdict::Scene;

use crate::invariant;
use crate::program;
use crate::world::World;
use crate::{Failure, Settled};

/// A healed world must be live within this time.
const RECOVERY: u64 = 90_000;

impl World {
    /// L1: in a healed world the application is served, or what holds it has a name.
    pub(super) fn recover(&mut self) -> Result<Settled, Failure> {
        let end = self.time.now() + RECOVERY;
        let mut since = None;
        while self.time.now() < end {
            self.step()?;
            if self.is_served() {
                let at = *since.get_or_insert(self.time.now());
                // It stays so.
                if self.time.now() - at > 3 * self.bound {
                    return self.conclude(None);
                }
            } else {
                since = None;
            }
        }
        let Some(state) = self.newest(State::clone) else { return Err(self.failure("L1", "no coordinator runs")) };
        if !self.has_majority(&state) {
            // What L1 asks for is not there.
            return self.conclude(Some("no majority of coordinators is left".to_owned()));
        }
        let assessment = self.tell_why();
        match named(&state, assessment.as_ref()).or_else(|| self.second_named(&state)) {
            Some(name) if self.maimed => {
                self.trace.say(format_args!("not served, by name: {name}"));
                self.conclude(Some(name))
            }
            Some(name) => Err(self.failure("L1", &format!("everything is healed and nothing is served: {name}"))),
            None => Err(self.failure("L1", "the world is healed, nothing is served, and nothing says why")),
        }
    }

    fn conclude(&mut self, held: Option<String>) -> Result<Settled, Failure> {
        let Some(state) = self.newest(State::clone) else { return Err(self.failure("L1", "no coordinator runs")) };
        if held.is_none() {
            let broken = invariant::broken_in_the_end(&mut self.invariants, &state, &self.databases);
            let broken = broken.or_else(|| self.second.as_mut().and_then(|second| second.conclude(&state)));
            if let Some((promise, how)) = broken {
                return Err(self.failure(promise, &how));
            }
        }
        let known = state.applications.get(&program::application());
        let epoch = known.map_or(0, |known| known.epoch.0);
        let other = state.applications.get(&program::second()).map(|known| known.epoch.0);
        Ok(Settled { epoch, other, held, virtual_millis: self.time.now() })
    }

    fn is_served(&self) -> bool {
        let open = self.databases.open();
        let [open] = open.as_slice() else { return false };
        let recently = |at: &u64| self.time.now() - at < 2_000;
        let settled = |state: &State| self.rests(state, &program::application(), open);
        let operated = self.replacing.is_none() && self.resumes.is_none();
        let answered = self.answered.get(open).is_some_and(recently);
        operated && answered && self.newest(settled).unwrap_or(false) && self.second_is_served()
    }

    /// The application's primary is this cluster, and nothing is under way.
    pub(super) fn rests(&self, state: &State, application: &ApplicationId, open: &str) -> bool {
        let Some(known) = state.applications.get(application) else { return false };
        let run = known.run.and_then(|run| state.runs.get(&run));
        // Who has lost its machine for good never follows: what waits for it holds nothing up.
        let at_rest = run.is_none_or(|run| run.status.is_final() || (self.maimed && run.gives_way()));
        known.primary.as_ref().is_some_and(|primary| primary.as_str() == open) && at_rest
    }

    /// Coordinators that run and belong to the group are a majority of each set of voters.
    fn has_majority(&self, state: &State) -> bool {
        let runs = |id: &u64| self.processes.contains_key(&format!("coordinator-{id}")) && !self.gone.contains(id);
        let alive = (1..=self.coordinators).filter(runs).map(CoordinatorId).collect();
        terms::is_majority(&state.voters, &alive)
    }

    /// What the leader thinks, as `regentctl why` says it.
    fn tell_why(&self) -> Option<Assessment> {
        let Some((seat, leader)) = self.leader() else {
            self.trace.say("nobody leads");
            return None;
        };
        let (node, application) = (&seat.node, program::application());
        let view = leader.within(|| Viewpoint { me: node.id, now: node.now(), wall: node.wall() });
        let held = node.replica.read(|state| {
            node.see(|evidence| {
                let scene = Scene::new(state, evidence, view.now, view.me, &application)?;
                Some(decide::assess(&scene, view))
            })
        });
        if let Some(assessment) = &held {
            self.trace.say(format_args!("coordinator {} leads: {:?}", node.id, assessment.trigger));
            assessment.held_by.iter().for_each(|rule| self.trace.say(format_args!("{}: {}", rule.code, rule.detail)));
        }
        held
    }
}

/// What says why an application is not served: a state that waits for a human, or a refusal that holds now, by what the
/// leader thinks.
fn named(state: &State, assessment: Option<&Assessment>) -> Option<String> {
    let known = state.applications.get(&program::application())?;
    if let Some(run) = known.run.and_then(|run| state.runs.get(&run)).filter(|run| run.status == RunStatus::Stuck) {
        return Some(format!("run {} is stuck", run.id));
    }
    if let Some(clusters) = &state.frozen {
        return Some(format!("frozen: {clusters:?}"));
    }
    let (rule, detail) = known.refusal.as_ref()?;
    let holds = assessment.is_some_and(|assessment| assessment.held_by.iter().any(|held| held.code == *rule));
    holds.then(|| format!("{rule}: {detail}"))
}
