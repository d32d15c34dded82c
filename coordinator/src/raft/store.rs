//! Opens what a coordinator has on its disk, as one.

use std::path::Path;
use std::thread::JoinHandle;

use regent_core::id::CoordinatorId;

use super::log_store::{self, LogStore};
use super::ondisk::{Directory, DiskError, Owner};
use super::state_machine::StateMachine;
use super::writer::Writing;

/// Log and state machine, checked against each other.
pub(super) struct Store {
    pub(super) log: LogStore,
    pub(super) machine: StateMachine,
    pub(super) owner: Owner,
    /// Ends after [`LogStore::close`], or when the last clone of the log is gone. None if there is no such thread.
    pub(super) writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Reads everything; blocks.
    pub(super) fn open(path: &Path, id: CoordinatorId, writing: Writing) -> Result<Self, DiskError> {
        let (directory, database, owner) = Directory::open(path, id)?;
        let log = directory.log_path();
        let loaded = log_store::load(&database, &log)?;
        let machine = StateMachine::open(directory, loaded.purged, writing)?;
        let (log, writer) = LogStore::start(database, log, loaded, writing)?;
        Ok(Self { log, machine, owner, writer })
    }
}
