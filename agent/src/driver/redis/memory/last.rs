//! The process and the history that were last seen open: what a restart with an append-only file does not name.

use super::{Memory, Stored, read};
use crate::driver::DriverError;
use crate::driver::process::disk;
use crate::driver::redis::DISK_LIMIT;

/// An open primary, when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::driver::redis) struct Open {
    /// Of the process.
    pub(in crate::driver::redis) run_id: String,
    /// Of its history.
    pub(in crate::driver::redis) history: String,
    /// Up to where, in bytes of the replication stream.
    pub(in crate::driver::redis) offset: u64,
}

impl Memory {
    /// None if it was never seen open, or that is not known any more.
    pub(in crate::driver::redis) async fn last_open(&self) -> Result<Option<Open>, DriverError> {
        let known = self.kept().seen.clone();
        let seen = match (known, self.file.clone()) {
            (Some(seen), _) => Some(seen),
            (None, None) => None,
            (None, Some(file)) => {
                let look = move || read(&file);
                match disk::bounded("redis-files", DISK_LIMIT, "reading what Redis had", look).await? {
                    Stored::Seen(seen) => Some(seen),
                    Stored::Nothing | Stored::Unreadable(_) => None,
                }
            }
        };
        Ok(seen.map(|seen| Open { run_id: seen.run_id, history: seen.history, offset: seen.offset }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::redis::session::Info;

    #[tokio::test]
    async fn what_was_seen_open_is_known_after_a_restart_of_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record.json");
        let memory = Memory::at(file.clone());
        assert_eq!(memory.last_open().await.unwrap(), None);
        memory.saw(&Info::parse("role:master\nrun_id:r\nmaster_replid:one\nmaster_repl_offset:70\n"), None);
        let open = Open { run_id: "r".into(), history: "one".into(), offset: 70 };
        assert_eq!(memory.last_open().await.unwrap(), Some(open.clone()));
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(Memory::at(file.clone()).last_open().await.unwrap(), Some(open));
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Memory::at(file).last_open().await.unwrap(), None);
        assert_eq!(Memory::default().last_open().await.unwrap(), None);
    }
}
