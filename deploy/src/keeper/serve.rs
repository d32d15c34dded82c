//! The keeper's own side: what the program `regent-keeper` does.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Stdout};
use tokio::signal::unix::{SignalKind, signal};

use super::{Event, Exit, Program, Request};
use crate::place;
use crate::tree;

/// Serves the harness on standard input and output until that closes its end, or until SIGTERM; then kills everything.
///
/// Must run on a runtime of one thread: a child is told of its parent's death when the *thread* that made it ends.
///
/// # Errors
/// It cannot become the reaper of its descendants.
pub async fn serve() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot become a sub-reaper")?;
    let mut ended = signal(SignalKind::child())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut requests = BufReader::new(tokio::io::stdin()).lines();
    let mut output = tokio::io::stdout();
    let mut attached = true;
    loop {
        tokio::select! {
            _ = ended.recv() => reap(&mut output).await,
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            _ = hung_up.recv() => if attached { break },
            line = requests.next_line(), if attached => match line.ok().flatten() {
                None => break,
                Some(line) => match serde_json::from_str(&line).context("not a request")? {
                    Request::Start { id, program } => {
                        let event = match start(&program) {
                            Ok(pid) => Event::Started { id, pid: pid.cast_signed() },
                            Err(error) => Event::Failed { id, message: format!("{error:#}") },
                        };
                        say(&mut output, &event).await;
                    }
                    Request::KillAll { id } => {
                        let count = kill_all(&mut output).await;
                        say(&mut output, &Event::Done { id, count }).await;
                    }
                    Request::Detach { id } => {
                        attached = false;
                        say(&mut output, &Event::Done { id, count: 0 }).await;
                    }
                },
            },
        }
    }
    kill_all(&mut output).await;
    Ok(())
}

fn start(program: &Program) -> Result<u32> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&program.log)
        .with_context(|| format!("cannot open {}", program.log.display()))?;
    let child = Command::new(place::program("setpriv")?)
        .args(["--pdeathsig", "KILL", "--"])
        .args(&program.command)
        .envs(&program.environment)
        .current_dir(&program.folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {:?}", program.command))?;
    // It is waited for with all the others, by `reap`.
    Ok(child.id())
}

/// Kills every descendant, and what those start meanwhile, until there is none.
async fn kill_all(output: &mut Stdout) -> usize {
    let own = nix::unistd::getpid();
    let mut count = 0;
    loop {
        let all = tree::descendants(own);
        if all.is_empty() {
            return count;
        }
        // Counted first: backends end by themselves as soon as their postmaster is gone.
        count += all.iter().filter(|pid| tree::is_running(**pid)).count();
        for pid in all {
            // It may have ended in between, which is as good.
            let _gone = kill(pid, Signal::SIGKILL);
        }
        reap(output).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for every child that has ended, adopted ones too, and says so.
async fn reap(output: &mut Stdout) {
    loop {
        let (pid, status) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        say(output, &Event::Exited { pid: pid.as_raw(), status }).await;
    }
}

/// A harness that does not listen any more is no reason to stop keeping.
async fn say(output: &mut Stdout, event: &Event) {
    let Ok(mut line) = serde_json::to_vec(event) else { return };
    line.push(b'\n');
    if output.write_all(&line).await.is_ok() {
        let _gone = output.flush().await;
    }
}
