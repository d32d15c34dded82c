//! Of the group as a whole: what a pause of everything, its end, or a freeze leaves.

use super::{Advice, advice};
use crate::breaker::is_frozen;
use crate::state::State;

/// Of everything. What is under way goes on whatever is paused, so it is named.
#[must_use]
pub fn of_group(state: &State) -> Advice {
    let all = standing(state);
    let under_way = state.applications.iter().filter_map(|(id, known)| Some((id, known.run?)));
    let runs = under_way.map(|(id, run)| format!("run {run} of {id} is under way: `regentctl runs {run}`"));
    let next: Vec<String> = std::iter::once(all.next).chain(runs).collect();
    advice(all.state, next.join("; "))
}

fn standing(state: &State) -> Advice {
    if state.paused.is_some() {
        return paused();
    }
    if is_frozen(state) {
        return frozen();
    }
    let by_themselves = state.applications.iter().filter(|(_, known)| known.paused.is_some());
    let ends: Vec<String> = by_themselves.map(|(id, _)| format!("`regentctl resume {id}`")).collect();
    if ends.is_empty() {
        return advice("steady", "automatic action is on; `regentctl status` shows every application");
    }
    advice("paused-by-themselves", format!("applications that are paused by themselves stay so: {}", ends.join(", ")))
}

pub(super) fn paused() -> Advice {
    advice("paused", "nothing happens by itself; `regentctl resume --all` ends it")
}

pub(super) fn frozen() -> Advice {
    advice("frozen", "several clusters look lost at once; look at them and at the networks, then `regentctl ack --all`")
}
