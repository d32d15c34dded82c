//! S1: at every instant at most one cluster's primaries acknowledge commits to clients. What somebody opened by hand is
//! watched by another promise.

use super::{Invariant, Sight};

pub(super) struct OneWriter;

impl Invariant for OneWriter {
    fn promise(&self) -> &'static str {
        "S1, one writer"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        let by_hand = sight.databases.by_hand();
        let mut open = sight.databases.open();
        open.retain(|cluster| !by_hand.contains_key(cluster));
        if open.len() > 1 {
            return Err(format!("the databases of {} accept writes", open.join(" and ")));
        }
        Ok(())
    }
}
