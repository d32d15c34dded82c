//! The server as a process: whether it runs, starting, stopping and killing it.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Postgres;
use super::session::truth;
use crate::driver::process::table::{Family, Process, family};
use crate::driver::process::{Finished, Program};
use crate::driver::{Done, DriverError, DriverResult};

/// What the server's processes are called.
pub(super) const NAMES: [&str; 2] = ["postgres", "postmaster"];

/// How long a hard fence goes on killing.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long the listed start and stop commands may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// How long a started server may take until it answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// How long init may take to reap a killed postmaster.
const BURIAL_LIMIT: Duration = Duration::from_secs(10);

/// How long after the start command no process at all may be there.
const APPEAR_LIMIT: Duration = Duration::from_secs(5);

impl Postgres {
    /// All processes of this server, orphans included. Needs no disk.
    pub(super) fn family(&self) -> Family {
        let directories: [&Path; 2] = [&self.data, &self.options.data_directory];
        family(&NAMES, &directories)
    }

    /// Kills every process of the server until none is left.
    pub(super) async fn kill_all(&self) -> DriverResult {
        self.gate.fence_begins();
        let deadline = Instant::now() + KILL_LIMIT;
        let mut killed = 0_usize;
        loop {
            let family = self.family();
            // None found is none there only if nobody answers either: PGDATA may be written otherwise than it was
            // started, or the server run where this agent does not see its processes.
            let nobody = family.is_gone() && self.nobody_listens().await;
            if nobody {
                let message =
                    if killed == 0 { "no process was left".into() } else { format!("killed {killed} processes") };
                return Ok(Done { already: killed == 0, message, ..Done::default() });
            }
            if family.is_gone() && Instant::now() > deadline {
                return Err(self.not_found());
            }
            if family.members.is_empty() && !family.is_gone() {
                return Err(not_seen());
            }
            // The postmaster first: it would answer the death of a backend by starting all anew.
            for process in &family.members {
                match process.signal(Signal::SIGKILL) {
                    Ok(()) => killed += 1,
                    Err(error) => return Err(may_not_kill(process, error)),
                }
            }
            if Instant::now() > deadline {
                let left: Vec<String> = family.members.iter().map(|process| process.pid.to_string()).collect();
                return Err(DriverError::retryable(
                    "postgres-kill",
                    format!("processes {} are still there after SIGKILL; cut the machine's power", left.join(", ")),
                ));
            }
            tokio::time::sleep(super::GLANCE).await;
        }
    }

    /// Shows that [`Postgres::kill_all`] would find the server and may end it.
    pub(super) async fn can_be_ended(&self) -> Result<(), DriverError> {
        let family = self.family();
        if family.members.is_empty() {
            let nobody = self.nobody_listens().await;
            return match family.hidden {
                _ if nobody => Ok(()),
                true => Err(not_seen()),
                false => Err(self.not_found()),
            };
        }
        let allowed = |process: &Process| process.may_be_signalled().map_err(|error| may_not_kill(process, error));
        family.members.iter().try_for_each(allowed)
    }

    fn not_found(&self) -> DriverError {
        DriverError::retryable(
            "postgres-hidden",
            format!(
                "something listens on {}:{}, but no process works in {}; correct host, port or dataDirectory",
                self.options.host,
                self.options.port,
                self.options.data_directory.display()
            ),
        )
    }

    /// Starts the server by its listed command and waits until it answers. It comes up closed at rest.
    pub(super) async fn start(&self) -> Result<(), DriverError> {
        self.wait_for_burial().await;
        let program = Program::listed(&self.options.start).user(&self.options.os_user);
        self.succeed("postgres-start", &program, COMMAND_LIMIT).await?;
        let began = Instant::now();
        loop {
            match self.acting.row("SELECT pg_is_in_recovery() AS standby", super::STATEMENT_LIMIT).await {
                Ok(row) if truth(&row, "standby").is_some() => return Ok(()),
                Ok(_) => {}
                Err(error) if began.elapsed() > ANSWER_LIMIT => return Err(error.into()),
                Err(_) if began.elapsed() > APPEAR_LIMIT && self.family().is_gone() => {
                    return Err(DriverError::retryable(
                        "postgres-start",
                        "the server ended right after it was started",
                    ));
                }
                Err(_) => {}
            }
            tokio::time::sleep(super::GLANCE * 4).await;
        }
    }

    /// A dead postmaster that nobody has reaped yet still has its id: the server would refuse to start, because its
    /// lock file names a process that seems to live.
    async fn wait_for_burial(&self) {
        let file = self.data.join("postmaster.pid");
        let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
        let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()) else { return };
        let began = Instant::now();
        while began.elapsed() < BURIAL_LIMIT && Process::read(pid).is_some_and(|process| !process.lives()) {
            tokio::time::sleep(super::GLANCE).await;
        }
    }

    /// Runs a program and demands that it succeeds.
    pub(super) async fn succeed(
        &self,
        code: &'static str,
        program: &Program,
        limit: Duration,
    ) -> Result<Finished, DriverError> {
        let finished = program.run(&self.children, limit).await.map_err(|error| error.failure(code))?;
        if finished.success() {
            return Ok(finished);
        }
        let name = program.name();
        Err(DriverError::retryable(code, format!("{name} failed: {}", finished.last_words())))
    }

    /// Stops the server by its listed command and sees it gone.
    pub(super) async fn stop(&self) -> Result<(), DriverError> {
        if self.family().is_gone() {
            return Ok(());
        }
        let program = Program::listed(&self.options.stop).user(&self.options.os_user);
        self.succeed("postgres-stop", &program, COMMAND_LIMIT).await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.family().is_gone() {
            if Instant::now() > deadline {
                return Err(DriverError::retryable(
                    "postgres-stop",
                    "the stop command returned, but the server still runs; check what it stops",
                ));
            }
            tokio::time::sleep(super::GLANCE).await;
        }
        Ok(())
    }
}

fn not_seen() -> DriverError {
    DriverError::permanent(
        "postgres-hidden",
        "there are postgres processes this agent may not look at; run it as root or as the database's user",
    )
}

fn may_not_kill(process: &Process, error: nix::errno::Errno) -> DriverError {
    let message = format!("cannot kill process {}: {error}; run the agent as root", process.pid);
    DriverError::permanent("postgres-kill", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hard_fence_is_not_confirmed_while_somebody_listens() {
        let place = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = serde_json::json!({
            "dataDirectory": place.path(), "socketDirectory": place.path(), "port": listener.local_addr().unwrap().port(),
            "password": "unused", "owner": "owner", "database": "shop", "start": ["true"], "stop": ["true"],
        });
        let postgres = Postgres::new(serde_json::from_value(options).unwrap(), "a");
        let hidden = postgres.kill_all().await.expect_err("a server is there, and none was found");
        assert_eq!(hidden.code, "postgres-hidden", "{hidden}");
        assert_eq!(postgres.can_be_ended().await.unwrap_err().code, "postgres-hidden", "and that is known before");
        drop(listener);
        postgres.can_be_ended().await.unwrap();
        assert!(postgres.kill_all().await.unwrap().already);
    }
}
