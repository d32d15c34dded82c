//! The steps of a planned move before anybody has asked for it.

use super::{Route, followers, switchover};
use crate::id::ClusterId;
use crate::run::Step;
use crate::state::ApplicationState;
use crate::terms::Window;

/// What a switchover to this cluster would do if it began now; none before there is a primary.
pub(crate) fn planned(known: &ApplicationState, to: &ClusterId) -> Option<Vec<Step>> {
    let promotable = Window::new(&known.terms).guarded_in_each();
    let from = known.primary.as_ref()?;
    let followers = followers(known, from, to);
    Some(switchover(&known.document, &Route { from, to, promotable: &promotable, followers: &followers }))
}
