//! The wall clock of a region, as its coordinator, its agent and the guard read it: it can be stepped while they run.
//!
//! By the library of `faketime`, which stands between a program and the system's clocks. The clocks of elapsed time are
//! left alone: those are what rights are counted by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};

/// See the module.
#[derive(Debug, Clone)]
pub struct WallClock {
    file: PathBuf,
    library: PathBuf,
    /// So many seconds it is ahead.
    ahead: Arc<AtomicI64>,
    /// The widest step so far, in seconds.
    widest: Arc<AtomicU64>,
}

impl WallClock {
    /// A clock that is right, described by a file in `folder`.
    ///
    /// # Errors
    /// `faketime` is not installed.
    pub fn new(folder: &Path) -> Result<Self> {
        let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut libraries = places.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists()).context("faketime is not installed")?;
        let clock = Self { file: folder.join("wall-clock"), library, ahead: Arc::default(), widest: Arc::default() };
        clock.step(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead of the machine's clock, or behind.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn step(&self, seconds: i64) -> Result<()> {
        self.widest.fetch_max(seconds.unsigned_abs(), Ordering::Relaxed);
        self.ahead.store(seconds, Ordering::Relaxed);
        // Never half a file: it is read at every look at the clock.
        let draft = self.file.with_extension("draft");
        std::fs::write(&draft, format!("{seconds:+}\n"))
            .and_then(|()| std::fs::rename(&draft, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.ahead.load(Ordering::Relaxed));
        // Saturates only at the end of time.
        Timestamp::now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// How far from the machine's clock it ever was.
    #[must_use]
    pub fn widest(&self) -> Duration {
        Duration::from_secs(self.widest.load(Ordering::Relaxed))
    }

    /// What a program is started with that goes by it.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file)),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
