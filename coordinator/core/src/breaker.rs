//! The breaker: more than half of the clusters, and at least two, lost at once is probably our own blindness. Automatic
//! action freezes until that has been gone for D, or until a human has looked (safety.md, "Evidence").

use std::collections::BTreeSet;

use crate::decide::Viewpoint;
use crate::entry::Entry;
use crate::evidence::Evidence;
use crate::id::ClusterId;
use crate::lease::DEFAULT_FAIL_OVER_AFTER;
use crate::state::State;
use crate::terms::Window;
use crate::verdict::is_lost;

/// The clusters that count: those with an agent in the document of some adopted application. Votes on a cluster that was
/// retired while it stood lost are withdrawn by nobody, and must not freeze the loss of another one years later.
fn counted(state: &State) -> BTreeSet<&ClusterId> {
    let adopted = state.applications.values().filter(|known| known.primary.is_some());
    let listed = adopted.flat_map(|known| &known.document.clusters);
    listed.filter(|cluster| state.agents.contains_key(*cluster)).collect()
}

pub(crate) fn lost_clusters(state: &State) -> BTreeSet<ClusterId> {
    counted(state).into_iter().filter(|cluster| is_lost(state, cluster)).cloned().collect()
}

/// More than half of the clusters, and at least two, lost at once: it is probably us.
fn looks_like_us(state: &State, lost: &BTreeSet<ClusterId>) -> bool {
    lost.len() >= 2 && lost.len() * 2 > counted(state).len()
}

/// The condition itself counts, not only its committed form: in the look that sees it nothing may be decided either.
pub(crate) fn is_frozen(state: &State) -> bool {
    let lost = lost_clusters(state);
    let now = looks_like_us(state, &lost) && !state.thawed_by_hand(&lost);
    now || state.frozen.as_ref().is_some_and(|clusters| !state.thawed_by_hand(clusters))
}

/// Not too many clusters are lost at once. Leaders note since when, for the breaker to lift itself.
#[must_use]
pub fn is_calm(state: &State) -> bool {
    !looks_like_us(state, &lost_clusters(state))
}

/// It lifts itself D after its condition has: what was lost at once may come back one by one, and what is back may be
/// gone again (safety.md, "Evidence"). A new leader begins to count when it begins to lead.
pub(crate) fn propose(state: &State, evidence: &Evidence, view: Viewpoint) -> Option<Entry> {
    let lost = lost_clusters(state);
    let bad = looks_like_us(state, &lost);
    match &state.frozen {
        None if bad && !state.thawed_by_hand(&lost) => Some(Entry::Frozen { clusters: lost }),
        Some(known) if bad && *known != lost => Some(Entry::Frozen { clusters: lost }),
        Some(_) if calm_for_long(state, evidence, view) => Some(Entry::Thawed),
        None if !state.acknowledged.is_empty() && calm_for_long(state, evidence, view) => Some(Entry::Thawed),
        Some(_) | None => None,
    }
}

fn calm_for_long(state: &State, evidence: &Evidence, view: Viewpoint) -> bool {
    let bounds = state.applications.values().map(|known| Window::new(&known.terms).fail_over_after());
    let longest = bounds.max().unwrap_or(DEFAULT_FAIL_OVER_AFTER);
    is_calm(state) && evidence.calm_since.is_some_and(|since| view.now.since(since) >= longest)
}
