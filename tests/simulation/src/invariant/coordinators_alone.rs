//! S6: trouble of coordinators alone never moves or stops a healthy primary.

use super::{Invariant, Sight};

/// For so long the primary may be closed before it counts: none at all.
#[derive(Default)]
pub(super) struct CoordinatorsAlone {
    primary: Option<String>,
}

impl Invariant for CoordinatorsAlone {
    fn promise(&self) -> &'static str {
        "S6, coordinator trouble alone changes nothing"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        if !sight.coordinators_only {
            return Ok(());
        }
        let open = sight.databases.open();
        match (&self.primary, open.first()) {
            (None, Some(open)) => self.primary = Some(open.clone()),
            (Some(primary), None) => return Err(format!("the primary {primary} was stopped")),
            (Some(primary), Some(open)) if primary != open => return Err(format!("{primary} moved to {open}")),
            _ => {}
        }
        Ok(())
    }
}
