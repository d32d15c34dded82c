//! The door of a guard that is a process: a socket beside its file.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::net::UnixStream;
use tokio::process::Child;

use crate::guard::client::{Door, Entering, Talk};
use crate::guard::socket;

/// Starts a guard process; the child is waited for.
pub type Spawner = Box<dyn Fn() -> io::Result<Child> + Send + Sync>;

/// Of the guard of one runtime directory.
pub struct ProcessDoor {
    path: PathBuf,
    spawner: Spawner,
    child: Mutex<Option<Child>>,
}

impl ProcessDoor {
    /// Nothing is started before [`Door::start`].
    #[must_use]
    pub fn new(runtime: &std::path::Path, spawner: Spawner) -> Self {
        Self { path: socket(runtime), spawner, child: Mutex::default() }
    }
}

impl Door for ProcessDoor {
    fn enter(&self) -> Entering<'_> {
        Box::pin(async { UnixStream::connect(&self.path).await.map(|stream| Box::new(stream) as Box<dyn Talk>) })
    }

    fn start(&self) -> io::Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // A child that has ended is taken note of, and another takes its place.
        if !child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            *child = Some((self.spawner)()?);
        }
        Ok(())
    }
}
