//! The replicated state, and what each entry makes of it: grounds are checked here, whoever proposed them.

use super::entry::{Change, Entry, Ground, Named, Step};
use super::id::{Cluster, Few, MANY, Number, Observer, Ticks};
use super::mistake::Mistake;
use super::terms::{Terms, Window};

/// What is known to whoever has applied the same entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// How often it was restored from a backup.
    pub restoration: u8,
    /// The last entry with an effect.
    pub index: u8,
    /// Of the application.
    pub epoch: u8,
    /// Its primary.
    pub primary: Cluster,
    /// Decided on the ground of a commanded fence.
    pub by_fence: bool,
    /// What the present primary may open.
    pub promotable: Few,
    /// From the last confirmed to the newest.
    pub terms: Vec<Terms>,
    /// The first of them is confirmed.
    pub confirmed: bool,
    /// The start of each coordinator that counts.
    pub observers: [u8; MANY],
    /// By cluster and coordinator.
    pub ballots: [[Ballot; MANY]; MANY],
    /// Steps that were asked for.
    pub intents: Vec<Intent>,
    /// Restored, and not all agents have reported: no grant and no decision.
    pub recovering: bool,
}

/// The last word of a coordinator on a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ballot {
    /// Of which start.
    pub incarnation: u8,
    /// Its number.
    pub number: u8,
    /// The vote, if it is one.
    pub standing: Option<Standing>,
    /// Numbers that were seen; kept only where a mistake needs it.
    seen: Few,
}

/// A vote that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// What it says; forgotten where no coordinator restarts.
    pub silence: Ticks,
}

/// A step that was asked for. Its number is the fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Intent {
    /// The entry.
    pub number: Number,
    /// What.
    pub step: Step,
    /// Where.
    pub cluster: Cluster,
    /// At which epoch.
    pub epoch: u8,
    /// Its success is committed.
    pub done: bool,
}

impl Group {
    /// Applies an entry; false if it has no effect.
    pub fn apply(&mut self, entry: &Entry, mistake: Option<Mistake>) -> bool {
        let restoration = if mistake == Some(Mistake::IndexReused) { 0 } else { self.restoration };
        let number = Number { restoration, index: self.newest().number.index + 1 };
        let token = Number { restoration, index: self.intents.last().map_or(0, |last| last.number.index) + 1 };
        let effect = match *entry {
            Entry::ObserverStarted { observer, incarnation } => self.start(observer, incarnation),
            Entry::Vote { observer, incarnation, cluster, number: word, silence } => {
                let standing = Some(Standing { silence });
                self.word(observer, cluster, Ballot { incarnation, number: word, standing, seen: Few(0) }, mistake)
            }
            Entry::Withdraw { observer, incarnation, cluster, number: word } => self.word(
                observer,
                cluster,
                Ballot { incarnation, number: word, standing: None, seen: Few(0) },
                mistake,
            ),
            Entry::Decide { epoch, to, terms, ref ground } => {
                let valid = epoch == self.epoch && self.accepts(to, terms, ground, mistake);
                if valid {
                    self.decide(number, to, ground, mistake);
                }
                valid
            }
            Entry::Change(change) => self.change(number, change),
            Entry::TermsConfirmed { terms, cluster } => self.confirm(terms, cluster),
            Entry::Intent { step, cluster, epoch } => self.intend(token, step, cluster, epoch, mistake),
            Entry::Outcome { intent } => self.succeed(intent),
            Entry::Recovered { epoch, primary } => self.recover(number, epoch, primary, mistake),
        };
        if effect {
            self.index += 1;
        }
        effect
    }

    /// The newest terms. A group without terms does not exist.
    #[must_use]
    pub fn newest(&self) -> &Terms {
        &self.terms[self.terms.len() - 1]
    }

    /// What the primary's agent may count by.
    #[must_use]
    pub fn window(&self, mistake: Option<Mistake>) -> Window<'_> {
        Window::new(&self.terms, mistake)
    }

    /// A coordinator's standing vote.
    #[must_use]
    pub const fn standing(&self, cluster: Cluster, observer: Observer) -> Option<Standing> {
        self.ballots[cluster.0 as usize][observer.0 as usize].standing
    }

    /// The fence on which a decision may rest: commanded at this epoch, confirmed, and nothing touched it since.
    #[must_use]
    pub fn fence(&self) -> Option<Number> {
        let last = self.intents.iter().rev().find(|intent| intent.cluster == self.primary)?;
        (last.step == Step::Fence && last.epoch == self.epoch && last.done).then_some(last.number)
    }

    /// The name of a coordinator's standing vote.
    #[must_use]
    pub fn vote(&self, cluster: Cluster, observer: Observer) -> Option<Named> {
        let ballot = self.ballots[cluster.at()][observer.at()];
        ballot.standing.map(|_| Named { incarnation: ballot.incarnation, number: ballot.number })
    }

    /// A coordinator has voted long ago, and nothing was heard since.
    pub fn stand(&mut self, cluster: Cluster, observer: Observer, silence: Ticks) {
        let seen = Few(0).with(1);
        let standing = Some(Standing { silence });
        self.ballots[cluster.at()][observer.at()] = Ballot { incarnation: 1, number: 1, standing, seen };
    }

    /// Leaves out what only a coordinator that restarts would ask for.
    pub fn forget_silence(&mut self) {
        for ballot in self.ballots.iter_mut().flatten() {
            ballot.standing = ballot.standing.map(|_| Standing { silence: 0 });
        }
    }

    fn start(&mut self, observer: Observer, incarnation: u8) -> bool {
        let known = &mut self.observers[observer.at()];
        let newer = incarnation > *known;
        *known = incarnation.max(*known);
        newer
    }

    /// Entries of older incarnations behind a start, and numbers not above the last, have no effect.
    fn word(&mut self, observer: Observer, cluster: Cluster, mut ballot: Ballot, mistake: Option<Mistake>) -> bool {
        if self.observers[observer.at()] != ballot.incarnation {
            return false;
        }
        let known = self.ballots[cluster.at()][observer.at()];
        let same = known.incarnation == ballot.incarnation;
        let old = match mistake {
            Some(Mistake::DoubledVote) => known.standing.is_some() == ballot.standing.is_some(),
            Some(Mistake::WithdrawalOvertakesVote) => {
                let seen = if same { known.seen } else { Few(0) };
                ballot.seen = seen.with(ballot.number);
                seen.has(ballot.number)
            }
            Some(Mistake::SharedNumbers) => {
                let others = self.ballots.iter().map(|of_cluster| of_cluster[observer.at()]);
                others
                    .filter(|other| other.incarnation == ballot.incarnation)
                    .any(|other| ballot.number <= other.number)
            }
            Some(_) | None => same && ballot.number <= known.number,
        };
        if old {
            return false;
        }
        self.ballots[cluster.at()][observer.at()] = ballot;
        true
    }

    fn accepts(&self, to: Cluster, terms: Number, ground: &Ground, mistake: Option<Mistake>) -> bool {
        let across = mistake == Some(Mistake::DecideAcrossTerms);
        let newest = self.newest().number == terms || across;
        // By mistake it is judged by the terms that it names, whatever came later.
        let named = self.terms.iter().take_while(|known| !across || known.number <= terms).count();
        let window = Window::new(&self.terms[..named], mistake);
        if !newest || self.recovering || !self.confirmed || window.is_paused() {
            return false;
        }
        if to == self.primary || !window.lists(to) {
            return false;
        }
        match ground {
            Ground::Lost(votes) => window.is_majority(self.still_standing(votes, mistake)),
            Ground::Fenced(intent) => self.fence() == Some(*intent),
        }
    }

    /// Those of the named votes that stand; if one of them does not, none.
    fn still_standing(&self, votes: &[Option<Named>; MANY], mistake: Option<Mistake>) -> Few {
        let mut observers = Few(0);
        for observer in Observer::ALL {
            let standing = self.vote(self.primary, observer);
            if mistake == Some(Mistake::DecideWithoutNamedVotes) {
                observers = if standing.is_some() { observers.with(observer.0) } else { observers };
            } else if let Some(named) = votes[observer.at()] {
                if standing != Some(named) {
                    return Few(0);
                }
                observers = observers.with(observer.0);
            }
        }
        observers
    }

    /// The side that was left is excluded in the same entry.
    fn decide(&mut self, number: Number, to: Cluster, ground: &Ground, mistake: Option<Mistake>) {
        self.promotable = self.window(mistake).promotable();
        self.epoch += 1;
        let left = self.primary;
        self.primary = to;
        self.by_fence = matches!(ground, Ground::Fenced(_));
        let clusters = self.newest().clusters.without(left.0);
        self.terms.push(Terms { number, epoch: self.epoch, primary: to, clusters, ..*self.newest() });
    }

    fn change(&mut self, number: Number, change: Change) -> bool {
        let mut terms = Terms { number, ..*self.newest() };
        match change {
            Change::Bound(bound) => terms.bound = bound,
            Change::List(cluster) => terms.clusters = terms.clusters.with(cluster.0),
            Change::GuardSecond => terms.resources = terms.resources.with(1),
            Change::Voters(voters) => terms.voters = voters,
            Change::Pause(paused) => terms.paused = paused,
        }
        let changed = Terms { number, ..*self.newest() } != terms;
        if changed {
            self.terms.push(terms);
        }
        changed
    }

    fn confirm(&mut self, terms: Number, cluster: Cluster) -> bool {
        let Some(at) = self.terms.iter().position(|known| known.number == terms && known.primary == cluster) else {
            return false;
        };
        let news = cluster == self.primary && (at > 0 || !self.confirmed);
        if news {
            self.terms.drain(..at);
            self.confirmed = true;
        }
        news
    }

    /// A whole-application step. A fence only with an eligible target; an undo only before the decision.
    fn intend(&mut self, number: Number, step: Step, cluster: Cluster, epoch: u8, mistake: Option<Mistake>) -> bool {
        let last = self.intents.iter().rev().find(|intent| intent.cluster == cluster);
        let fenced = last.is_some_and(|last| last.step == Step::Fence && last.epoch == epoch);
        let here = epoch == self.epoch && cluster == self.primary && !self.recovering;
        let valid = match step {
            Step::Fence => here && !fenced,
            Step::Unfence => fenced && (here || mistake == Some(Mistake::UndoAfterDecide)),
            Step::Promote => here && last.is_none_or(|last| last.step != Step::Promote || last.epoch != epoch),
        };
        if valid {
            self.intents.push(Intent { number, step, cluster, epoch, done: false });
        }
        valid
    }

    fn succeed(&mut self, number: Number) -> bool {
        let intent = self.intents.iter_mut().find(|intent| intent.number == number && !intent.done);
        let news = intent.is_some();
        intent.into_iter().for_each(|intent| intent.done = true);
        news
    }

    /// The cluster that was primary of the highest epoch stays it, above that epoch. Nothing is confirmed.
    fn recover(&mut self, number: Number, epoch: u8, primary: Cluster, mistake: Option<Mistake>) -> bool {
        if !self.recovering {
            return false;
        }
        self.recovering = false;
        self.confirmed = false;
        self.epoch = epoch + 1;
        if mistake != Some(Mistake::BackupsPrimary) {
            self.primary = primary;
        }
        let terms = Terms { number, epoch: self.epoch, primary: self.primary, ..*self.newest() };
        self.terms = vec![terms];
        true
    }
}

impl Entry {
    /// For the log only: an entry that every coordinator ignores is left out of the model's log.
    #[must_use]
    pub fn has_effect(&self, group: &Group, mistake: Option<Mistake>) -> bool {
        group.clone().apply(self, mistake)
    }
}
