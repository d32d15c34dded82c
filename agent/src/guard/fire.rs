//! The hard fence at a deadline that nobody has moved.

use std::sync::Arc;
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};

use super::RETRY;
use super::shared::Shared;
use crate::driver::{Driver, FenceReach};

/// After one that a human must make possible.
const HOPELESS: Duration = Duration::from_secs(5);
/// A hard fence that takes longer is begun anew.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Ends every guarded database of the application, again and again until it has been seen gone.
pub(super) async fn fire(shared: Arc<Shared>, application: ApplicationId) {
    let watched = shared.table().entries().get(&application).cloned();
    let Some(watched) = watched else { return };
    tracing::error!(%application, epoch = watched.arm.epoch.0, "nobody else fences: fencing hard");
    let fences = watched.resources.iter().map(|resource| {
        let driver = shared.known.driver(&application, resource);
        fire_resource(application.clone(), resource.clone(), driver)
    });
    if !futures::future::join_all(fences).await.into_iter().all(|gone| gone) {
        // Not seen gone, so never said to be: a guard that knows it goes on at its start.
        return;
    }
    shared.table().fired(&application);
    shared.store();
    shared.changed.notify_one();
    tracing::error!(%application, epoch = watched.arm.epoch.0, "fenced hard: every guarded database is gone");
}

async fn fire_resource(application: ApplicationId, resource: ResourceId, driver: Option<Arc<dyn Driver>>) -> bool {
    let Some(driver) = driver else {
        tracing::error!(
            %application, %resource,
            "cannot fence what this guard's configuration does not name; add it to agent.yaml and restart the guard"
        );
        return false;
    };
    let mut said = None;
    while driver.fence_reach() != FenceReach::Nothing {
        let mut pause = RETRY;
        match tokio::time::timeout(ATTEMPT, driver.fence_hard()).await {
            Ok(Ok(_)) => return true,
            // What will not change by itself is said once; a human may end the database, or list a command.
            Ok(Err(error)) if !error.retryable => {
                if said.replace(error.code) != Some(error.code) {
                    tracing::error!(%application, %resource, code = error.code, %error, "hard fence not possible");
                }
                pause = HOPELESS;
            }
            Ok(Err(error)) => tracing::error!(%application, %resource, code = error.code, %error, "hard fence failed"),
            Err(_) => tracing::error!(%application, %resource, "hard fence takes too long"),
        }
        tokio::time::sleep(pause).await;
    }
    true
}
