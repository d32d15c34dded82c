//! Facts that come in. Each is taken note of; what follows is derived in one place, `settle`.

use std::collections::BTreeSet;

use regent_core::id::{ClusterId, CoordinatorId, Epoch, ResourceId};
use regent_core::planted::{self, Mistake};
use regent_core::terms::Terms;
use regent_core::time::Span;

use crate::lease::{Alert, Arm, Command, Fence, IN_FLIGHT, Lease, Reading, Right};

/// What an answer of a coordinator says about one application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word {
    /// It grants this epoch.
    pub granted: Option<Epoch>,
    /// It has applied this higher epoch.
    pub higher: Option<Epoch>,
}

impl Lease {
    /// Time has passed.
    pub fn tick(&mut self, now: Reading) -> Vec<Command> {
        self.settle(now)
    }

    /// The wall clock moved against the elapsed clocks since the last tick, in milliseconds.
    pub fn wall_clock_moved(&mut self, now: Reading, millis: i64) -> Vec<Command> {
        let Some(bound) = self.terms.as_ref().map(|terms| terms.bound) else { return Vec::new() };
        if millis.unsigned_abs() <= bound.margin().millis() {
            return self.settle(now);
        }
        if millis < 0 {
            let mut commands = vec![Command::Alert(Alert::ClockBackward)];
            commands.extend(self.settle(now));
            return commands;
        }
        // The machine may have been paused with its clocks: nothing that was granted before counts, and a fresh
        // majority, or fresh promises of all, must come before the grace is over (safety.md, "Clocks").
        let left = self.end(now).map(|end| end.left_for_holder(now));
        let half = bound.fence_budget.divided(2);
        let grace = bound.fence_budget.divided(4).max(self.round_trip.times(2)).min(half);
        self.drop_rights();
        self.carried = left.map(|left| Right { from: now, span: left.min(grace) });
        self.ask_at_once = left.is_some();
        self.last_asked = None;
        let mut commands = vec![Command::Alert(Alert::ClockForward), Command::Heartbeat];
        commands.extend(self.settle(now));
        commands
    }

    /// The largest round trip to a coordinator lately.
    pub const fn round_trip_is(&mut self, span: Span) {
        self.round_trip = span;
    }

    /// Terms came down a stream. Older ones and repeats change nothing.
    pub fn terms_offered(&mut self, now: Reading, terms: Terms) -> Vec<Command> {
        self.see(terms.epoch);
        let newest = self.storing.as_ref().or(self.terms.as_ref()).map(|terms| terms.number);
        let mut commands = self.settle(now);
        if newest.is_none_or(|number| terms.number > number) && terms.epoch >= self.epoch() {
            self.storing = Some(terms.clone());
            self.store_again = None;
            commands.push(Command::StoreTerms(Box::new(terms)));
        }
        commands
    }

    /// Terms are stored with fsync: running grants are calculated anew. A lower T shrinks them.
    pub fn terms_stored(&mut self, now: Reading, terms: Terms) -> Vec<Command> {
        if self.storing.as_ref().is_some_and(|storing| storing.number <= terms.number) {
            self.storing = None;
            self.store_again = None;
        }
        if self.terms.as_ref().is_some_and(|stored| stored.number >= terms.number) {
            return self.settle(now);
        }
        self.see(terms.epoch);
        if terms.epoch > self.epoch() {
            // Rights are bound to the epoch they were given for.
            self.drop_rights();
        }
        // What runs by the terms before runs to its end: until this agent names the new ones, coordinators count by
        // both. Else each change of the voters would stop a primary that a majority has just granted.
        self.carried = self.best_right(now);
        let lease = terms.bound.lease();
        let in_flight = self.sent.values_mut().flat_map(|sent| sent.values_mut());
        let given = self.grants.values_mut().chain(self.promised.values_mut()).chain(self.asked.values_mut());
        in_flight
            .chain(given)
            .chain(self.carried.as_mut())
            .chain(self.alone.as_mut())
            .for_each(|right| right.cap(lease));
        self.terms = Some(terms);
        let mut commands = vec![Command::Heartbeat];
        commands.extend(self.settle(now));
        commands
    }

    /// Terms could not be stored: that is tried again, whether they are offered again or not.
    pub fn terms_not_stored(&mut self, now: Reading) -> Vec<Command> {
        self.store_again = self.storing.is_some().then(|| now.after(Span::from_secs(1)));
        self.settle(now)
    }

    /// A heartbeat with this application is about to be sent.
    pub fn heartbeat_sent(&mut self, now: Reading, coordinator: CoordinatorId, number: u64) {
        let Some(terms) = self.terms.as_ref().filter(|_| self.is_primary()) else { return };
        let whole = planted::makes(Mistake::LeaseForWholeBound);
        let span = if whole { terms.bound.fail_over_after } else { terms.bound.lease() };
        let sent = self.sent.entry(coordinator).or_default();
        sent.insert(number, Right { from: now, span });
        while sent.len() > IN_FLIGHT {
            sent.pop_first();
        }
    }

    /// A coordinator answered one of this process' own heartbeats.
    pub fn answered(&mut self, now: Reading, coordinator: CoordinatorId, number: u64, word: Word) -> Vec<Command> {
        if let Some(epoch) = word.higher {
            self.see(epoch);
        }
        if word.granted == Some(self.epoch()) && self.is_primary() {
            // Found only if it was sent at this very epoch: a change of epoch forgets what is in flight.
            let granted = self.sent.get(&coordinator).and_then(|sent| sent.get(&number)).copied();
            if let Some(mut right) = granted {
                if planted::makes(Mistake::GrantFromReceipt) {
                    right.from = now;
                }
                let best = self.grants.entry(coordinator).or_insert(right);
                if right.until() > best.until() {
                    *best = right;
                }
                if let Some(sent) = self.sent.get_mut(&coordinator) {
                    *sent = sent.split_off(&number);
                }
            }
        }
        self.settle(now)
    }

    /// A higher epoch was seen in any other way, e.g. in a command.
    pub fn epoch_seen(&mut self, now: Reading, epoch: Epoch) -> Vec<Command> {
        self.see(epoch);
        self.settle(now)
    }

    /// Another cluster's agent answered a question. It names its own epoch.
    pub fn promise_answered(
        &mut self,
        now: Reading,
        number: u64,
        cluster: ClusterId,
        promised: bool,
        epoch: Epoch,
    ) -> Vec<Command> {
        self.see(epoch);
        if let Some(right) = self.asked.get(&number).copied().filter(|_| promised && self.is_primary()) {
            let best = self.promised.entry(cluster).or_insert(right);
            if right.until() > best.until() {
                *best = right;
            }
        }
        self.settle(now)
    }

    /// A coordinator refused this process, because another one of this agent is registered. Coordinators have waited only
    /// for what they granted and for promises that were asked for: what this process gives itself ends at once, and none
    /// is given before a majority has granted what was sent since. What was carried over may be made of the same.
    pub fn doubled(&mut self, now: Reading) -> Vec<Command> {
        self.alone = None;
        self.carried = None;
        self.doubled = Some(now);
        self.settle(now)
    }

    /// The guard answers again. What it counts by is asked anew.
    pub fn guard_up(&mut self, now: Reading) -> Vec<Command> {
        self.guard.alive = true;
        self.guard.asked = None;
        self.guard.confirmed = false;
        self.settle(now)
    }

    /// The guard does not answer: nothing is extended until it does.
    pub fn guard_lost(&mut self, now: Reading) -> Vec<Command> {
        self.guard.alive = false;
        self.guard.asked = None;
        self.settle(now)
    }

    /// The guard counts by this now.
    pub fn guard_armed(&mut self, now: Reading, arm: Arm) -> Vec<Command> {
        if self.guard.asked.is_none_or(|(asked, _)| asked != arm) {
            return self.settle(now);
        }
        self.guard.asked = None;
        self.guard.armed = Some(arm);
        self.guard.confirmed = true;
        self.settle(now)
    }

    /// The guard lost count and went hard. What opens at this moment is ended, and everything is fenced once more:
    /// only this agent knows what was opened behind the guard's back.
    pub fn guard_fired(&mut self, now: Reading) -> Vec<Command> {
        self.guard.asked = None;
        self.guard.armed = None;
        let mut commands = Vec::new();
        if self.guarded {
            self.last_end = None;
            self.touched = false;
            let budget = self.terms.as_ref().map_or(Span::ZERO, |terms| terms.bound.fence_budget);
            let confirm_by = now.after(budget.divided(2));
            self.fence = Fence::Closing { epoch: self.led, confirm_by, hard: false };
            commands.push(Command::FenceSelf { confirm_by });
        } else {
            self.fence = Fence::None;
        }
        commands.extend(self.settle(now));
        commands
    }

    /// Which resources this agent has drivers for.
    pub fn here_is(&mut self, resources: BTreeSet<ResourceId>) {
        self.here = Some(resources);
    }

    /// Whether a step that opens runs. Told before it may begin.
    pub fn opening_is(&mut self, now: Reading, opening: bool) -> Vec<Command> {
        self.opening = opening;
        self.settle(now)
    }

    /// Journal and marker of these resources are written, or could not be.
    pub fn guarded_written(
        &mut self,
        now: Reading,
        epoch: Epoch,
        resources: BTreeSet<ResourceId>,
        written: bool,
    ) -> Vec<Command> {
        self.writing = false;
        if written {
            self.guarded = true;
            self.marked.extend(resources);
            if epoch > self.led {
                self.led = epoch;
                self.fresh = true;
            }
        }
        self.settle(now)
    }

    /// A fence of this agent's own has ended.
    pub fn fenced(&mut self, now: Reading, confirmed: bool) -> Vec<Command> {
        let retry = now.after(Span::from_secs(1));
        let confirmed = confirmed && self.missing().is_empty();
        let mut commands = Vec::new();
        match self.fence {
            Fence::Closing { epoch, .. } | Fence::Unconfirmed { epoch, .. } if confirmed => {
                self.fence = Fence::Closed { epoch };
                self.guard.asked = None;
                if self.end(now).is_none() {
                    self.guard.armed = None;
                    commands.push(Command::DisarmGuard);
                }
            }
            // The lease of this epoch came back meanwhile: what was closed in part is opened again.
            Fence::Closing { epoch, .. } if epoch == self.epoch() && self.end(now).is_some() => {
                self.fence = Fence::Closed { epoch };
            }
            Fence::Closing { epoch, confirm_by, hard: false } => {
                self.fence = Fence::Closing { epoch, confirm_by, hard: true };
                commands.push(Command::FenceHard);
            }
            Fence::Closing { epoch, hard: true, .. } | Fence::Unconfirmed { epoch, .. } => {
                self.fence = Fence::Unconfirmed { epoch, retry, running: false };
                commands.push(Command::Alert(Alert::FenceUnconfirmed));
            }
            Fence::None | Fence::Open | Fence::Closed { .. } | Fence::Lifting { .. } => {}
        }
        commands.extend(self.settle(now));
        commands
    }

    /// A resource that was opened at this epoch was found closed, though nothing of ours closed it: its database was
    /// restarted and came up closed at rest.
    pub fn closed_seen(&mut self, now: Reading) -> Vec<Command> {
        if self.keeps_open(now) && self.fence == Fence::Open {
            self.fence = Fence::Lifting { retry: Some(now.after(Span::ZERO)) };
        }
        self.settle(now)
    }

    /// The lifting of a self-fence has ended.
    pub fn lifted(&mut self, now: Reading, opened: bool) -> Vec<Command> {
        if let Fence::Lifting { .. } = self.fence {
            self.fence =
                if opened { Fence::Open } else { Fence::Lifting { retry: Some(now.after(Span::from_secs(1))) } };
        }
        self.settle(now)
    }

    /// Whether any commanded fence or quiesce is stored or on its way. However well confirmed, it spares no fence of
    /// this agent's own: what opened since is not known here, and to repeat a fence changes nothing.
    pub fn commanded_is(&mut self, now: Reading, any: bool) -> Vec<Command> {
        self.commanded = any;
        self.settle(now)
    }

    /// Whether a commanded fence of every guarded resource stands, was seen confirmed by this process, and nothing that
    /// opens runs. A fence of this agent's own is then a second look at what is closed: it is given its time.
    pub const fn closed_is(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// A dispatched release: the application has ended for this agent.
    pub fn released(&mut self, now: Reading) -> Vec<Command> {
        self.drop_rights();
        self.terms = None;
        self.storing = None;
        self.store_again = None;
        self.named = None;
        self.guarded = false;
        self.marked.clear();
        self.fresh = false;
        self.touched = false;
        self.led = Epoch(0);
        self.fence = Fence::None;
        self.guard.asked = None;
        self.guard.armed = None;
        let mut commands = vec![Command::DisarmGuard];
        commands.extend(self.settle(now));
        commands
    }

    /// Every guarded resource was seen as standby of the new primary: that ends the self-fence of the older epoch.
    pub fn rejoined(&mut self, now: Reading) -> Vec<Command> {
        if matches!(self.fence, Fence::Closed { epoch } if epoch < self.seen) && !self.is_primary() {
            self.fence = Fence::None;
        }
        self.settle(now)
    }

    /// Whether the probes call the primaries healthy.
    pub const fn healthy_is(&mut self, healthy: bool) {
        self.healthy = healthy;
    }

    /// An answer that names a higher epoch voids the lease at once.
    pub(super) fn see(&mut self, epoch: Epoch) {
        if epoch > self.seen {
            self.seen = epoch;
            self.drop_rights();
        }
    }

    pub(super) fn drop_rights(&mut self) {
        self.sent.clear();
        self.grants.clear();
        self.asked.clear();
        self.promised.clear();
        self.alone = None;
        self.carried = None;
        self.ask_at_once = false;
    }
}
