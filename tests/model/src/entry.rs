//! What is committed.

use std::fmt;

use super::id::{Cluster, Few, MANY, Number, Observer, Ticks};

/// An entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// A coordinator's process begins to observe.
    ObserverStarted {
        /// Which.
        observer: Observer,
        /// Of which start.
        incarnation: u8,
    },
    /// A coordinator has not heard a cluster.
    Vote {
        /// Which coordinator.
        observer: Observer,
        /// Of which start.
        incarnation: u8,
        /// Which cluster.
        cluster: Cluster,
        /// Its number among the words of this start on this cluster.
        number: u8,
        /// For how long it has certainly granted nothing.
        silence: Ticks,
    },
    /// It hears it again.
    Withdraw {
        /// Which coordinator.
        observer: Observer,
        /// Of which start.
        incarnation: u8,
        /// Which cluster.
        cluster: Cluster,
        /// Its number among the words of this start on this cluster.
        number: u8,
    },
    /// The change of primary.
    Decide {
        /// From this epoch to the next.
        epoch: u8,
        /// The new primary.
        to: Cluster,
        /// The newest terms that the proposer knew.
        terms: Number,
        /// Why.
        ground: Ground,
    },
    /// An operator changed something: new terms.
    Change(Change),
    /// The primary's agent has named terms.
    TermsConfirmed {
        /// Which.
        terms: Number,
        /// Whose agent.
        cluster: Cluster,
    },
    /// A step is asked for.
    Intent {
        /// What.
        step: Step,
        /// Where.
        cluster: Cluster,
        /// At which epoch.
        epoch: u8,
    },
    /// A step has succeeded.
    Outcome {
        /// Which intent.
        intent: Number,
    },
    /// All agents have reported after a restoration.
    Recovered {
        /// The highest epoch reported.
        epoch: u8,
        /// Its primary.
        primary: Cluster,
    },
}

/// Why a primary may be changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ground {
    /// These votes stand, by coordinator.
    Lost([Option<Named>; MANY]),
    /// This commanded fence is confirmed.
    Fenced(Number),
}

/// A vote, named. In the protocol its log index names it; here the word that it is, which is as good, since a word is
/// accepted once: so states that differ only in the order of votes are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    /// Of which start of its coordinator.
    pub incarnation: u8,
    /// Which of its words.
    pub number: u8,
}

/// What an operator may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// `failoverAfter`.
    Bound(Ticks),
    /// A cluster is listed.
    List(Cluster),
    /// The second database is guarded.
    GuardSecond,
    /// The voters.
    Voters(Few),
    /// Pause or resume.
    Pause(bool),
}

/// What an agent can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Close everything, and remember it.
    Fence,
    /// Undo of a fence, at the same epoch.
    Unfence,
    /// Open everything as the new primary.
    Promote,
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ObserverStarted { observer, incarnation } => write!(formatter, "start {incarnation} of {observer}"),
            Self::Vote { observer, cluster, number, silence, .. } => {
                write!(formatter, "vote {number} of {observer} on {cluster}, silent for {silence}")
            }
            Self::Withdraw { observer, cluster, number, .. } => {
                write!(formatter, "withdrawal {number} of {observer} on {cluster}")
            }
            Self::Decide { epoch, to, terms, ground } => {
                let next = epoch + 1;
                write!(formatter, "decision for {to} at epoch {next} under terms {terms}, ")?;
                match ground {
                    Ground::Lost(votes) => {
                        formatter.write_str("lost by votes")?;
                        let named = Observer::ALL.into_iter().filter_map(|one| Some((one, votes[one.at()]?)));
                        for (observer, vote) in named {
                            write!(formatter, " {} of {observer}", vote.number)?;
                        }
                        Ok(())
                    }
                    Ground::Fenced(intent) => write!(formatter, "fenced by intent {intent}"),
                }
            }
            Self::Change(change) => change.fmt(formatter),
            Self::TermsConfirmed { terms, cluster } => write!(formatter, "confirmation of terms {terms} by {cluster}"),
            Self::Intent { step, cluster, epoch } => write!(formatter, "intent to {step} {cluster} at epoch {epoch}"),
            Self::Outcome { intent } => write!(formatter, "success of intent {intent}"),
            Self::Recovered { epoch, primary } => {
                write!(formatter, "recovery: {primary} was primary of {epoch} and stays it at {}", epoch + 1)
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(bound) => write!(formatter, "failoverAfter becomes {bound} ticks"),
            Self::List(cluster) => write!(formatter, "{cluster} is listed"),
            Self::GuardSecond => formatter.write_str("the second database is guarded"),
            Self::Voters(voters) => {
                formatter.write_str("voters become")?;
                voters.iter().try_for_each(|one| write!(formatter, " {}", Observer(one)))
            }
            Self::Pause(true) => formatter.write_str("pause"),
            Self::Pause(false) => formatter.write_str("end of the pause"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fence => "fence",
            Self::Unfence => "unfence",
            Self::Promote => "promote",
        })
    }
}
