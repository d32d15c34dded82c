//! `twoPerson` cannot be taken away by one person alone.
//!
//! ```text
//!  ann applies the document without it ─► what ann orders beyond the rules still waits for another's yes
//!      └─ bob applies it without, too ──► two people have dropped it: nobody's orders wait
//!      └─ anybody applies it with ──────► as before
//! ```
//!
//! So the drop itself needs no second person, and a document stays one entry; but whoever was to be seen by two people is,
//! whichever document stands: an order by anybody else comes from another person than the drop.

use serde::{Deserialize, Serialize};

use super::apply::Applying;
use super::{ApplicationState, Applied};
use crate::application::Application;
use crate::id::ApplicationId;
use crate::time::Timestamp;

/// One person has taken `twoPerson` out of the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl ApplicationState {
    /// What this operator permits beyond the rules counts only with another's yes.
    #[must_use]
    pub fn needs_second(&self, by: &str) -> bool {
        self.document.automation.two_person || self.dropped.as_ref().is_some_and(|dropped| dropped.by == by)
    }
}

/// Another person applies the document as it stands: that changes nothing of it, but two people have seen it then.
pub(super) fn confirmed(applying: &mut Applying<'_>, document: &Application, by: &str) -> Option<Applied> {
    let known = applying.state.applications.get(&document.name)?;
    let by_another = known.dropped.as_ref().is_some_and(|dropped| dropped.by != by);
    if !by_another || known.document != *document {
        return None;
    }
    note(applying, &document.name, false, by);
    Some(applying.done())
}

/// A document was taken. `wanted` says whether the one before wanted two people.
pub(super) fn note(applying: &mut Applying<'_>, application: &ApplicationId, wanted: bool, by: &str) {
    let at = applying.at;
    let Some(known) = applying.state.applications.get_mut(application) else { return };
    let earlier = known.dropped.take();
    if known.document.automation.two_person {
        return;
    }
    let detail = match earlier {
        _ if wanted => {
            known.dropped = Some(Dropped { by: by.to_owned(), at });
            format!(
                "twoPerson is no longer wanted, says {by} alone: what {by} orders beyond the rules still waits for a \
                 second person, until somebody else has applied the document without it, too"
            )
        }
        Some(dropped) if dropped.by == by => {
            known.dropped = Some(dropped);
            return;
        }
        Some(dropped) => format!("twoPerson is no longer wanted, say {} and {by}", dropped.by),
        None => return,
    };
    applying.audit("two-person-dropped", Some(application), None, by, detail);
}
