//! The service as a daemon: what an agent's `command` driver starts, stops and asks for.
//!
//! `start` and `stop` may be repeated; each reads what is there first.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;

use super::DemoConfig;
use crate::keeper::last_lines;
use crate::tree;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(15);

/// Starts the service and returns once it accepts connections.
///
/// # Errors
/// It does not come up; with the end of its log.
pub async fn start(path: &Path) -> Result<()> {
    let config = DemoConfig::load(path)?;
    if running(&config).is_some() {
        return Ok(());
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&config.log)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["run", "--config"])
        .arg(path)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the service")?;
    let pid = child.id().cast_signed();
    let started = tree::started(Pid::from_raw(pid)).unwrap_or_default();
    std::fs::write(&config.pid_file, format!("{pid} {started}\n"))
        .with_context(|| format!("cannot write {}", config.pid_file.display()))?;
    let up = wait::until("the service", PATIENCE, || {
        let ended = child.try_wait();
        async move {
            if let Some(status) = ended? {
                return Ok(Err(status));
            }
            TcpStream::connect(config.listen).await?;
            Ok(Ok(()))
        }
    })
    .await?;
    match up {
        Ok(()) => Ok(()),
        Err(status) => bail!("the service ended at once ({status}):\n{}", last_lines(&config.log, 10)),
    }
}

/// Ends the service, gently and then not.
///
/// # Errors
/// It is still there.
pub async fn stop(path: &Path) -> Result<()> {
    let config = DemoConfig::load(path)?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let Some(pid) = running(&config) else { return Ok(()) };
        // It may have ended in between, which is as good.
        let _gone = kill(pid, signal);
        let ended = wait::until("the end of the service", Duration::from_secs(3), || async {
            if tree::is_running(pid) { bail!("process {pid} still runs") } else { Ok(()) }
        });
        if ended.await.is_ok() {
            return Ok(());
        }
    }
    bail!("the service does not end, even by SIGKILL")
}

/// The service's process, if it runs.
///
/// # Errors
/// The file cannot be read.
pub fn status(path: &Path) -> Result<Option<Pid>> {
    Ok(running(&DemoConfig::load(path)?))
}

fn running(config: &DemoConfig) -> Option<Pid> {
    let text = std::fs::read_to_string(&config.pid_file).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = Pid::from_raw(pid.parse().ok()?);
    // A file that a killed service left may name another process by now.
    (tree::is_running(pid) && tree::started(pid) == started.parse().ok()).then_some(pid)
}
