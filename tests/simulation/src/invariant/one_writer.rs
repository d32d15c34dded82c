//! S1: at every instant at most one cluster's primaries acknowledge commits to clients.

use super::{Invariant, Sight};

pub(super) struct OneWriter;

impl Invariant for OneWriter {
    fn promise(&self) -> &'static str {
        "S1, one writer"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        let open = sight.databases.open();
        if open.len() > 1 {
            return Err(format!("the databases of {} accept writes", open.join(" and ")));
        }
        Ok(())
    }
}
