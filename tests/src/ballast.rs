//! A full disk.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, ensure};

/// A file that takes every free byte of a disk, again and again, until it is dropped.
pub struct Ballast {
    path: PathBuf,
    end: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Ballast {
    /// Fills the disk that a folder is on.
    ///
    /// # Errors
    /// There was hardly any space to begin with, or the file cannot be made.
    pub fn fill(folder: &Path) -> Result<Self> {
        let path = folder.join("ballast");
        let mut file = std::fs::File::create(&path)?;
        let mut take = move || {
            for size in [1 << 20, 4096, 1] {
                let block = vec![0; size];
                while file.write_all(&block).is_ok() {}
            }
        };
        take();
        ensure!(path.metadata()?.len() > 1 << 20, "the disk had no space to begin with");
        let (end, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // What others give back is taken, too.
            while ended.recv_timeout(Duration::from_millis(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
                take();
            }
        });
        Ok(Self { path, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it only writes");
        }
        // The disk may be gone already.
        let _gone = std::fs::remove_file(&self.path);
    }
}
