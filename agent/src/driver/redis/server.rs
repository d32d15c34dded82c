//! The server as a process: finding, starting and killing it.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::closed::{Before, HELD, HOLDING, SYNC_DELAY, Setting};
use super::{COMMAND_LIMIT, GLANCE, Redis, ok};
use crate::driver::process::contact::{Contact, contact};
use crate::driver::process::table::{Process, living, with_descendants};
use crate::driver::process::{Program, disk};
use crate::driver::{Done, DriverError, DriverResult};

/// How long a hard fence goes on killing.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Reading the pid file: a hard fence must not wait for a disk.
const PID_LIMIT: Duration = Duration::from_millis(200);

/// The server's word on its process, where that is looked for before it is needed.
const WORD_LIMIT: Duration = Duration::from_millis(100);

/// How long the listed start command may take, and the server until it answers.
const START_LIMIT: Duration = Duration::from_secs(120);

impl Redis {
    /// The server's process: the one it last named itself, else the one the pid file names, if it is this server.
    pub(super) async fn process(&self) -> Option<Process> {
        let known = self.known().process.clone();
        if let Some(process) = known.filter(Process::still_lives) {
            return Some(process);
        }
        let file = self.options.pid_file.clone();
        let text = disk::bounded("redis-files", PID_LIMIT, "reading pidFile", move || std::fs::read_to_string(file));
        let pid = text.await.ok()?.trim().parse().ok()?;
        Process::read(pid).filter(|process| process.lives() && self.is_this_server(process))
    }

    /// A pid file may be stale and its number somebody else's.
    fn is_this_server(&self, process: &Process) -> bool {
        let redis = process.name.starts_with("redis") || process.name.starts_with("valkey");
        // `redis-server HOST:PORT`, unless the operator set another title.
        let title = process.title();
        let ports: Vec<&str> = title.split(' ').filter_map(|word| word.rsplit_once(':')).map(|pair| pair.1).collect();
        redis && (ports.is_empty() || ports.contains(&self.options.port.to_string().as_str()))
    }

    /// Nothing of it runs, and nobody listens where clients connect.
    pub(super) async fn is_gone(&self) -> bool {
        self.process().await.is_none() && self.contact().await == Contact::Nobody
    }

    async fn contact(&self) -> Contact {
        contact(&self.options.host, self.options.port, COMMAND_LIMIT / 4).await
    }

    /// Kills the server and its children, and sees them gone.
    pub(super) async fn kill_all(&self) -> DriverResult {
        self.gate.begins();
        let deadline = Instant::now() + KILL_LIMIT;
        let mut killed = 0_usize;
        let mut family: Vec<Process> = Vec::new();
        loop {
            if let Some(head) = self.process().await {
                family.extend(with_descendants(&living(), BTreeSet::from([head.pid])));
            }
            family.retain(Process::still_lives);
            let found = self.contact().await;
            if family.is_empty() && found == Contact::Nobody {
                let message =
                    if killed == 0 { "no process was left".into() } else { format!("killed {killed} processes") };
                return Ok(Done { already: killed == 0, message, ..Done::default() });
            }
            for process in &family {
                process.signal(Signal::SIGKILL).map_err(|error| may_not_kill(process, error))?;
                killed += 1;
            }
            if Instant::now() > deadline {
                return Err(match family.first() {
                    Some(process) => DriverError::retryable(
                        "redis-kill",
                        format!("process {} is still there after SIGKILL; cut the machine's power", process.pid),
                    ),
                    None => not_found(),
                });
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Shows that [`Redis::kill_all`] would find the server and may end it. Its own word on its process is asked for, so
    /// that a guard, which never probes, knows it when the server does not answer any more.
    pub(super) async fn can_be_ended(&self) -> Result<(), DriverError> {
        let answers = self.info_by(&self.probing, WORD_LIMIT).await.is_ok();
        match self.process().await {
            Some(process) => process.may_be_signalled().map_err(|error| may_not_kill(&process, error)),
            None if answers || self.contact().await != Contact::Nobody => Err(not_found()),
            None => Ok(()),
        }
    }

    /// Starts the server by its listed command and waits until it answers. It comes up closed at rest.
    pub(super) async fn start(&self) -> Result<(), DriverError> {
        let program = Program::listed(&self.options.start);
        let finished = program.run(&self.children, START_LIMIT).await.map_err(|error| error.failure("redis-start"))?;
        if !finished.success() {
            let message = format!("{} failed: {}", program.name(), finished.last_words());
            return Err(DriverError::retryable("redis-start", message));
        }
        let began = Instant::now();
        loop {
            match self.info().await {
                Ok(info) if !info.is("loading", "1") => return Ok(()),
                Ok(_) => {}
                Err(error) if began.elapsed() > START_LIMIT => return Err(error.into()),
                Err(_) => {}
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Closes the configuration file of a running server; false if it was closed.
    pub(super) async fn close_at_rest(&self, alone: bool) -> Result<bool, DriverError> {
        Ok(self.close_file(alone).await? != Before::Closed)
    }

    /// The same; what the file was before.
    pub(super) async fn close_file(&self, alone: bool) -> Result<Before, DriverError> {
        let Some(file) = self.config_file() else { return Err(no_config_file()) };
        let running = self.running().await;
        let writing = self.writing.clone();
        disk::bounded("redis-files", super::DISK_LIMIT, "closing Redis at rest in its configuration file", move || {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            super::closed::close(&file, alone, &running)
        })
        .await
    }

    /// What it runs with of what holds copies back; nothing while it is held, or if it does not answer.
    async fn running(&self) -> Vec<Setting> {
        let mut running = Vec::new();
        for key in HOLDING {
            let Ok(value) = self.get(key).await else { return Vec::new() };
            if key == SYNC_DELAY && (value == HELD || value.is_empty()) {
                return Vec::new();
            }
            // Older servers do not know each of them.
            if !value.is_empty() {
                running.push((key, value));
            }
        }
        running
    }

    /// The same beside a fence, which waits for no disk: what was open when it was taken into guard, because it did not
    /// run then or its file was not known, does not come up open at its next start.
    pub(super) fn close_at_rest_beside(&self) {
        let Some(file) = self.config_file() else { return };
        let writing = self.writing.clone();
        tokio::task::spawn_blocking(move || {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = super::closed::close(&file, false, &[]) {
                let error = crate::journal::chain(&error);
                tracing::error!(file = %file.display(), error, "cannot close Redis at rest");
            }
        });
    }

    /// Where a running server said its configuration is, else where the operator says.
    pub(super) fn config_file(&self) -> Option<std::path::PathBuf> {
        self.known().config_file.clone().or_else(|| self.options.config_file.clone())
    }

    /// Sets a parameter at run time.
    pub(super) async fn set(&self, key: &str, value: &str) -> Result<(), DriverError> {
        ok(self.acting.ask(&super::command(&["CONFIG", "SET", key, value]), COMMAND_LIMIT).await)
    }

    /// A parameter as it is now.
    pub(super) async fn get(&self, key: &str) -> Result<String, DriverError> {
        let answer: Vec<String> = self.acting.ask(&super::command(&["CONFIG", "GET", key]), COMMAND_LIMIT).await?;
        Ok(answer.into_iter().nth(1).unwrap_or_default())
    }
}

fn not_found() -> DriverError {
    DriverError::retryable(
        "redis-hidden",
        "something listens on the port, but pidFile names no Redis of this port; correct pidFile",
    )
}

fn may_not_kill(process: &Process, error: nix::errno::Errno) -> DriverError {
    let message = format!("cannot kill process {}: {error}; run the agent as root", process.pid);
    DriverError::permanent("redis-kill", message)
}

pub(super) fn no_config_file() -> DriverError {
    DriverError::permanent(
        "redis-no-config-file",
        "Redis runs without a configuration file, so its next start would accept writes; give it one",
    )
}

/// It may come back by itself in a moment, and then says where its file is.
pub(super) fn no_file_to_close() -> DriverError {
    DriverError::retryable(
        "redis-no-config-file",
        "Redis does not run and its configuration file is not known, so its next start may accept writes; set configFile",
    )
}
