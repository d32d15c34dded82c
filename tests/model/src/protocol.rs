//! A world as stateright sees it, and what must hold in each of its states.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

use super::action::Action;
use super::healing::{self, Known};
use super::id::Cluster;
use super::mistake::Mistake;
use super::offer::Offer;
use super::state::State;
use super::step::step;
use super::world::World;

/// S1: at every instant at most one cluster acknowledges writes.
pub const ONE_WRITER: &str = "S1 one writer";
/// S2: epochs only rise, and whoever has seen a higher one refuses.
pub const EPOCHS_RISE: &str = "S2 epochs only rise";
/// L1: with a majority, a standby and its agent, a loss ends in a promotion or a named refusal.
pub const GOES_ON: &str = "L1 it goes on";

/// A world, with a mistake or without.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// What is in it.
    pub world: World,
    /// What is done wrong in it.
    pub mistake: Option<Mistake>,
    /// A promise was seen broken.
    broken: Arc<AtomicBool>,
    /// Another cluster was seen open.
    seen: Arc<AtomicBool>,
    /// For L1.
    going_on: Known,
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.world, self.mistake)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        Offer::gather(&self.world, self.mistake, state, actions);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let after = step(&self.world, self.mistake, before, &action);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_WRITER, |protocol: &Self, state: &State| protocol.holds(state.has_one_writer())),
            Property::always(EPOCHS_RISE, |protocol: &Self, state: &State| protocol.holds(!state.fell)),
        ];
        if self.world.live {
            properties.push(Property::always(GOES_ON, |protocol: &Self, state: &State| {
                protocol.holds(healing::goes_on(&protocol.world, protocol.mistake, state, &protocol.going_on))
            }));
        }
        // Of a mistake, what it must break: something else that it broke on the way would tell another story.
        properties.retain(|property| self.mistake.is_none_or(|mistake| mistake.promise() == property.name));
        properties
    }

    /// Where the new primary is open and nothing can open the old one any more, nothing is left to see.
    fn within_boundary(&self, state: &State) -> bool {
        let taken_over = self.taken_over(state);
        self.seen.fetch_or(taken_over, Ordering::Relaxed);
        let world = &self.world;
        let reopens = world.lifts || world.commands || world.leased || world.faults.machines > 0;
        let first = state.agent(world.first());
        reopens || first.is_open() || !taken_over
    }
}

impl Protocol {
    /// Not a promise, but without it a search would be worth nothing: some other cluster was seen open. Such states are
    /// often the last that are looked at, so this is noted where the search ends.
    #[must_use]
    pub fn has_seen_another_open(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// A world that has not been searched.
    #[must_use]
    pub fn new(world: World, mistake: Option<Mistake>) -> Self {
        let going_on = Known::new(&world);
        Self { world, mistake, broken: Arc::default(), seen: Arc::default(), going_on }
    }

    /// Only the first broken promise is told: stateright would replace its way by that of each later one, and the
    /// first state of a breadth-first search is the nearest.
    fn holds(&self, promise: bool) -> bool {
        promise || self.broken.swap(true, Ordering::Relaxed)
    }

    fn taken_over(&self, state: &State) -> bool {
        (0..).map(Cluster).zip(&state.agents).any(|(cluster, agent)| cluster != self.world.first() && agent.is_open())
    }
}
