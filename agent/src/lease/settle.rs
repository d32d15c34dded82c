//! What follows from the facts: the one place where commands are derived.

use std::collections::BTreeSet;

use regent_core::application::OnCoordinatorLoss;
use regent_core::id::{ClusterId, Epoch, Token};
use regent_core::planted::{self, Mistake};
use regent_core::time::Span;

use crate::lease::{Arm, Command, Deadline, Fence, IN_FLIGHT, Lease, Question, Reading, Right, majority};

/// The lease is given up so much before its end that the fence has begun when the guard's deadline comes.
const LARGEST_LEAD: Span = Span::from_millis(250);
/// What the guard has not acknowledged by then is asked again: it may not have been able to write its file.
const ASKED_AGAIN: Span = Span::from_millis(400);
/// What the gentle fence may take where commanded fences were seen confirmed and keep everything closed.
const SECOND_LOOK: Span = Span::from_secs(10);

impl Lease {
    pub(super) fn settle(&mut self, now: Reading) -> Vec<Command> {
        let mut commands = Vec::new();
        self.begin_to_lead(now);
        self.note_opening(now);
        self.fence_without_lease(now, &mut commands);
        self.go_hard(now, &mut commands);
        self.arm(now, &mut commands);
        self.name(now, &mut commands);
        self.lift(now, &mut commands);
        self.ask(now, &mut commands);
        self.store_again(now, &mut commands);
        if let Some(end) = self.end(now) {
            self.last_end = Some(end);
        }
        commands
    }

    /// When the state changes next by time alone; none if only an event can change it.
    #[must_use]
    pub fn next_change(&self, now: Reading) -> Option<Span> {
        let end = self.end(now);
        let lapse = end.map(|end| end.minus(self.lead()));
        // Only what would be acted on: a deadline that has passed and is nobody's would be looked at without a rest.
        let fence = match self.fence {
            Fence::Closing { confirm_by, hard: false, .. } if end.is_none() => Some(confirm_by),
            Fence::Unconfirmed { retry, running: false, .. } if end.is_none() => Some(retry),
            Fence::Lifting { retry: Some(retry) } if end.is_some() && self.guard.alive && !self.commanded => {
                Some(retry)
            }
            Fence::None | Fence::Open | Fence::Closing { .. } | Fence::Closed { .. } => None,
            Fence::Unconfirmed { .. } | Fence::Lifting { .. } => None,
        };
        lapse.into_iter().chain(fence).chain(self.store_again).map(|deadline| deadline.left_for_holder(now)).min()
    }

    pub(super) fn lead(&self) -> Span {
        self.terms.as_ref().map_or(Span::ZERO, |terms| terms.bound.fence_budget.divided(8).min(LARGEST_LEAD))
    }

    pub(super) fn grants_end(&self) -> Option<Deadline> {
        let terms = self.terms.as_ref()?;
        majority(&terms.voters, &self.grants).map(Right::until)
    }

    /// The end of the lease in force: never beyond the rights, never beyond what the guard acknowledged.
    pub(super) fn rights_end(&self, now: Reading) -> Option<Deadline> {
        if !self.leads() {
            return None;
        }
        let right = self.best_right(now)?;
        let armed = self.guard.armed.filter(|arm| arm.epoch == self.epoch() && !arm.early)?;
        Some(right.until().earlier(armed.until))
    }

    /// Primary of the newest stored epoch, and guarded for it.
    fn leads(&self) -> bool {
        self.is_primary() && self.guarded && self.led == self.epoch()
    }

    /// The right that runs longest: a majority's grants, all others' promises, or what was carried over. None once
    /// it is within the lead of its end.
    pub(super) fn best_right(&self, now: Reading) -> Option<Right> {
        let carried = self.carried.filter(|_| self.is_primary());
        let runs = |right: &Right| !right.until().minus(self.lead()).passed(now);
        self.own_right().into_iter().chain(carried).filter(runs).max_by_key(|right| right.until())
    }

    /// The right by the stored terms alone.
    fn own_right(&self) -> Option<Right> {
        let terms = self.terms.as_ref().filter(|_| self.is_primary())?;
        let granted = majority(&terms.voters, &self.grants);
        [granted, self.all_promises()].into_iter().flatten().max_by_key(|right| right.until())
    }

    /// The weakest promise of all that must promise; none if one is missing.
    fn all_promises(&self) -> Option<Right> {
        let terms = self.terms.as_ref()?;
        if terms.on_coordinator_loss != OnCoordinatorLoss::Failsafe {
            return None;
        }
        let others = self.others();
        if others.is_empty() {
            return self.alone;
        }
        let mut weakest: Option<Right> = None;
        for cluster in &others {
            let right = *self.promised.get(cluster)?;
            weakest = Some(weakest.filter(|weakest| weakest.until() <= right.until()).unwrap_or(right));
        }
        weakest
    }

    /// Every other listed cluster that could be promoted: not excluded, with an agent registered. One that is missing
    /// from the stored terms is no target until this agent has confirmed terms that list it.
    fn others(&self) -> BTreeSet<ClusterId> {
        let Some(terms) = self.terms.as_ref() else { return BTreeSet::new() };
        let eligible = terms
            .clusters
            .iter()
            .filter(|(cluster, listed)| **cluster != self.cluster && !listed.excluded && listed.installation.is_some());
        eligible.map(|(cluster, _)| cluster.clone()).collect()
    }

    /// What is stored alone opens and closes nothing: the lease begins once the guard counts in earnest. A primary
    /// that never had one is left as it is, until a higher epoch is seen.
    fn begin_to_lead(&mut self, now: Reading) {
        if !self.fresh {
            return;
        }
        if self.end(now).is_some() {
            self.fresh = false;
            // A database that was restarted since its marker was written came up closed: opening is idempotent.
            self.fence = Fence::Lifting { retry: Some(now.after(Span::ZERO)) };
        } else if !self.leads() {
            self.fresh = false;
            self.fence = Fence::Open;
        }
    }

    /// What a step opens under the lease is open from its beginning on: a lapse fences it, however well closed
    /// everything was before.
    fn note_opening(&mut self, now: Reading) {
        self.touched |= self.opening && self.running(now).is_some();
        if self.touched && matches!(self.fence, Fence::None | Fence::Closed { .. } | Fence::Unconfirmed { .. }) {
            self.touched = false;
            self.fence = Fence::Open;
        }
    }

    fn store_again(&mut self, now: Reading, commands: &mut Vec<Command>) {
        if self.store_again.is_some_and(|again| again.passed(now)) {
            self.store_again = None;
            commands.extend(self.storing.clone().map(|terms| Command::StoreTerms(Box::new(terms))));
        }
    }

    fn fence_without_lease(&mut self, now: Reading, commands: &mut Vec<Command>) {
        if !matches!(self.fence, Fence::Open | Fence::Lifting { .. }) || self.end(now).is_some() {
            return;
        }
        // In a pause that is in force the agent does not fence; a higher epoch ends the pause with the lease.
        let void = self.seen > self.led;
        if self.pause_in_force && !void {
            self.last_end = None;
            return;
        }
        let epoch = self.led;
        let budget = self.terms.as_ref().map_or(Span::ZERO, |terms| terms.bound.fence_budget);
        let lapse = now.after(Span::ZERO);
        let lapse = self.last_end.take().map_or(lapse, |end| end.earlier(lapse));
        // No promise rests on how soon a closed database is seen closed again, and to end it hard because a busy machine
        // is late would cost it its clean end.
        let gentle = if self.closed && !self.opening { SECOND_LOOK.max(budget) } else { budget.divided(2) };
        let confirm_by = lapse.plus(gentle);
        self.touched = false;
        self.fence = Fence::Closing { epoch, confirm_by, hard: false };
        self.guard.asked = None;
        self.guard.armed = None;
        commands.push(Command::MoveGuard { until: confirm_by });
        commands.push(Command::FenceSelf { confirm_by });
    }

    fn go_hard(&mut self, now: Reading, commands: &mut Vec<Command>) {
        if self.end(now).is_some() {
            return;
        }
        match self.fence {
            Fence::Closing { epoch, confirm_by, hard: false } if confirm_by.passed(now) => {
                self.fence = Fence::Closing { epoch, confirm_by, hard: true };
                commands.push(Command::FenceHard);
            }
            Fence::Unconfirmed { epoch, retry, running: false } if retry.passed(now) => {
                self.fence = Fence::Unconfirmed { epoch, retry, running: true };
                commands.push(Command::FenceHard);
            }
            Fence::None | Fence::Open | Fence::Closing { .. } | Fence::Closed { .. } => {}
            Fence::Unconfirmed { .. } | Fence::Lifting { .. } => {}
        }
    }

    fn arm(&mut self, now: Reading, commands: &mut Vec<Command>) {
        let right = self.best_right(now);
        let (number, paused) = match self.terms.as_ref().filter(|_| self.is_primary()) {
            Some(terms) if right.is_some() || (terms.paused && self.leads()) => (terms.number, terms.paused),
            _ => {
                // The first lease never came, or came and went, perhaps while it was written that this cluster leads;
                // or everything is closed. There is nothing that the guard should end.
                if matches!(self.fence, Fence::None | Fence::Closed { .. }) {
                    self.disarm(commands);
                }
                return;
            }
        };
        // A fence of an older epoch ends first: the guard counts once for an application.
        let epoch = self.epoch();
        let ends = matches!(
            self.fence,
            Fence::Closing { epoch: older, .. } | Fence::Unconfirmed { epoch: older, .. } if older != epoch
        );
        // What cannot be fenced is not led: the lease that runs ends, and none begins.
        if !self.guard.alive || ends || !self.missing().is_empty() {
            return;
        }
        let until = right.map_or_else(Deadline::default, Right::until);
        let span = right.map_or(Span::ZERO, |right| right.span);
        let wanted = Arm { epoch, terms: number, until, span, paused, early: !self.leads() };
        let waits = self.guard.asked.is_some_and(|(_, at)| now.held_since(at) < ASKED_AGAIN);
        if !waits && (self.guard.armed != Some(wanted) || !self.guard.confirmed) {
            self.guard.asked = Some((wanted, now));
            commands.push(Command::ArmGuard(wanted));
        }
        if right.is_some() && !self.writing {
            self.write_guarded(now, epoch, number, commands);
        }
    }

    /// With the guard armed: for the first lease of an epoch everything, and under a running lease what newer terms
    /// guard beside it. A database that was added is open as it was found; until it is closed at rest, a start of it
    /// after a lapse would come up open, and a target that counts on it must not be promoted.
    fn write_guarded(&mut self, now: Reading, epoch: Epoch, number: Token, commands: &mut Vec<Command>) {
        let counts = |arm: Arm| arm.epoch == epoch && !arm.until.passed(now);
        let Some(armed) = self.guard.armed.filter(|arm| counts(*arm) && self.guard.confirmed) else { return };
        let resources = if !self.leads() {
            self.terms.as_ref().map(|terms| terms.guarded.clone()).unwrap_or_default()
        } else if armed.terms == number {
            self.unmarked()
        } else {
            return;
        };
        if !self.leads() || !resources.is_empty() {
            self.writing = true;
            commands.push(Command::WriteGuarded { epoch, resources });
        }
    }

    fn disarm(&mut self, commands: &mut Vec<Command>) {
        if self.guard.asked.take().is_some() | self.guard.armed.take().is_some() {
            commands.push(Command::DisarmGuard);
        }
    }

    /// Only after fsync, with running grants recalculated, with the guard armed by these very terms, and with everything
    /// that they guard marked and closed at rest.
    fn name(&mut self, now: Reading, commands: &mut Vec<Command>) {
        let Some(terms) = self.terms.as_ref() else { return };
        let (number, paused) = (terms.number, terms.paused);
        let counted = self.guard.armed.is_some_and(|arm| arm.terms == number && arm.paused == paused);
        let guarded = self.guard.alive && self.guard.confirmed && counted;
        if !self.leads() || !guarded || self.named == Some(number) {
            return;
        }
        if !self.missing().is_empty() || !self.unmarked().is_empty() {
            return;
        }
        // Once they are named, older ones may count no more: nothing that rests on those may outlast the lease that these
        // terms give by themselves. In a pause nothing is decided.
        let own = self.own_right().map(Right::until);
        let theirs = own.is_some_and(|own| self.carried.is_none_or(|carried| carried.until() <= own));
        if paused || (theirs && self.end(now).is_some()) {
            if theirs {
                self.carried = None;
            }
            self.named = Some(number);
            self.pause_in_force = paused;
            commands.push(Command::NameTerms(number));
            commands.push(Command::Heartbeat);
        }
    }

    fn lift(&mut self, now: Reading, commands: &mut Vec<Command>) {
        if self.end(now).is_none() || !self.guard.alive || self.commanded {
            return;
        }
        let due = match self.fence {
            Fence::Closed { epoch } | Fence::Unconfirmed { epoch, running: false, .. } => epoch == self.epoch(),
            Fence::Lifting { retry: Some(retry) } => retry.passed(now),
            Fence::None | Fence::Open | Fence::Closing { .. } => false,
            Fence::Unconfirmed { .. } | Fence::Lifting { retry: None } => false,
        };
        if due {
            self.fence = Fence::Lifting { retry: None };
            if !planted::makes(Mistake::FenceNeverLifted) {
                commands.push(Command::LiftSelfFence);
            }
        }
    }

    /// From D/4 without a majority of fresh grants, at every heartbeat, while the lease runs and the probes call the
    /// primaries healthy.
    fn ask(&mut self, now: Reading, commands: &mut Vec<Command>) {
        let Some(terms) = self.terms.as_ref() else { return };
        let unasked = planted::makes(Mistake::FailsafeUnasked);
        if unasked
            || terms.on_coordinator_loss != OnCoordinatorLoss::Failsafe
            || !self.healthy
            || self.end(now).is_none()
        {
            return;
        }
        let granted = majority(&terms.voters, &self.grants).map(|right| right.from);
        if granted.is_some() {
            self.ask_at_once = false;
        }
        let quiet = granted
            .max(self.carried.map(|right| right.from))
            .is_none_or(|from| now.held_since(from) >= terms.bound.suspicion());
        let due = self.last_asked.is_none_or(|asked| now.held_since(asked) >= terms.bound.heartbeat());
        if !due || !(quiet || self.ask_at_once) {
            return;
        }
        let number = self.next_question;
        let question = Question {
            number,
            epoch: terms.epoch,
            terms: terms.number,
            fail_over_after: terms.bound.fail_over_after,
            clusters: self.others(),
        };
        let right = Right { from: now, span: terms.bound.lease() };
        self.next_question += 1;
        self.last_asked = Some(now);
        if question.clusters.is_empty() {
            if self.doubled.is_some_and(|refused| granted.is_none_or(|from| from <= refused)) {
                return;
            }
            self.alone = Some(right);
            return self.arm(now, commands);
        }
        self.asked.insert(number, right);
        while self.asked.len() > IN_FLIGHT {
            self.asked.pop_first();
        }
        commands.push(Command::AskPromises(question));
    }
}
