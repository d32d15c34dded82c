//! Time. The world has a true one; every machine has clocks of its own that run faster or slower, and a wall clock
//! that can be stepped. A process reads them through its runtime, so that its timers and its clocks agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use regent_agent::guard::clock::Clock as AgentClock;
use regent_agent::lease::Reading;
use regent_coordinator::clock::{Clock as CoordinatorClock, Elapsed};
use regent_core::time::{Moment, Timestamp};
use tokio::time::Instant;

/// What the wall says where the world begins: 2026-01-01.
const WALL: i64 = 1_767_225_600_000;
/// What a machine's clocks say at its boot, in microseconds.
const BOOT: u64 = 5_000_000;

/// The true time, in milliseconds since the world began.
#[derive(Debug, Default, Clone)]
pub struct TrueTime(Arc<AtomicU64>);

impl TrueTime {
    /// Now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub(super) fn pass(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

/// The clocks of one machine.
#[derive(Debug)]
pub struct Clocks {
    name: String,
    /// CLOCK_BOOTTIME and the timers, in microseconds since boot.
    boottime: AtomicU64,
    /// How fast it runs, in parts per million of true time.
    rate: AtomicU64,
    /// How fast CLOCK_MONOTONIC_RAW runs, in parts per million of CLOCK_BOOTTIME.
    raw_rate: AtomicU64,
    wall: AtomicI64,
    boot: AtomicU64,
}

const MILLION: u64 = 1_000_000;

impl Clocks {
    pub(super) fn new(name: &str, rate: u64, raw_rate: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            boottime: AtomicU64::new(BOOT),
            rate: AtomicU64::new(rate),
            raw_rate: AtomicU64::new(raw_rate),
            wall: AtomicI64::new(WALL),
            boot: AtomicU64::new(1),
        })
    }

    /// In microseconds since boot.
    pub(super) fn local(&self) -> u64 {
        self.boottime.load(Ordering::Relaxed)
    }

    pub(super) fn pass(&self, millis: u64) {
        self.boottime.fetch_add(millis * 1_000 * self.rate.load(Ordering::Relaxed) / MILLION, Ordering::Relaxed);
    }

    /// The wall clock jumps; nothing else does.
    pub(super) fn step_wall(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::Relaxed);
    }

    /// What the wall clock says.
    pub(super) fn wall_now(&self) -> Timestamp {
        self.wall_at(self.local())
    }

    fn wall_at(&self, micros: u64) -> Timestamp {
        let ran = i64::try_from(micros.saturating_sub(BOOT) / 1_000).unwrap_or(0);
        Timestamp(self.wall.load(Ordering::Relaxed) + ran)
    }

    /// The machine starts anew: its clocks begin again, but for the wall.
    pub(super) fn reboot(&self) {
        let ran = self.boottime.swap(BOOT, Ordering::Relaxed).saturating_sub(BOOT);
        self.wall.fetch_add(i64::try_from(ran / 1_000).unwrap_or(0), Ordering::Relaxed);
        self.boot.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a process of the machine reads.
#[derive(Debug)]
pub(super) struct ProcessClock {
    clocks: Arc<Clocks>,
    /// The machine's time, in microseconds, when the process's own instants began.
    local: u64,
    began: Instant,
}

impl ProcessClock {
    /// Must be made within the process's runtime.
    pub(super) fn new(clocks: Arc<Clocks>) -> Arc<Self> {
        let local = clocks.local();
        Arc::new(Self { clocks, local, began: Instant::now() })
    }

    fn micros(&self) -> u64 {
        self.local + u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn both(&self) -> (u64, u64) {
        let boottime = self.micros();
        let raw = boottime.saturating_mul(self.clocks.raw_rate.load(Ordering::Relaxed)) / MILLION;
        (boottime / 1_000, raw / 1_000)
    }

    fn wall_now(&self) -> Timestamp {
        self.clocks.wall_at(self.micros())
    }
}

impl AgentClock for ProcessClock {
    fn reading(&self) -> Reading {
        let (boottime, raw) = self.both();
        Reading { boottime: Moment(boottime), raw: Moment(raw) }
    }

    fn wall(&self) -> Timestamp {
        self.wall_now()
    }

    fn boot_id(&self) -> String {
        format!("{}-{}", self.clocks.name, self.clocks.boot.load(Ordering::Relaxed))
    }
}

impl CoordinatorClock for ProcessClock {
    fn elapsed(&self) -> Elapsed {
        let (boottime, raw) = self.both();
        Elapsed { boottime, raw }
    }

    fn wall(&self) -> Timestamp {
        self.wall_now()
    }
}
