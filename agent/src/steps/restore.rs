//! A restore by a listed command. No driver can read in reality how far it came, so the journal says it.
//!
//! ```text
//!  Begun ─► restore ─► Ended ─► verifyRestored ─► the end of the step
//!        │                  └ died here, or did not pass: a repeat looks again, and restores nothing
//!        └ ended in the middle: refused, unless agent.yaml says `restoreRepeatable`
//! ```
//!
//! In the middle ends what dies with its agent, runs out of its time, or is ended by a signal. A command that exited by itself,
//! and not well, or never began, is run again by another attempt, like any other.

use std::sync::Arc;

use regent_core::id::ResourceId;

use super::carry_out::{Bench, full};
use super::order::{Order, Refused};
use crate::driver::{Done, Driver, DriverError};
use crate::journal::{Record, RestoreProgress};

impl Bench {
    /// From where an earlier attempt at the step has left it.
    pub(super) async fn restore_by_command(
        &self,
        order: &Order,
        resource: &ResourceId,
        driver: &Arc<dyn Driver>,
    ) -> Result<Result<Done, DriverError>, Refused> {
        let restored = match self.restore_progress(order, resource) {
            Some(RestoreProgress::Ended) => "restored by an earlier attempt".to_owned(),
            Some(RestoreProgress::Begun) if !driver.restores_again() => {
                let message = format!(
                    "an earlier attempt to restore {resource} was ended in the middle, and what it has left is not known; put it \
                     in order by hand, or list `restoreRepeatable: true` in agent.yaml if `restore` may run over it"
                );
                return Err(Refused::new("restore-interrupted", message));
            }
            Some(RestoreProgress::Begun | RestoreProgress::Failed) | None => {
                self.journal.append(vec![restoring(order, resource, RestoreProgress::Begun)]).await.map_err(full)?;
                match driver.restore(order.name.run).await {
                    Ok(done) => {
                        let ended = restoring(order, resource, RestoreProgress::Ended);
                        self.journal.append(vec![ended]).await.map_err(full)?;
                        done.message
                    }
                    // It stays as it began.
                    Err(error) if error.code == "restore-interrupted" => return Ok(Err(error)),
                    Err(error) => {
                        // Should it not reach the disk, a repeat asks for a human: the safe side.
                        drop(self.journal.append(vec![restoring(order, resource, RestoreProgress::Failed)]));
                        return Ok(Err(error));
                    }
                }
            }
        };
        Ok(driver.verify_restored().await.map(|seen| {
            let message = if seen.message.is_empty() { restored } else { format!("{restored}; {}", seen.message) };
            Done { message, ..Done::default() }
        }))
    }

    fn restore_progress(&self, order: &Order, resource: &ResourceId) -> Option<RestoreProgress> {
        let view = self.journal.view();
        view.applications.get(&order.application)?.step(resource, order.name.token)?.restoring
    }
}

fn restoring(order: &Order, resource: &ResourceId, progress: RestoreProgress) -> Record {
    Record::Restoring {
        application: order.application.clone(),
        resource: resource.clone(),
        token: order.name.token,
        progress,
    }
}
