//! An agent with its guard and its databases: rights, lease, fence, promises and steps.

use super::entry::Step;
use super::group::Intent;
use super::id::{Cluster, FENCE, Few, MANY, Number, RESOURCES, Ticks};
use super::mistake::Mistake;
use super::terms::{Terms, lease};

/// The machine of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The machine runs, and its databases with it.
    pub machine: bool,
    /// The agent's process runs.
    pub up: bool,
    /// The guard's process runs.
    pub guard: bool,
    /// Of the agent's process.
    pub incarnation: u8,
    /// Heartbeats sent by this process.
    pub next_beat: u8,
    /// Those that it remembers.
    pub beats: Vec<Beat>,
    /// Newest terms stored.
    pub terms: Terms,
    /// The largest D stored.
    pub largest: Ticks,
    /// Highest epoch seen.
    pub seen: u8,
    /// Journal and marker say that this cluster leads this epoch.
    pub led: u8,
    /// The cluster is guarded for good.
    pub guarded: bool,
    /// By coordinator.
    pub grants: [Option<Right>; MANY],
    /// By cluster.
    pub promises: [Option<Right>; MANY],
    /// What the guard counted by when this process began.
    pub carried: Option<Right>,
    /// What the guard counts by.
    pub armed: Option<Right>,
    /// Since the lease lapsed, while something is open.
    pub over: Ticks,
    /// By database.
    pub doors: [Door; RESOURCES],
    /// What closed them.
    pub fence: Fence,
    /// Highest fencing token stored.
    pub token: Number,
    /// The commanded step that succeeded last.
    pub done: Option<Number>,
    /// What it has promised.
    pub promised: Option<Promised>,
    /// Since it last asked for a promise.
    pub asked: Ticks,
}

/// A heartbeat that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    /// Its number.
    pub number: u8,
    /// What a grant for it gives.
    pub right: Right,
}

/// A right that began with a sending of the agent's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// Since that sending.
    pub age: Ticks,
    /// The smallest T stored since.
    pub span: Ticks,
}

/// A database as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Refuses writes.
    Closed,
    /// Is being opened, and will be if nobody stops it.
    Opening,
    /// Acknowledges writes.
    Open,
}

/// What closed the databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// Nothing.
    None,
    /// The agent or its guard.
    Own,
    /// A committed step, stored.
    Commanded,
}

/// To refuse promotions above an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Promised {
    /// The epoch.
    pub epoch: u8,
    /// For how long still.
    pub left: Ticks,
}

impl Right {
    /// For how long it still runs.
    #[must_use]
    pub const fn left(self) -> Ticks {
        self.span.saturating_sub(self.age)
    }

    /// A lower T shrinks what runs, a higher one stretches nothing.
    fn cap(&mut self, span: Ticks, mistake: Option<Mistake>) {
        self.span = if mistake == Some(Mistake::GrantStretched) { span } else { self.span.min(span) };
    }
}

impl Agent {
    /// A standby that has stored terms.
    #[must_use]
    pub fn new(terms: Terms, longest: Ticks) -> Self {
        Self {
            machine: true,
            up: true,
            guard: true,
            incarnation: 1,
            next_beat: 0,
            beats: Vec::new(),
            terms,
            largest: terms.bound,
            seen: terms.epoch,
            led: 0,
            guarded: false,
            grants: [None; MANY],
            promises: [None; MANY],
            carried: None,
            armed: None,
            over: 0,
            doors: [Door::Closed; RESOURCES],
            fence: Fence::None,
            token: Number::default(),
            done: None,
            promised: None,
            asked: longest,
        }
    }

    /// The newest stored terms name this cluster, and no higher epoch was seen.
    #[must_use]
    pub fn is_primary(&self, me: Cluster) -> bool {
        self.terms.primary == me && self.terms.epoch == self.seen
    }

    /// Primary, and stored as such under a lease.
    #[must_use]
    pub fn leads(&self, me: Cluster) -> bool {
        self.is_primary(me) && self.guarded && self.led == self.terms.epoch
    }

    /// The right that runs longest: a majority's grants, all others' promises, or what was carried over.
    #[must_use]
    pub fn right(&self, me: Cluster) -> Option<Right> {
        let carried = self.carried.filter(|right| self.is_primary(me) && right.left() > 0);
        self.own_right(me).into_iter().chain(carried).max_by_key(|right| right.left())
    }

    /// The right by the stored terms alone.
    fn own_right(&self, me: Cluster) -> Option<Right> {
        if !self.is_primary(me) {
            return None;
        }
        let mut of_voters: Vec<Right> =
            self.terms.voters.iter().filter_map(|voter| self.grants[usize::from(voter)]).collect();
        of_voters.sort_by_key(|right| std::cmp::Reverse(right.left()));
        let needed = self.terms.voters.count() as usize / 2;
        let granted = of_voters.get(needed).copied();
        let others = self.terms.clusters.without(me.0);
        let mut promises = others.iter().map(|other| self.promises[usize::from(other)]);
        let promised = promises.try_fold(None, |weakest: Option<Right>, promise| {
            let promise = promise?;
            Some(Some(weakest.filter(|weakest| weakest.left() <= promise.left()).unwrap_or(promise)))
        });
        let rights = [granted, promised.flatten()];
        rights.into_iter().flatten().filter(|right| right.left() > 0).max_by_key(|right| right.left())
    }

    /// For how long the lease still runs: never beyond the rights, never beyond what the guard counts by. An agent
    /// that is dead has left it to the guard.
    #[must_use]
    pub fn lease_left(&self, me: Cluster) -> Ticks {
        let armed = self.armed.map_or(0, Right::left);
        match self.up {
            true if self.leads(me) => self.right(me).map_or(0, Right::left).min(armed),
            true => 0,
            false => armed,
        }
    }

    /// Steps may rely on the lease.
    #[must_use]
    pub fn holds(&self, me: Cluster) -> bool {
        self.up && self.guard && self.lease_left(me) > 0
    }

    /// Nothing is extended while the guard does not answer.
    pub fn rearm(&mut self, me: Cluster) {
        if self.up && self.guard {
            self.armed = self.right(me);
        }
    }

    /// A grant for what was sent a while ago.
    pub fn granted(&mut self, me: Cluster, voter: usize, right: Right) {
        let news = self.grants[voter].is_none_or(|known| known.left() <= right.left());
        if news && right.left() > 0 {
            self.grants[voter] = Some(right);
            self.drop_carried(me);
            self.rearm(me);
        }
    }

    /// What is carried over from older terms or another process is of no use beside a right that outlasts it, whatever
    /// T is stored next.
    pub fn drop_carried(&mut self, me: Cluster) {
        let own = self.own_right(me);
        self.carried =
            self.carried.filter(|carried| own.is_none_or(|own| own.left() < carried.left() || own.age > carried.age));
    }

    /// What a sending of now can give.
    #[must_use]
    pub fn fresh(&self, mistake: Option<Mistake>) -> Right {
        Right { age: 0, span: lease(self.terms.bound, mistake) }
    }

    /// The first lease: journal and marker are written, with the guard armed.
    #[must_use]
    pub fn may_lead(&self, me: Cluster) -> bool {
        self.up
            && self.guard
            && self.is_primary(me)
            && !self.leads(me)
            && self.armed.is_some()
            && self.right(me).is_some()
    }

    /// Stores that this cluster leads.
    pub fn lead(&mut self) {
        self.led = self.terms.epoch;
        self.guarded = true;
        self.over = 0;
    }

    /// The newest terms stored are named in heartbeats.
    #[must_use]
    pub fn names(&self, me: Cluster, mistake: Option<Mistake>) -> bool {
        let early = mistake == Some(Mistake::NamedBeforeGuarding);
        let own = self.outlasts_carried(me) || mistake == Some(Mistake::NamedByOldRight);
        let held = self.leads(me) && self.guard && (self.terms.paused || (own && self.lease_left(me) > 0));
        self.up && (held || (early && self.is_primary(me)))
    }

    /// Nothing that was carried over runs longer than the lease that the stored terms give by themselves.
    fn outlasts_carried(&self, me: Cluster) -> bool {
        self.own_right(me).is_some_and(|own| own.left() >= self.carried.map_or(0, Right::left))
    }

    /// Older terms may count no more, nor what rests on them.
    pub fn has_named(&mut self, me: Cluster) {
        if self.outlasts_carried(me) {
            self.carried = None;
            self.rearm(me);
        }
    }

    /// Stores newer terms, and recalculates what runs.
    pub fn store(&mut self, me: Cluster, terms: Terms, mistake: Option<Mistake>) {
        if terms.epoch > self.terms.epoch {
            self.void();
        }
        // What runs by the terms before runs to its end: until the new ones are named, the group counts by both.
        self.carried = self.right(me);
        self.terms = terms;
        self.seen = self.seen.max(terms.epoch);
        self.largest = self.largest.max(terms.bound);
        let span = lease(terms.bound, mistake);
        let rights = self.grants.iter_mut().chain(&mut self.promises).flatten();
        rights.chain(&mut self.carried).chain(&mut self.armed).for_each(|right| right.cap(span, mistake));
        self.beats.iter_mut().for_each(|beat| beat.right.cap(span, mistake));
        self.drop_carried(me);
        self.rearm(me);
    }

    /// An answer that names a higher epoch voids the lease at once, and ends promising.
    pub fn see(&mut self, epoch: u8) {
        if epoch > self.seen {
            self.seen = epoch;
            self.void();
        }
    }

    fn void(&mut self) {
        self.grants = [None; MANY];
        self.promises = [None; MANY];
        self.carried = None;
        if self.up && self.guard {
            self.armed = None;
        }
        self.beats.clear();
        self.over = 0;
    }

    /// Something may be written by clients.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.machine && self.doors.contains(&Door::Open)
    }

    /// Some door is not closed.
    #[must_use]
    pub fn is_ajar(&self) -> bool {
        self.doors.iter().any(|door| *door != Door::Closed)
    }

    /// Closes what is guarded by the stored terms.
    pub fn close(&mut self, fence: Fence) {
        for resource in self.terms.resources.iter() {
            if let Some(door) = self.doors.get_mut(usize::from(resource)) {
                *door = Door::Closed;
            }
        }
        self.fence = fence;
        self.over = 0;
    }

    /// Opens some databases.
    pub fn open(&mut self, resources: Few, how: Door) {
        for resource in resources.iter() {
            if let Some(door) = self.doors.get_mut(usize::from(resource)) {
                *door = how;
            }
        }
        self.fence = Fence::None;
        self.over = 0;
    }

    /// A self-fence is lifted when the lease of the same epoch holds again and nothing commanded is stored.
    #[must_use]
    pub fn may_lift(&self, me: Cluster) -> bool {
        self.fence == Fence::Own && self.holds(me)
    }

    /// True if it refuses a promotion to this epoch.
    #[must_use]
    pub fn refuses(&self, epoch: u8) -> bool {
        self.promised.is_some_and(|promised| promised.epoch < epoch)
    }

    /// True if a step may begin here now.
    #[must_use]
    pub fn accepts(&self, me: Cluster, intent: &Intent, by_fence: bool, mistake: Option<Mistake>) -> bool {
        let newer =
            intent.number > self.token || (mistake == Some(Mistake::TokensIgnored) && self.done != Some(intent.number));
        let current = intent.epoch >= self.seen || mistake == Some(Mistake::HigherEpochIgnored);
        let leased = self.holds(me) && self.terms.epoch == intent.epoch;
        let right = match intent.step {
            Step::Fence => true,
            Step::Unfence => leased,
            Step::Promote => {
                let unleased = mistake == Some(Mistake::PromotionWithoutLease) && self.terms.epoch == intent.epoch;
                (leased || unleased) && (by_fence || !self.refuses(intent.epoch))
            }
        };
        self.up && intent.cluster == me && newer && current && right
    }

    /// Begins a step. The token is stored before it acts.
    pub fn begin(&mut self, intent: &Intent, promotable: Few) {
        self.token = intent.number;
        self.seen = self.seen.max(intent.epoch);
        match intent.step {
            Step::Fence => {
                self.close(Fence::Commanded);
                self.done = Some(intent.number);
            }
            Step::Unfence => {
                self.open(self.terms.resources, Door::Open);
                self.done = Some(intent.number);
            }
            Step::Promote => self.open(promotable, Door::Opening),
        }
    }

    /// The agent's process dies; the guard counts on.
    pub fn crash(&mut self) {
        self.up = false;
        self.beats.clear();
        self.next_beat = 0;
        self.grants = [None; MANY];
        self.promises = [None; MANY];
        self.carried = None;
    }

    /// The agent's process begins anew; within the boot the guard's deadline is its lease.
    pub fn restart(&mut self, mistake: Option<Mistake>) {
        self.up = true;
        if mistake != Some(Mistake::IncarnationPerBoot) {
            self.incarnation += 1;
        }
        self.carried = self.armed;
    }

    /// The machine dies, and all that is not on a disk with it.
    pub fn lose_power(&mut self) {
        self.crash();
        self.machine = false;
        self.guard = false;
        self.armed = None;
        self.promised = None;
        self.over = 0;
    }

    /// The machine starts. Closed at rest; and it refuses promotions for the largest D it has stored.
    pub fn boot(&mut self, mistake: Option<Mistake>) {
        let open = self.is_ajar();
        self.restart(None);
        self.machine = true;
        self.guard = true;
        if open && mistake != Some(Mistake::RebootOpen) {
            self.doors = [Door::Closed; RESOURCES];
            self.fence = if self.fence == Fence::Commanded { self.fence } else { Fence::Own };
        }
        // Whatever epoch it has seen since: the promise that it may have forgotten was for a lower one.
        self.promised = Some(Promised { epoch: 0, left: self.largest });
    }

    /// Some time passes by the machine's clock. `exempt`: what is open here needs no lease in this world.
    pub fn pass(&mut self, me: Cluster, exempt: bool, longest: Ticks, mistake: Option<Mistake>) {
        if !self.machine {
            return;
        }
        let lapsed = self.lease_left(me) == 0;
        self.over = if lapsed && self.is_ajar() && !exempt { self.over + 1 } else { 0 };
        self.grow_older(longest);
        if self.over >= FENCE && self.must_close(mistake) {
            self.close(if self.fence == Fence::None { Fence::Own } else { self.fence });
        }
        self.over = self.over.min(FENCE);
    }

    fn must_close(&self, mistake: Option<Mistake>) -> bool {
        let in_pause = self.terms.paused && self.seen == self.terms.epoch;
        let nobody = !self.up && mistake == Some(Mistake::NoGuard);
        // What opens without a lease is not held by the guard either.
        let unheld = mistake == Some(Mistake::PromotionWithoutLease) && self.led < self.terms.epoch;
        self.guarded && !in_pause && !nobody && !unheld
    }

    fn grow_older(&mut self, longest: Ticks) {
        let rights = self.grants.iter_mut().chain(&mut self.promises);
        for right in rights.chain([&mut self.carried, &mut self.armed]) {
            if let Some(running) = right {
                running.age += 1;
                if running.left() == 0 {
                    *right = None;
                }
            }
        }
        self.beats.iter_mut().for_each(|beat| beat.right.age += 1);
        self.beats.retain(|beat| beat.right.left() > 0);
        if let Some(promised) = &mut self.promised {
            promised.left = promised.left.saturating_sub(1);
            if promised.left == 0 {
                self.promised = None;
            }
        }
        self.asked = (self.asked + 1).min(longest);
    }
}
