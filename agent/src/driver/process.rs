//! Running programs: bounded, without a shell, with a clean environment, as the right user.
//!
//! A program gets a process group of its own. It is ended with its whole group when its time is up or when the future
//! that waits for it is dropped: children of a step that is no longer waited for do not live on (S4). A program that
//! ends by itself may leave daemons behind; starting a database does.

pub mod contact;
pub mod disk;
pub mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, geteuid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::secret::Secret;

/// Kept of each of the two outputs.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// How long output is awaited after the end: a daemon left behind may hold the pipe open for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(50);

/// One program with its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    command: Vec<OsString>,
    user: Option<String>,
    environment: Vec<(String, Secret)>,
    directory: PathBuf,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Beginning of its standard output.
    pub output: String,
    /// Beginning of its standard error.
    pub errors: String,
}

impl Finished {
    /// It exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its last words, for a message: the last lines of standard error, or of the output.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = if self.errors.trim().is_empty() { &self.output } else { &self.errors };
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}

/// Why a program could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Nothing to run.
    #[error("the command is empty; list a program by its absolute path")]
    Empty,
    /// The user does not exist.
    #[error("there is no user {0} on this machine; set osUser")]
    NoSuchUser(String),
    /// It did not start.
    #[error("cannot start {program}; check that it exists and is executable")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It could not be waited for.
    #[error("cannot wait for {program}")]
    Wait {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It was ended with its group.
    #[error("{program} was ended after {limit:?}")]
    TimedOut {
        /// The program.
        program: String,
        /// The bound.
        limit: Duration,
    },
}

impl Program {
    /// A program by its listed command: an absolute path and arguments.
    #[must_use]
    pub fn listed(command: &[String]) -> Self {
        Self {
            command: command.iter().map(OsString::from).collect(),
            user: None,
            environment: Vec::new(),
            directory: PathBuf::from("/"),
        }
    }

    /// A program by its path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { command: vec![path.into()], user: None, environment: Vec::new(), directory: PathBuf::from("/") }
    }

    /// One more argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.command.push(argument.into());
        self
    }

    /// Runs as this user if the agent is root, without supplementary groups and with that user's HOME.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// One more variable; the agent's own environment is never passed on.
    #[must_use]
    pub fn variable(mut self, name: &str, value: Secret) -> Self {
        self.environment.push((name.to_owned(), value));
        self
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.command.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Runs it to its end, or ends it with its group after `limit` or when the future is dropped.
    ///
    /// # Errors
    /// If it cannot be started or waited for, or did not end in time. An exit code is no error.
    pub async fn run(&self, limit: Duration) -> Result<Finished, ProcessError> {
        let mut child =
            self.command()?.spawn().map_err(|source| ProcessError::Start { program: self.name(), source })?;
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        let output = Tail::of(child.stdout.take());
        let errors = Tail::of(child.stderr.take());
        let Ok(ended) = tokio::time::timeout(limit, child.wait()).await else {
            return Err(ProcessError::TimedOut { program: self.name(), limit });
        };
        let status = ended.map_err(|source| ProcessError::Wait { program: self.name(), source })?;
        group.0 = None;
        let (output, errors) = tokio::join!(output.take(), errors.take());
        Ok(Finished { code: status.code(), output, errors })
    }

    fn command(&self) -> Result<Command, ProcessError> {
        let (program, arguments) = self.command.split_first().ok_or(ProcessError::Empty)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for (name, value) in &self.environment {
            command.env(name, value.expose());
        }
        if let Some(name) = &self.user {
            let user = User::from_name(name).ok().flatten().ok_or_else(|| ProcessError::NoSuchUser(name.clone()))?;
            command.env("HOME", &user.dir).env("USER", name).env("LOGNAME", name);
            if geteuid().is_root() && !user.uid.is_root() {
                // The standard library drops supplementary groups with the user.
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
        }
        Ok(command)
    }
}

/// A process group that ends when this is dropped while it still holds it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nothing can be done about a failure: the group is gone, or not ours to end.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// The beginning of an output, read while the program runs.
struct Tail {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<tokio::task::JoinHandle<()>>,
}

impl Tail {
    fn of(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&text);
        let reader = pipe.map(|mut pipe| {
            tokio::spawn(async move {
                let mut part = vec![0; 4096];
                while let Ok(count) = pipe.read(&mut part).await {
                    if count == 0 {
                        break;
                    }
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = OUTPUT_LIMIT.saturating_sub(kept.len());
                    kept.extend_from_slice(&part[..count.min(room)]);
                }
            })
        });
        Self { text, reader }
    }

    async fn take(mut self) -> String {
        if let Some(reader) = self.reader.as_mut() {
            let _ = tokio::time::timeout(OUTPUT_GRACE, reader).await;
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::listed(&["/bin/sh".into(), "-c".into(), script.into()])
    }

    #[tokio::test]
    async fn gives_code_and_both_outputs() {
        let finished = shell("echo out; echo err >&2; exit 3").run(Duration::from_secs(10)).await.unwrap();
        assert_eq!(finished, Finished { code: Some(3), output: "out\n".into(), errors: "err\n".into() });
        assert_eq!(finished.last_words(), "err");
    }

    #[tokio::test]
    async fn ends_the_whole_group_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let error = shell(&script).run(Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, ProcessError::TimedOut { .. }), "{error}");
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while table::Process::read(pid).is_some_and(|process| process.lives()) {
            assert!(std::time::Instant::now() < deadline, "the child of an ended program lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_daemon_left_behind_does_not_hold_it_up() {
        let began = std::time::Instant::now();
        let finished = shell("sleep 3 & echo started").run(Duration::from_secs(10)).await.unwrap();
        assert_eq!(finished.output, "started\n");
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn the_environment_is_clean() {
        let program = shell("env").variable("SAID", Secret::new("so"));
        let output = program.run(Duration::from_secs(10)).await.unwrap().output;
        assert!(output.contains("SAID=so"), "{output}");
        assert!(!output.contains("CARGO"), "{output}");
    }
}
