//! An application that is held is not moved on plan: no switchover, failback or rollback begins. A failover does.

use super::Applied;
use super::Pause;
use super::apply::{Applying, ignored, refused};
use crate::id::ApplicationId;

pub(super) fn held(applying: &mut Applying<'_>, application: &ApplicationId, by: &str, reason: &str) -> Applied {
    let hold = Pause { by: by.to_owned(), reason: reason.to_owned(), at: applying.at };
    let Some(known) = applying.state.applications.get_mut(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    known.held = Some(hold);
    applying.audit("held", Some(application), None, by, reason);
    applying.done()
}

pub(super) fn unheld(applying: &mut Applying<'_>, application: &ApplicationId, by: &str) -> Applied {
    let Some(known) = applying.state.applications.get_mut(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    if known.held.take().is_none() {
        return ignored("it is not held");
    }
    applying.audit("unheld", Some(application), None, by, "");
    applying.done()
}
