//! A process: a runtime of its own on the one thread of the simulation, with its own paused clock.
//!
//! It is stepped from outside. To kill it is to drop its runtime with all its tasks; to stop it is to step it no more;
//! after that its clock jumps, as it does for a process that was stopped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::clock::{Clocks, ProcessClock};
use crate::network::MachineId;

/// What a process does until it ends.
pub(super) type Program = Box<dyn FnOnce(Arc<ProcessClock>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A running process.
pub(super) struct Process {
    pub(super) machine: MachineId,
    runtime: Runtime,
    clocks: Arc<Clocks>,
    local: u64,
    began: Instant,
    stopped: bool,
    ended: Arc<AtomicBool>,
}

impl Process {
    pub(super) fn start(machine: MachineId, clocks: &Arc<Clocks>, program: Program) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (local, at_end) = (clocks.local(), ended.clone());
        let began = runtime.block_on(async {
            let clock = ProcessClock::new(clocks.clone());
            tokio::spawn(async move {
                program(clock).await;
                at_end.store(true, Ordering::Relaxed);
            });
            Instant::now()
        });
        Ok(Self { machine, runtime, clocks: clocks.clone(), local, began, stopped: false, ended })
    }

    /// Up to the machine's own time.
    pub(super) fn step(&self) {
        if self.stopped {
            return;
        }
        let until = self.until();
        self.runtime.block_on(async { tokio::time::sleep_until(until).await });
    }

    /// SIGSTOP.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// SIGCONT.
    pub(super) fn go_on(&mut self) {
        if std::mem::take(&mut self.stopped) {
            let until = self.until();
            self.runtime.block_on(async {
                tokio::time::advance(until.saturating_duration_since(Instant::now())).await;
            });
        }
    }

    /// It ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Runs something beside it, in its runtime.
    pub(super) fn beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Looks by its clock: outside of its runtime an instant is the real time.
    pub(super) fn within<R>(&self, look: impl FnOnce() -> R) -> R {
        let _entered = self.runtime.enter();
        look()
    }

    fn until(&self) -> Instant {
        self.began + Duration::from_micros(self.clocks.local().saturating_sub(self.local))
    }
}
