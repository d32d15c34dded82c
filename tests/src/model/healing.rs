//! L1, asked of a single state: if from now on the old primary's agent reaches no coordinator, and everything else
//! heals and messages arrive, is another cluster open within D?
//!
//! A search for cycles in which nothing ever happens would need assumptions of fairness that stateright does not make:
//! its `eventually` looks at paths that end, and these worlds have cycles. So fairness is played out: from *every*
//! state that the search reaches, one fair schedule is followed to its end.

use super::action::{Action, Drift, Fault};
use super::id::{Cluster, Ticks};
use super::mistake::Mistake;
use super::offer::Offer;
use super::state::State;
use super::step::step;
use super::world::{Faults, World};

/// So often everything that can go on in one tick is tried.
const ROUNDS: usize = 12;

/// True if the application goes on from this state, or a named rule says why not.
#[must_use]
pub fn goes_on(world: &World, mistake: Option<Mistake>, state: &State) -> bool {
    let lost = world.first();
    if refuses(state) || serves(state, lost) {
        return true;
    }
    let world = world.healed();
    let mut state = state.clone();
    state.faults = Faults::default();
    let most: Ticks = world.longest + 1;
    for _ in 0..=most {
        for _ in 0..ROUNDS {
            if !round(&world, mistake, &mut state, lost) {
                break;
            }
            if serves(&state, lost) {
                return true;
            }
        }
        state = step(&world, mistake, &state, &Action::Tick(Drift::None));
    }
    false
}

/// Rules that a human is told of: paused, nothing confirmed, recovering, or no target.
fn refuses(state: &State) -> bool {
    let head = &state.head;
    let window = head.window(None);
    let target = head.newest().clusters.without(head.primary.0).iter().any(|one| window.lists(Cluster(one)));
    let before = head.primary == Cluster(0);
    before && (!head.confirmed || head.recovering || window.is_paused() || !target)
}

fn serves(state: &State, lost: Cluster) -> bool {
    (0..).map(Cluster).zip(&state.agents).any(|(cluster, agent)| cluster != lost && agent.is_open())
}

/// Each thing that can go on does so once; false if nothing could.
fn round(world: &World, mistake: Option<Mistake>, state: &mut State, lost: Cluster) -> bool {
    let mut actions = Vec::new();
    Offer::gather(world, mistake, state, &mut actions);
    let mut changed = false;
    for action in actions.into_iter().filter(|action| mends(action, lost)) {
        // What an earlier one of this round has made impossible is left out.
        let mut now = Vec::new();
        Offer::gather(world, mistake, state, &mut now);
        if !now.contains(&action) {
            continue;
        }
        let next = step(world, mistake, state, &action);
        changed |= next != *state;
        *state = next;
    }
    changed
}

/// True for what happens by itself where nothing fails and the lost cluster's agent reaches nobody.
fn mends(action: &Action, lost: Cluster) -> bool {
    match *action {
        Action::Contact(_, cluster)
        | Action::Beat(cluster)
        | Action::Learn(_, cluster)
        | Action::Name(cluster)
        | Action::Lead(cluster)
        | Action::Report(cluster, _)
        | Action::Opens(cluster)
        | Action::Promote(_, cluster) => cluster != lost,
        Action::Vote(_, cluster) => cluster == lost,
        Action::Dispatch(_, intent) => intent.cluster != lost,
        Action::Hear(..)
        | Action::Receive(_)
        | Action::Retry(..)
        | Action::Start(_)
        | Action::Decide(..)
        | Action::Commit(_)
        | Action::Apply(_)
        | Action::Command(..) => true,
        Action::Fail(fault) => match fault {
            Fault::Restart(_) => true,
            Fault::RestartAgent(cluster) | Fault::RestartGuard(cluster) | Fault::Boot(cluster) => cluster != lost,
            Fault::Crash(_)
            | Fault::Wipe(_)
            | Fault::Elect(_)
            | Fault::CrashAgent(_)
            | Fault::CrashGuard(_)
            | Fault::LosePower(_)
            | Fault::Restore
            | Fault::Recover => false,
        },
        Action::Tick(_)
        | Action::Withdraw(..)
        | Action::Double(_)
        | Action::CommitBy(..)
        | Action::Operate(_)
        | Action::Lift(_)
        | Action::Promise(..) => false,
    }
}
