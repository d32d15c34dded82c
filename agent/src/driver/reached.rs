//! What the looks at the other clusters of a database gave.

use std::collections::BTreeMap;

/// What the look at one of them gave.
pub(super) struct Reached {
    /// Why a rejoin would not reach it.
    pub(super) answer: Result<(), String>,
    /// What the login there may not.
    pub(super) lacks: Option<String>,
}

/// By cluster whether it answers; what the logins there may not goes to what is lacking here.
pub(super) fn gather(looks: Vec<(String, Reached)>, lacks: &mut Vec<String>) -> BTreeMap<String, Result<(), String>> {
    let each = looks.into_iter().map(|(cluster, reached)| {
        lacks.extend(reached.lacks);
        (cluster, reached.answer)
    });
    each.collect()
}
