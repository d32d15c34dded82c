//! A checkpoint soon after each opening.
//!
//! PostgreSQL spreads the one after a promotion over minutes, and its control file names the old timeline until that is done.
//! A server that dies by then cannot be rewound before PostgreSQL 16: `pg_rewind` takes the timeline from there, and looks
//! for the fork in the wrong one. It also starts again from where the old timeline had its last checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Postgres;
use super::probe::Sight;
use super::session::{connect, login, run};

/// All that is dirty is written at once.
const LIMIT: Duration = Duration::from_secs(1800);

/// One is under way.
#[derive(Default)]
pub(super) struct Kept(Arc<AtomicBool>);

/// Ends with the attempt, however that ends.
struct UnderWay(Arc<AtomicBool>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Postgres {
    /// Begins one if the control file of this open primary still has an older timeline. It is not awaited; what fails is
    /// begun again by the next probe.
    pub(super) fn keep_checkpointed(&self, sight: &Sight) {
        if sight.checkpointed || self.checkpoint.0.swap(true, Ordering::SeqCst) {
            return;
        }
        let under_way = UnderWay(Arc::clone(&self.checkpoint.0));
        let config = login(&self.options);
        tokio::spawn(async move {
            let made = tokio::time::timeout(LIMIT, async { run(&connect(&config).await?, "CHECKPOINT").await }).await;
            match made {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no checkpoint could be made after the promotion"),
                Err(_) => tracing::warn!(limit = ?LIMIT, "the checkpoint after the promotion takes long"),
            }
            drop(under_way);
        });
    }
}
