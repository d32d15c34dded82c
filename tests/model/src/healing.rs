//! L1, asked of a single state: if from now on the old primary's agent reaches no coordinator, and everything else
//! heals and messages arrive, is another cluster open within D?
//!
//! A search for cycles in which nothing ever happens would need assumptions of fairness that stateright does not make:
//! its `eventually` looks at paths that end, and these worlds have cycles. So fairness is played out: from *every*
//! state that the search reaches, one fair schedule is followed to its end.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::action::{Action, Drift, Fault};
use super::agent::Agent;
use super::entry::Step;
use super::id::{Cluster, Observer};
use super::mistake::Mistake;
use super::offer::Offer;
use super::state::{Message, State};
use super::step::step;
use super::story::tell;
use super::world::{Faults, World};

/// So often everything that can go on in one tick is tried.
const ROUNDS: usize = 12;

/// Gone for good where L1 is asked with two coordinators.
const THIRD: Observer = Observer(2);

/// States from which the application is known to go on, by their fingerprints: many states of a search differ only in
/// what the lost cluster's agent knows, and that is of no account here.
#[derive(Clone, Debug)]
pub struct Known {
    /// What stands for the lost cluster's agent.
    gone: Agent,
    states: Arc<Mutex<HashSet<u64>>>,
}

impl Known {
    /// None yet.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let mut gone = State::first(world, None).agent(world.first()).clone();
        gone.lose_power();
        Self { gone, states: Arc::default() }
    }
}

/// True if the application goes on from this state, or a named rule says why not.
#[must_use]
pub fn goes_on(world: &World, mistake: Option<Mistake>, state: &State, known: &Known) -> bool {
    if refuses(state, world.first()) {
        return true;
    }
    let state = cut_off(world, state, known);
    let fingerprint = BuildHasherDefault::<DefaultHasher>::default().hash_one(&state);
    let lock = || known.states.lock().unwrap_or_else(PoisonError::into_inner);
    if lock().contains(&fingerprint) {
        return true;
    }
    let goes_on = play(world, mistake, &state, |_, _, _| {});
    if goes_on {
        lock().insert(fingerprint);
    }
    goes_on
}

/// The state with nothing left to fail, and without what the lost cluster's agent has in flight. The rest of that
/// cluster is as good as gone, but where its signs of life hold a decision.
fn cut_off(world: &World, state: &State, known: &Known) -> State {
    let lost = world.first();
    let mut state = State { faults: Faults::default(), fell: false, ..state.clone() };
    state.network.retain(|message| match message {
        Message::Beat { cluster, .. } | Message::Grant { cluster, .. } => *cluster != lost,
    });
    if !world.evidence {
        state.agents[lost.at()] = known.gone.clone();
    }
    if world.two_left {
        state.coordinators[THIRD.at()].up = false;
    }
    state
}

/// What the fair schedule does from a state, told.
#[must_use]
pub fn continuation(world: &World, mistake: Option<Mistake>, state: &State) -> Vec<String> {
    let third = if world.two_left { format!(", and that {THIRD} is gone") } else { String::new() };
    let first = world.first();
    let mut lines = vec![format!("from here on nothing fails but that {first} reaches no coordinator{third}")];
    play(world, mistake, &cut_off(world, state, &Known::new(world)), |before, action, after| {
        lines.push(tell(before, action, after))
    });
    lines.push("D has passed, and nobody has taken over".to_owned());
    lines
}

/// Follows the fair schedule; true if another cluster takes over in time.
fn play(world: &World, mistake: Option<Mistake>, state: &State, mut seen: impl FnMut(&State, &Action, &State)) -> bool {
    let lost = world.first();
    let world = world.healed();
    let mut state = state.clone();
    for _ in 0..=world.longest + 1 {
        for _ in 0..ROUNDS {
            if serves(&state, lost) {
                return true;
            }
            if !round(&world, mistake, &mut state, lost, &mut seen) {
                break;
            }
        }
        let next = step(&world, mistake, &state, &Action::Tick(Drift::None));
        seen(&state, &Action::Tick(Drift::None), &next);
        state = next;
    }
    false
}

/// Rules that a human is told of: paused, nothing confirmed, recovering, or no target.
fn refuses(state: &State, lost: Cluster) -> bool {
    let head = &state.head;
    let window = head.window(None);
    let target = head.newest().clusters.without(head.primary.0).iter().any(|one| window.lists(Cluster(one)));
    let before = head.primary == lost;
    before && (!head.confirmed || head.recovering || window.is_paused() || !target)
}

fn serves(state: &State, lost: Cluster) -> bool {
    (0..).map(Cluster).zip(&state.agents).any(|(cluster, agent)| cluster != lost && agent.is_open())
}

/// Each thing that can go on does so once; false if nothing could.
fn round(
    world: &World,
    mistake: Option<Mistake>,
    state: &mut State,
    lost: Cluster,
    seen: &mut impl FnMut(&State, &Action, &State),
) -> bool {
    let mut actions = Vec::new();
    Offer::gather(world, mistake, state, &mut actions);
    let mut changed = false;
    for action in actions.into_iter().filter(|action| mends(world, action, lost)) {
        // What an earlier one of this round has made impossible is left out.
        let mut now = Vec::new();
        Offer::gather(world, mistake, state, &mut now);
        if !now.contains(&action) {
            continue;
        }
        let next = step(world, mistake, state, &action);
        if next != *state {
            changed = true;
            seen(state, &action, &next);
            *state = next;
        }
    }
    changed
}

/// True for what happens by itself where nothing fails and the lost cluster's agent reaches nobody.
fn mends(world: &World, action: &Action, lost: Cluster) -> bool {
    match *action {
        Action::Contact(_, cluster)
        | Action::Beat(cluster)
        | Action::Learn(_, cluster)
        | Action::Name(cluster)
        | Action::Lead(cluster)
        | Action::Report(cluster, _)
        | Action::Opens(cluster)
        | Action::Lift(cluster)
        | Action::Promote(_, cluster) => cluster != lost,
        // Nobody need command a fence, nor take it back.
        Action::Command(step, cluster, _) => step == Step::Promote && cluster != lost,
        Action::Vote(_, cluster) => cluster == lost,
        Action::Dispatch(_, intent) => intent.cluster != lost,
        Action::Hear(..)
        | Action::Receive(_)
        | Action::Retry(..)
        | Action::Start(_)
        | Action::Decide(..)
        | Action::Commit(_)
        | Action::CommitBy(..)
        | Action::Apply(_) => true,
        Action::Fail(fault) => match fault {
            Fault::Restart(observer) => !(world.two_left && observer == THIRD),
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
        | Action::HearDoubled(..)
        | Action::ReceiveDoubled(_)
        | Action::Operate(_)
        | Action::Promise(..) => false,
    }
}
