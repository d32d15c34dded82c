//! A coordinator as an observer: what it grants, and when it votes (safety.md, "The quorum lease").

use super::entry::Entry;
use super::group::Group;
use super::id::{Cluster, MANY, Observer, SUSPICION, Ticks};
use super::mistake::Mistake;

/// One coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    /// Its process runs.
    pub up: bool,
    /// It lost its disk and takes part under its old id.
    pub wiped: bool,
    /// Of its process.
    pub incarnation: u8,
    /// It may grant and vote.
    pub started: bool,
    /// What it has applied.
    pub view: Group,
    /// Since its process began.
    pub running: Ticks,
    /// Since it applied the present epoch.
    pub at_epoch: Ticks,
    /// By cluster.
    pub watches: [Watch; MANY],
    /// If it may lead: the silence that a standing vote names and the time since it was applied here, by cluster and
    /// coordinator.
    pub waited: [[Ticks; MANY]; MANY],
}

/// What it remembers of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    /// Of its last word.
    pub number: u8,
    /// A word that was proposed and is not applied here.
    pub outstanding: Option<Word>,
    /// The word proposed last.
    pub last: Option<Word>,
    /// Since it last granted.
    pub granted: Ticks,
}

/// A vote or a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    /// Its number.
    pub number: u8,
    /// A vote, with its silence.
    pub vote: Option<Ticks>,
}

/// What a heartbeat is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A receipt: no right.
    Receipt,
    /// A right.
    Grant,
    /// There is a higher epoch.
    Higher(u8),
}

impl Coordinator {
    /// One that has run for long and granted just now.
    #[must_use]
    pub fn new(view: Group, longest: Ticks) -> Self {
        let watch = Watch { number: 0, outstanding: None, last: None, granted: longest };
        Self {
            up: true,
            wiped: false,
            incarnation: 1,
            started: true,
            view,
            running: longest,
            at_epoch: longest,
            watches: [watch; MANY],
            waited: [[0; MANY]; MANY],
        }
    }

    /// A heartbeat of a cluster whose agent knows an epoch.
    pub fn hear(&mut self, me: Observer, cluster: Cluster, epoch: u8, mistake: Option<Mistake>) -> Answer {
        if self.view.epoch > epoch {
            return Answer::Higher(self.view.epoch);
        }
        if self.view.epoch == epoch && self.view.primary == cluster && self.may_grant(me, cluster, mistake) {
            self.watches[cluster.at()].granted = 0;
            return Answer::Grant;
        }
        Answer::Receipt
    }

    fn may_grant(&self, me: Observer, cluster: Cluster, mistake: Option<Mistake>) -> bool {
        let voter = self.view.newest().voters.has(me.0);
        let knows = !self.view.recovering || mistake == Some(Mistake::GrantsWhileRecovering);
        self.up && self.started && voter && knows && self.no_vote_out(me, cluster)
    }

    /// Its applied state holds the entry it proposed last and that is a withdrawal, or it never voted in this
    /// incarnation and nothing of it stands.
    fn no_vote_out(&self, me: Observer, cluster: Cluster) -> bool {
        let ballot = self.view.ballots[cluster.at()][me.at()];
        let holds =
            |word: Word| word.vote.is_none() && ballot.incarnation == self.incarnation && ballot.number == word.number;
        ballot.standing.is_none() && self.watches[cluster.at()].last.is_none_or(holds)
    }

    /// For how long it has certainly granted nothing to the cluster.
    #[must_use]
    pub fn silence(&self, cluster: Cluster) -> Ticks {
        let at_epoch = if self.view.primary == cluster { self.at_epoch } else { Ticks::MAX };
        self.running.min(at_epoch).min(self.watches[cluster.at()].granted)
    }

    /// True if it may vote on the cluster now.
    #[must_use]
    pub fn may_vote(&self, me: Observer, cluster: Cluster, mistake: Option<Mistake>) -> bool {
        let free = match self.watches[cluster.at()].outstanding {
            None => self.view.standing(cluster, me).is_none(),
            Some(word) => word.vote.is_none() && mistake == Some(Mistake::RevoteBeforeWithdrawal),
        };
        self.up && self.started && free && self.silence(cluster) >= SUSPICION
    }

    /// True if it may take its vote back now. The rule allows it only once the vote is applied; here also while it is
    /// in flight, so that more is checked than is done.
    #[must_use]
    pub fn may_withdraw(&self, me: Observer, cluster: Cluster) -> bool {
        let out = match self.watches[cluster.at()].outstanding {
            None => self.view.standing(cluster, me).is_some(),
            Some(word) => word.vote.is_some(),
        };
        self.up && self.started && out
    }

    /// Votes.
    pub fn vote(&mut self, me: Observer, cluster: Cluster) -> Entry {
        let silence = self.silence(cluster);
        let again = self.watches[cluster.at()].outstanding.is_some();
        let entry = self.say(me, cluster, Some(silence));
        if again {
            // Only by mistake: the withdrawal in flight stays its last word.
            let watch = &mut self.watches[cluster.at()];
            watch.last = Some(Word { number: watch.number - 1, vote: None });
            watch.outstanding = watch.last;
        }
        entry
    }

    /// Takes its vote back.
    pub fn withdraw(&mut self, me: Observer, cluster: Cluster) -> Entry {
        self.say(me, cluster, None)
    }

    fn say(&mut self, me: Observer, cluster: Cluster, vote: Option<Ticks>) -> Entry {
        let watch = &mut self.watches[cluster.at()];
        watch.number += 1;
        let word = Word { number: watch.number, vote };
        watch.outstanding = Some(word);
        watch.last = Some(word);
        self.entry(me, cluster, word)
    }

    /// What it has proposed and not seen applied; a retry repeats its number.
    #[must_use]
    pub fn retry(&self, me: Observer, cluster: Cluster) -> Option<Entry> {
        let word = self.watches[cluster.at()].outstanding.filter(|_| self.up && self.started)?;
        Some(self.entry(me, cluster, word))
    }

    const fn entry(&self, observer: Observer, cluster: Cluster, word: Word) -> Entry {
        let incarnation = self.incarnation;
        match word.vote {
            Some(silence) => Entry::Vote { observer, incarnation, cluster, number: word.number, silence },
            None => Entry::Withdraw { observer, incarnation, cluster, number: word.number },
        }
    }

    /// Applies the next entry of the log.
    pub fn apply(&mut self, me: Observer, entry: &Entry, leader: bool, mistake: Option<Mistake>) {
        let epoch = self.view.epoch;
        let primary = self.view.primary;
        if !self.view.apply(entry, mistake) {
            return;
        }
        if let Entry::Vote { cluster, observer, silence, .. } = *entry {
            self.waited[cluster.at()][observer.at()] = if leader { silence } else { 0 };
        }
        if (self.view.epoch, self.view.primary) != (epoch, primary) {
            self.at_epoch = 0;
        }
        if self.view.observers[me.at()] == self.incarnation {
            self.started = true;
        }
        self.settle(me);
    }

    /// Forgets outstanding words that the applied state holds, or that it holds later ones than.
    fn settle(&mut self, me: Observer) {
        for (watch, ballots) in self.watches.iter_mut().zip(&self.view.ballots) {
            let ballot = ballots[me.at()];
            let held = |word: Word| ballot.incarnation == self.incarnation && ballot.number >= word.number;
            if watch.outstanding.is_some_and(held) {
                watch.outstanding = None;
            }
        }
    }

    /// Its process begins anew: what was only in memory is lost, and votes from the disk are as old as their loading.
    /// `started`: only by mistake, without a start of its own.
    pub fn restart(&mut self, longest: Ticks, leader: bool, started: bool) {
        let incarnation = self.incarnation + 1;
        let view = self.view.clone();
        *self = Self { incarnation, started, running: 0, at_epoch: 0, ..Self::new(view, longest) };
        for (waited, ballots) in self.waited.iter_mut().zip(&self.view.ballots).filter(|_| leader) {
            *waited = ballots.map(|ballot| ballot.standing.map_or(0, |standing| standing.silence));
        }
    }

    /// Some time passes.
    pub fn pass(&mut self, longest: Ticks, leader: bool) {
        let older = |age: &mut Ticks| *age = (*age + 1).min(longest);
        older(&mut self.running);
        older(&mut self.at_epoch);
        self.watches.iter_mut().for_each(|watch| older(&mut watch.granted));
        for (of_cluster, ballots) in self.waited.iter_mut().zip(&self.view.ballots) {
            for (age, ballot) in of_cluster.iter_mut().zip(ballots) {
                // Where nothing stands the age means nothing, and would only tell equal states apart.
                *age = if leader && ballot.standing.is_some() { (*age + 1).min(longest) } else { 0 };
            }
        }
    }
}
