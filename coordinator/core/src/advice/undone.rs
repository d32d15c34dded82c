//! Of a run that was undone, as things are now: that may be long after, and the old primary may serve no more.

use crate::run::Run;
use crate::state::State;
use crate::verdict::is_lost;

pub(super) fn next(state: &State, run: &Run) -> String {
    let (application, from) = (&run.application, &run.from);
    if run.is_drill() {
        return "what it copied is taken away; begin again when what stood in the way is gone".to_owned();
    }
    let Some(known) = state.applications.get(application) else {
        return format!("nothing is to be done: {application} is not known any more");
    };
    if let Some(other) = known.run {
        return format!("nothing is to be done for this one: run {other} is under way, see `regentctl runs {other}`");
    }
    if known.primary.as_ref() != Some(from) {
        let now = known.primary.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        return format!("nothing is to be done for this one: by now the primary is {now}, not {from}");
    }
    if is_lost(state, from) {
        return format!(
            "{from} is still the primary, and lost: `regentctl why {application}` says what holds a failover"
        );
    }
    if run.cause.is_planned() {
        return format!(
            "{from} is still the primary, see `regentctl describe {application}`; begin again when what stood in the way \
             is gone"
        );
    }
    format!(
        "{from} is still the primary, and what the run began for may still be so: `regentctl why {application}` says \
         whether a failover would start now, and what holds it"
    )
}
