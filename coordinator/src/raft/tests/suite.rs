use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use regent_core::id::CoordinatorId;
use tempfile::TempDir;

use super::Store;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::Types;
use crate::raft::writer::Writing;

struct Fresh(Writing);

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let folder = TempDir::new().unwrap();
        let store = Store::open(folder.path(), CoordinatorId(1), self.0).unwrap();
        Ok((folder, store.log, store.machine))
    }
}

#[tokio::test]
async fn openraft_accepts_the_storage() {
    Suite::<Types, LogStore, StateMachine, Fresh, TempDir>::test_all(Fresh(Writing::ByThread)).await.unwrap();
}

#[tokio::test]
async fn openraft_accepts_the_storage_that_writes_in_place() {
    Suite::<Types, LogStore, StateMachine, Fresh, TempDir>::test_all(Fresh(Writing::InPlace)).await.unwrap();
}
