use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::Store;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::Types;

struct Fresh;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let folder = TempDir::new().unwrap();
        let store = Store::of(folder.path()).unwrap();
        Ok((folder, store.log, store.machine))
    }
}

#[tokio::test]
async fn openraft_accepts_the_storage() {
    Suite::<Types, LogStore, StateMachine, Fresh, TempDir>::test_all(Fresh).await.unwrap();
}
