use super::{Applied, State};
use crate::{
    effect::Effect,
    entry::Record,
    id::{CoordinatorId, LogIndex},
};
use std::collections::BTreeSet;
pub(super) fn apply(state: &mut State, index: LogIndex, _record: &Record) -> (Applied, Vec<Effect>) {
    state.applied = index;
    (Applied::Done(index), Vec::new())
}
pub(super) fn membership(state: &mut State, index: LogIndex, voters: Vec<BTreeSet<CoordinatorId>>) -> Vec<Effect> {
    state.applied = index;
    state.voters = voters;
    Vec::new()
}
