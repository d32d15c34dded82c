//! How an attempt at a step ended, and what an operator says of one that is stuck.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is so.
    Succeeded(Report),
    /// It is not so.
    Failed {
        /// Stable code.
        code: String,
        /// For humans, without secrets.
        message: String,
        /// Another attempt may succeed.
        retryable: bool,
    },
}

/// What a successful step measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was done, for humans.
    pub message: String,
    /// Time the driver itself took.
    pub driver: Span,
    /// Position afterwards, in bytes, where the engine has one.
    pub position: Option<u64>,
    /// Timeline afterwards; 0 if the engine has none.
    pub timeline: u64,
    /// Reality already was as asked.
    pub already: bool,
    /// `fence`: the gentle way was not confirmed, and the processes were ended.
    #[serde(default)]
    pub hard: bool,
    /// `redirect`: servers that still gave an old answer, or from which no new one could be had.
    pub stale_answers: Vec<StaleAnswer>,
    /// Steps of a drill: how long the same would take in earnest, where that is not the whole of the step. A promotion
    /// is rehearsed with a copy, and the time of the copying is not its own.
    #[serde(default)]
    pub rehearsed: Option<Span>,
}

/// A server that still gave an old answer, or from which no new one could be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleAnswer {
    /// Its address.
    pub server: String,
    /// For how long after the redirect it was seen to give an old answer; zero if it never was.
    pub lasted: Span,
    /// It gave the new answer when the step ended.
    pub cleared: bool,
    /// False if nothing came back from it when it was last asked; so it was in every uncleared record without this.
    #[serde(default)]
    pub reached: bool,
}

/// An operator's word on a stuck step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clearing {
    /// Try again with a fresh budget of attempts.
    Retry,
    /// It has been done by hand.
    Done,
}
