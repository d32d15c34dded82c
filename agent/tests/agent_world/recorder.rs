//! A driver that writes down what is asked of it, and when.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use regent_agent::driver::*;

#[derive(Default)]
pub(crate) struct Recorder {
    calls: Mutex<Vec<(Instant, &'static str)>>,
    pub(crate) writable: AtomicBool,
    pub(crate) unhealthy: AtomicBool,
    /// It is no database.
    pub(crate) service: AtomicBool,
    /// It cannot be marked.
    pub(crate) unmarkable: AtomicBool,
    /// The gentle fence never ends.
    pub(crate) hang: AtomicBool,
    /// No fence ends until this is taken back.
    pub(crate) slow_fence: AtomicBool,
    /// The opening goes on until this is taken back.
    pub(crate) slow_unfence: AtomicBool,
    /// Where it stands.
    pub(crate) position: AtomicU64,
    /// The promotion never ends.
    pub(crate) slow: AtomicBool,
    /// It is a service that comes up with its machines.
    pub(crate) rests: AtomicBool,
    /// It is at rest already.
    pub(crate) at_rest: AtomicBool,
    /// It never comes to rest.
    pub(crate) slow_rest: AtomicBool,
    /// A restore never ends.
    pub(crate) slow_restore: AtomicBool,
    /// No rejoin ends until this is taken back.
    pub(crate) slow_rejoin: AtomicBool,
    /// A restore is ended by a signal.
    pub(crate) killed_restore: AtomicBool,
    /// What was restored does not pass.
    pub(crate) unverified: AtomicBool,
    /// A restore may run over one that was ended in the middle.
    pub(crate) repeatable: AtomicBool,
    /// The copying of a drill never ends.
    pub(crate) slow_copy: AtomicBool,
    /// There is something to be found out.
    pub(crate) finds: AtomicBool,
    /// No look ends until this is taken back.
    pub(crate) slow_facts: AtomicBool,
    /// It can be quiesced, and lets transactions end until it is told to break off.
    pub(crate) busy: AtomicBool,
    /// How often it was told to.
    told: AtomicU64,
}

impl Recorder {
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().iter().map(|(_, call)| *call).collect()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.calls().into_iter().filter(|call| *call == name).count()
    }

    pub(crate) fn last(&self, name: &str) -> Option<Instant> {
        self.calls.lock().unwrap().iter().rev().find(|(_, call)| *call == name).map(|(at, _)| *at)
    }

    pub(crate) fn of_a_service() -> Self {
        Self { service: AtomicBool::new(true), ..Self::default() }
    }

    fn call(&self, name: &'static str) {
        self.calls.lock().unwrap().push((Instant::now(), name));
    }

    fn done(message: &str) -> DriverResult {
        Ok(Done { message: message.to_owned(), position: Some(77), timeline: 1, ..Done::default() })
    }
}

#[async_trait::async_trait]
impl Driver for Recorder {
    fn kind(&self) -> &'static str {
        "recorder"
    }

    fn fence_reach(&self) -> FenceReach {
        if self.service.load(Ordering::Relaxed) { FenceReach::Nothing } else { FenceReach::Local }
    }

    async fn probe(&self) -> Probe {
        let health = if self.unhealthy.load(Ordering::Relaxed) { Health::Failed } else { Health::Healthy };
        let (writable, position) = (self.writable.load(Ordering::Relaxed), self.position.load(Ordering::Relaxed));
        let (position, position_text) = (Some(position), position.to_string());
        Probe { writable, position, position_text, ..Probe::without_answer(health, "recorder") }
    }

    async fn facts(&self) -> Option<Found> {
        if !self.finds.load(Ordering::Relaxed) {
            return None;
        }
        self.call("facts");
        while self.slow_facts.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Some(Found { problem: format!("look {}", self.count("facts")), ..Found::default() })
    }

    async fn guard(&self, _marker: &Marker) -> DriverResult {
        self.call("guard");
        if self.unmarkable.load(Ordering::Relaxed) {
            return Err(DriverError::retryable("recorder", "cannot be marked"));
        }
        Self::done("guarded")
    }

    async fn fence(&self) -> DriverResult {
        self.call("fence");
        while self.slow_fence.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if self.hang.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.writable.store(false, Ordering::Relaxed);
        self.call("fenced");
        Self::done("fenced")
    }

    async fn fence_hard(&self) -> DriverResult {
        self.call("fence_hard");
        while self.slow_fence.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.writable.store(false, Ordering::Relaxed);
        Self::done("gone")
    }

    async fn unfence(&self) -> DriverResult {
        self.call("unfence");
        while self.slow_unfence.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.writable.store(true, Ordering::Relaxed);
        Self::done("open")
    }

    async fn quiesce(&self) -> DriverResult {
        let told = self.told.load(Ordering::Relaxed);
        if !self.busy.load(Ordering::Relaxed) {
            return Err(DriverError::unsupported(self.kind(), "be quiesced"));
        }
        self.call("quiesce");
        self.writable.store(false, Ordering::Relaxed);
        while self.told.load(Ordering::Relaxed) == told {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.call("broken_off");
        Err(DriverError::permanent("recorder", "broken off"))
    }

    fn break_off(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    async fn promote(&self, _position: Option<u64>) -> DriverResult {
        self.call("promote");
        if self.slow.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.writable.store(true, Ordering::Relaxed);
        Self::done("promoted")
    }

    fn rests_in_quarantine(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
    }

    async fn activate(&self) -> DriverResult {
        self.call("activate");
        Self::done("serves")
    }

    async fn deactivate(&self) -> DriverResult {
        self.call("deactivate");
        if self.slow_rest.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let already = self.at_rest.load(Ordering::Relaxed);
        Self::done("at rest").map(|done| Done { already, ..done })
    }

    async fn catch_up(&self, position: u64) -> DriverResult {
        self.call("catch_up");
        while self.position.load(Ordering::Relaxed) < position {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Self::done("caught up")
    }

    async fn rehearse(&self, rehearsal: Rehearsal, _run: u64) -> DriverResult {
        match rehearsal {
            Rehearsal::Promote | Rehearsal::Restore => {
                self.call("copy");
                if self.slow_copy.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            }
            Rehearsal::Verify => self.call("look"),
            Rehearsal::CleanUp => self.call("clean_up"),
        }
        Self::done("rehearsed")
    }

    async fn rejoin(&self, _rejoin: &Rejoin) -> DriverResult {
        self.call("rejoin");
        while self.slow_rejoin.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.call("rejoined");
        Self::done("follows")
    }

    async fn verify(&self) -> DriverResult {
        self.call("verify");
        Self::done("serves")
    }

    async fn restore(&self, _run: u64) -> DriverResult {
        self.call("restore");
        if self.slow_restore.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.killed_restore.load(Ordering::Relaxed) {
            return Err(DriverError::permanent("restore-interrupted", "it was ended in the middle"));
        }
        if self.unhealthy.load(Ordering::Relaxed) {
            return Err(DriverError::retryable("command-failed", "it failed"));
        }
        Self::done("restored")
    }

    async fn verify_restored(&self) -> DriverResult {
        self.call("verify_restored");
        if self.unverified.load(Ordering::Relaxed) {
            return Err(DriverError::permanent("restore-unverified", "it does not pass"));
        }
        Self::done("looked at")
    }

    fn restores_again(&self) -> bool {
        self.repeatable.load(Ordering::Relaxed)
    }

    async fn run(&self, _command: &str) -> DriverResult {
        self.call("run");
        if self.unhealthy.load(Ordering::Relaxed) {
            return Err(DriverError::retryable("command-failed", "it failed"));
        }
        Self::done("ended well")
    }
}
