//! What becomes of the WAL of PostgreSQL: how much its slots may hold back, and whether it is archived. Either way a disk that
//! fills stops the primary.

use super::{Looking, Place};
use crate::facts::{PostgresFacts, SlotFacts, SlotLimit};
use crate::preflight::Severity;

impl Looking<'_> {
    pub(super) fn of_wal(&mut self, here: &Place, facts: &PostgresFacts) {
        if !facts.archive_fails.is_empty() {
            let detail = format!("{} could not be archived, nor anything since: WAL piles up", facts.archive_fails);
            self.add(here.clone(), Severity::Warning, "archive-fails", detail);
        }
        let slots: Vec<&SlotFacts> = facts.slots.iter().filter(|slot| !slot.lost).collect();
        if slots.is_empty() {
            return;
        }
        match facts.slot_limit {
            SlotLimit::Unknown => {}
            SlotLimit::Unlimited => {
                let detail = "max_slot_wal_keep_size is not set: the slot of a lost standby fills the disk in the end";
                self.add(here.clone(), Severity::Info, "slot-unlimited", detail);
            }
            // What wal_keep_size keeps is there for slots, too.
            SlotLimit::Bytes(limit) => self.of_slot_limit(here, facts, &slots, limit.max(facts.wal_keep_bytes)),
        }
    }

    fn of_slot_limit(&mut self, here: &Place, facts: &PostgresFacts, slots: &[&SlotFacts], limit: u64) {
        if limit < facts.max_wal_bytes {
            let detail = format!(
                "slots hold back {} MiB of WAL at most, and max_wal_size is {} MiB: a standby that is away for one checkpoint \
                 may need a fresh copy",
                limit >> 20,
                facts.max_wal_bytes >> 20
            );
            return self.add(here.clone(), Severity::Warning, "slot-limit-small", detail);
        }
        for slot in slots {
            let Some(held) = slot.retained_bytes.filter(|held| *held > limit / 2) else { continue };
            let detail = format!(
                "the slot {} holds back {} of {} MiB of WAL: beyond them it is lost",
                slot.name,
                held >> 20,
                limit >> 20
            );
            self.add(here.clone(), Severity::Warning, "slot-near-limit", detail);
        }
    }
}
