//! Votes and withdrawals: numbered, so that late, doubled and overtaking ones do nothing (safety.md, "The quorum
//! lease").

use super::Ballot;
use super::apply::{Applying, ignored, refused};
use crate::effect::Effect;
use crate::id::{ClusterId, CoordinatorId, Incarnation, VoteNumber};
use crate::state::{Applied, StandingVote};
use crate::time::Span;

/// Who says it, and its number.
pub(super) struct Word<'a> {
    pub(super) observer: CoordinatorId,
    pub(super) incarnation: Incarnation,
    pub(super) cluster: &'a ClusterId,
    pub(super) number: VoteNumber,
}

/// A process begins to observe. What its older incarnations still have in flight has no effect behind this entry;
/// what of theirs stands goes on standing until the new one withdraws it.
pub(super) fn observer_started(
    applying: &mut Applying<'_>,
    observer: CoordinatorId,
    incarnation: Incarnation,
) -> Applied {
    let known = applying.state.observers.get(&observer).copied().unwrap_or_default();
    if incarnation == known {
        return ignored("this incarnation has started before");
    }
    if incarnation < known {
        return refused("old-incarnation", format!("coordinator {observer} has started as {known} before"));
    }
    applying.state.observers.insert(observer, incarnation);
    applying.done()
}

pub(super) fn vote(applying: &mut Applying<'_>, word: &Word<'_>, silence: Span) -> Applied {
    if let Some(why) = overtaken(applying, word) {
        return ignored(why);
    }
    let standing = StandingVote { index: applying.index, silence, at: applying.at };
    record(applying, word, Some(standing));
    let effect = Effect::VoteStands { cluster: word.cluster.clone(), observer: word.observer, index: applying.index };
    applying.effects.push(effect);
    let detail = format!("{} not heard for {silence}", word.cluster);
    applying.audit("vote", None, None, &format!("coordinator {}", word.observer), detail);
    applying.done()
}

pub(super) fn withdraw(applying: &mut Applying<'_>, word: &Word<'_>) -> Applied {
    if let Some(why) = overtaken(applying, word) {
        return ignored(why);
    }
    record(applying, word, None);
    applying.effects.push(Effect::VoteWithdrawn { cluster: word.cluster.clone(), observer: word.observer });
    let detail = format!("{} is heard again", word.cluster);
    applying.audit("withdraw", None, None, &format!("coordinator {}", word.observer), detail);
    applying.done()
}

fn overtaken(applying: &Applying<'_>, word: &Word<'_>) -> Option<&'static str> {
    if applying.state.observers.get(&word.observer) != Some(&word.incarnation) {
        return Some("another incarnation of this observer has started");
    }
    let ballot = applying.state.votes.get(word.cluster).and_then(|ballots| ballots.get(&word.observer))?;
    let old = ballot.incarnation == word.incarnation && word.number <= ballot.number;
    old.then_some("not above the last number")
}

fn record(applying: &mut Applying<'_>, word: &Word<'_>, standing: Option<StandingVote>) {
    let ballots = applying.state.votes.entry(word.cluster.clone()).or_default();
    ballots.insert(word.observer, Ballot { incarnation: word.incarnation, number: word.number, standing });
}
