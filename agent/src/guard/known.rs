//! What the guard can end: its drivers, read anew while it runs.
//!
//! An agent may be restarted with a newer agent.yaml than its guard was started with. The guard reads the file when an
//! agent attaches, and when it is to be armed for what it does not know. That may wait for a disk, so a thread of its
//! own does it; nothing that counts or fences waits for it. A file with mistakes changes nothing, and a resource that
//! is no longer in it stays known: a deadline may stand for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use regent_core::id::{ApplicationId, ResourceId};

use crate::driver::Driver;
use crate::guard::Drivers;

/// Makes the drivers anew from where they came from; an error is for humans.
pub type Reread = Arc<dyn Fn() -> Result<Drivers, String> + Send + Sync>;

/// Between two readings.
const PAUSE: Duration = Duration::from_secs(1);

/// The drivers that are known now.
#[derive(Clone)]
pub struct Known {
    drivers: Arc<Mutex<Drivers>>,
    reread: Option<Reread>,
    reading: Arc<AtomicBool>,
    last: Arc<Mutex<Option<Instant>>>,
}

impl From<Drivers> for Known {
    fn from(drivers: Drivers) -> Self {
        Self { drivers: Arc::new(Mutex::new(drivers)), reread: None, reading: Arc::default(), last: Arc::default() }
    }
}

impl Known {
    /// These, until they are read again.
    #[must_use]
    pub fn with_reread(drivers: Drivers, reread: Reread) -> Self {
        Self { reread: Some(reread), ..Self::from(drivers) }
    }

    /// The driver of one resource.
    #[must_use]
    pub fn driver(&self, application: &ApplicationId, resource: &ResourceId) -> Option<Arc<dyn Driver>> {
        self.drivers().get(application)?.get(resource).cloned()
    }

    /// Reads them beside, unless that is under way or was done a moment ago.
    pub fn read_again(&self) {
        let Some(reread) = self.reread.clone() else { return };
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < PAUSE) || self.reading.swap(true, Ordering::SeqCst) {
                return;
            }
            *last = Some(Instant::now());
        }
        let known = self.clone();
        let read = move || {
            match reread() {
                Ok(fresh) => known.take(fresh),
                Err(error) => tracing::error!(error, "agent.yaml cannot be read again: what is known stays"),
            }
            known.reading.store(false, Ordering::SeqCst);
        };
        if std::thread::Builder::new().name("agent.yaml".to_owned()).spawn(read).is_err() {
            self.reading.store(false, Ordering::SeqCst);
        }
    }

    fn take(&self, fresh: Drivers) {
        let mut drivers = self.drivers();
        for (application, resources) in fresh {
            let known = drivers.entry(application.clone()).or_default();
            for (resource, driver) in resources {
                if known.insert(resource.clone(), driver).is_none() {
                    tracing::info!(%application, %resource, "known from here on");
                }
            }
        }
    }

    fn drivers(&self) -> MutexGuard<'_, Drivers> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
