//! What happened, in order: hashed always, so that two runs of one seed can be told to be the same; kept as text in
//! the end, so that a failure can be read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::TrueTime;

/// So many lines are kept.
const KEPT: usize = 2_000;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trace {
    time: TrueTime,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    hash: u64,
    events: u64,
    lines: VecDeque<String>,
    aloud: bool,
}

impl Trace {
    pub(super) fn new(time: TrueTime, aloud: bool) -> Self {
        let inner = Inner { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: VecDeque::new(), aloud };
        Self { time, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Something worth reading.
    pub fn say(&self, what: impl fmt::Display) {
        let line = format!("{:>7} {what}", self.time.now());
        let mut inner = self.lock();
        inner.mix(line.as_bytes());
        if inner.aloud {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
        }
        inner.lines.push_back(line);
        if inner.lines.len() > KEPT {
            inner.lines.pop_front();
        }
    }

    /// Something that only has to be the same again.
    pub(super) fn note(&self, what: &[u8]) {
        let now = self.time.now();
        let mut inner = self.lock();
        inner.mix(&now.to_le_bytes());
        inner.mix(what);
        if inner.aloud {
            let line = format!("{now:>7} ~ {}\n", what.escape_ascii());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        }
    }

    /// Of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// How much was hashed.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    /// What was said last.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn mix(&mut self, bytes: &[u8]) {
        self.events += 1;
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
