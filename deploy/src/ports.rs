//! Free ports, so that several worlds can stand side by side.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Below the range that the kernel gives to outgoing connections: none of those can take a port between our looking and our
/// binding.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// Addresses that a port must be free on: coordinators and agents, cluster A, cluster B.
pub const ADDRESSES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12)),
];

/// Ports that this harness holds: no other harness of this user picks them while it lives.
#[derive(Debug)]
pub struct Ports {
    locks: PathBuf,
    held: Vec<File>,
    taken: BTreeSet<u16>,
}

impl Ports {
    /// `locks` is a folder that all harnesses of this user share.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(locks: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&locks).with_context(|| format!("cannot make {}", locks.display()))?;
        Ok(Self { locks, held: Vec::new(), taken: BTreeSet::new() })
    }

    /// A port that is free for TCP and UDP on every address of [`ADDRESSES`].
    ///
    /// # Errors
    /// None is left, or the folder of locks cannot be written.
    pub fn pick(&mut self) -> Result<u16> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Harnesses that start together begin at different places.
        let offset = std::process::id().wrapping_mul(97);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let port = u16::try_from(FIRST + offset.wrapping_add(step) % COUNT)?;
            if self.taken.contains(&port) {
                continue;
            }
            let path = self.locks.join(port.to_string());
            // Who clears up may have removed the folder meanwhile.
            std::fs::create_dir_all(&self.locks).with_context(|| format!("cannot make {}", self.locks.display()))?;
            let lock = open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            if lock.try_lock().is_ok() && ADDRESSES.iter().all(|address| is_free(*address, port)) {
                self.taken.insert(port);
                self.held.push(lock);
                return Ok(port);
            }
        }
        bail!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        for port in &self.taken {
            // Best effort: an empty lock file that stays does no harm.
            let _removed = std::fs::remove_file(self.locks.join(port.to_string()));
        }
    }
}

/// Removes the locks that nobody holds, and the folder if none is left; true if it is gone.
///
/// # Errors
/// Something cannot be removed.
pub fn remove_unheld(locks: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(locks).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Ok(lock) = open(&path)
            && lock.try_lock().is_ok()
        {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    match std::fs::remove_dir(locks) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", locks.display())),
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok() && UdpSocket::bind((address, port)).is_ok()
}
