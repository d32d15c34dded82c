//! The blast-radius limit: how many automatic failovers may begin in a while, over all applications.
//!
//! Each failover is decided by itself, on its own evidence. If something that all of them rest on is wrong (a release, a
//! network that shows us what is not so), they may all begin one after the other. So what begins by itself is counted,
//! and beyond the limit a human looks first.
//!
//! What is counted are *events*, not applications: all applications that leave one cluster because a majority has lost
//! it are one event, since a region that is lost takes all of its primaries with it and all of them must go. Everything
//! else counts by itself. By default half of the applications, at least [`SMALLEST`], within [`WINDOW`]. `regentctl ack
//! --all` begins the count anew.

use serde::{Deserialize, Serialize};

use crate::entry::Ground;
use crate::id::{ApplicationId, ClusterId};
use crate::state::State;
use crate::time::{Span, Timestamp};
use crate::why::Rule;

/// The default never is lower.
pub const SMALLEST: u32 = 2;
/// Within which they are counted, unless the group says otherwise.
pub const WINDOW: Span = Span::from_secs(3600);
/// Longest window that can be asked for.
pub const LONGEST_WINDOW: Span = Span::from_secs(7 * 86_400);
/// How many beginnings are remembered at most.
const REMEMBERED: usize = 1024;

/// The group's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limit {
    /// At most so many events; none: half of the applications, at least [`SMALLEST`].
    pub events: Option<u32>,
    /// Within this time; none: [`WINDOW`].
    pub window: Option<Span>,
}

/// An automatic failover that began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// When, by the proposer's wall clock.
    pub at: Timestamp,
    /// Of which application.
    pub application: ApplicationId,
    /// The cluster that was left because a majority had lost it; none: for another reason.
    pub lost: Option<ClusterId>,
}

/// What the limit is now.
#[must_use]
pub fn limit(state: &State) -> (u32, Span) {
    let half = u32::try_from(state.applications.len().div_ceil(2)).unwrap_or(u32::MAX);
    (state.limit.events.unwrap_or(half.max(SMALLEST)), state.limit.window.unwrap_or(WINDOW))
}

/// The rule that forbids one more, if any. `lost` is the cluster that would be left because a majority has lost it.
#[must_use]
pub fn exceeded(state: &State, application: &ApplicationId, lost: Option<&ClusterId>, wall: Timestamp) -> Option<Rule> {
    let (events, window) = limit(state);
    let recent: Vec<&Begun> = state.begun.iter().filter(|begun| wall.since(begun.at) < window).collect();
    let same = |begun: &&&Begun| lost.is_some() && begun.lost.as_ref() == lost;
    if recent.iter().any(|begun| same(&begun)) {
        return None;
    }
    let mut counted: Vec<&Begun> = Vec::new();
    for begun in recent {
        if begun.lost.is_none() || !counted.iter().any(|known| known.lost == begun.lost) {
            counted.push(begun);
        }
    }
    let names: Vec<&str> = counted.iter().map(|begun| begun.application.as_str()).collect();
    (counted.len() >= usize::try_from(events).unwrap_or(usize::MAX)).then(|| Rule {
        code: "blast-radius".to_owned(),
        detail: format!(
            "{} automatic failovers began within {window} ({}), and the limit is {events}: look whether {application} should \
             move, then `regentctl ack --all`",
            counted.len(),
            names.join(", ")
        ),
    })
}

/// Takes note of one that began; what is too old to count is forgotten.
pub(crate) fn note(state: &mut State, application: &ApplicationId, lost: Option<&ClusterId>, at: Timestamp) {
    let (_, window) = limit(state);
    state.begun.retain(|begun| at.since(begun.at) < window);
    state.begun.push_back(Begun { at, application: application.clone(), lost: lost.cloned() });
    while state.begun.len() > REMEMBERED {
        state.begun.pop_front();
    }
}

/// A decision that begins an automatic failover; those on fences were begun by a run before.
pub(crate) const fn begins(ground: &Ground) -> bool {
    match ground {
        Ground::Lost { .. } => true,
        Ground::Fenced { .. } | Ground::Switched { .. } | Ground::Forced { .. } | Ground::Recovered => false,
    }
}
