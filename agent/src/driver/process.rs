//! Running programs: bounded, without a shell, with a clean environment, as the right user.
//!
//! A program gets a process group of its own. It is ended with its whole group when its time is up or when the future
//! that waits for it is dropped: children of a step that is no longer waited for do not live on (S4), nor do those of an
//! agent that died (`children`). A program that ends by itself may leave daemons behind; starting a database does.

pub mod children;
pub mod contact;
pub mod disk;
pub mod table;
pub(crate) mod there;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, geteuid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use self::children::{Children, Entry, Unready, VARIABLE};
use crate::driver::DriverError;
use crate::journal::chain;
use crate::secret::Secret;

/// Kept of the end of each of the two outputs.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// Kept of the end of both as they came, for messages.
pub(crate) const TAIL_LIMIT: usize = 2048;

/// How long output is awaited after the end: a daemon left behind may hold the pipe open for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// Where a program is looked for that is named without a folder.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    /// The same for humans, with the signal.
    pub how: String,
    /// End of its standard output.
    pub output: String,
    /// End of its standard error.
    pub errors: String,
    /// End of both as they came.
    pub tail: String,
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
        /// End of its outputs.
        tail: String,
    },
    /// It may still meet what an agent that died left running.
    #[error("{program} is not started: what an agent that died had left running does not end; see the agent's log")]
    LeftBehind {
        /// The program.
        program: String,
    },
    /// Should the agent die, nobody would end it.
    #[error("{program} is not started: it cannot be recorded in the runtime directory; free some memory there")]
    Unrecorded {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
}

impl ProcessError {
    /// As the failure of an action, by this code if it is the program's own.
    #[must_use]
    pub fn failure(&self, code: &'static str) -> DriverError {
        let message = chain(self);
        match self {
            Self::LeftBehind { .. } => DriverError::retryable("left-behind", message),
            Self::Unrecorded { .. } => DriverError::retryable("not-recorded", message),
            Self::Empty | Self::NoSuchUser(_) => DriverError::permanent(code, message),
            Self::Start { .. } | Self::Wait { .. } | Self::TimedOut { .. } => DriverError::retryable(code, message),
        }
    }
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
    pub async fn run(&self, children: &Children, limit: Duration) -> Result<Finished, ProcessError> {
        self.run_with(children, limit, None).await
    }

    /// The same, with all of its standard output handed on as it comes. It is read to its end, also if something that the
    /// program left behind holds it open.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub async fn stream(
        &self,
        children: &Children,
        limit: Duration,
        sink: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Finished, ProcessError> {
        self.run_with(children, limit, Some(Box::new(sink))).await
    }

    async fn run_with(
        &self,
        children: &Children,
        limit: Duration,
        sink: Option<Sink>,
    ) -> Result<Finished, ProcessError> {
        let entry = children.begin(self.name(), limit).await.map_err(|unready| match unready {
            Unready::LeftBehind => ProcessError::LeftBehind { program: self.name() },
            Unready::Unrecorded(source) => ProcessError::Unrecorded { program: self.name(), source },
        })?;
        let started = self.command().and_then(|mut command| {
            command.env(VARIABLE, &entry.name);
            command.spawn().map_err(|source| ProcessError::Start { program: self.name(), source })
        });
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                entry.ended();
                return Err(error);
            }
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        if let Some(leader) = group {
            entry.began(self.name(), leader);
        }
        let running = Running(Some((group, entry)));
        let whole = sink.is_some();
        let mut outputs = Outputs::follow(child.stdout.take(), child.stderr.take(), sink);
        let Ok(ended) = tokio::time::timeout(limit, child.wait()).await else {
            drop(running);
            return Err(ProcessError::TimedOut { program: self.name(), limit, tail: outputs.both.text() });
        };
        let status = ended.map_err(|source| ProcessError::Wait { program: self.name(), source })?;
        running.ended();
        if !outputs.finish(if whole { limit } else { OUTPUT_GRACE }).await && whole {
            return Err(ProcessError::TimedOut { program: self.name(), limit, tail: outputs.both.text() });
        }
        Ok(Finished {
            code: status.code(),
            how: status.to_string(),
            output: outputs.output.text(),
            errors: outputs.errors.text(),
            tail: outputs.both.text(),
        })
    }

    fn command(&self) -> Result<Command, ProcessError> {
        let (program, arguments) = self.command.split_first().ok_or(ProcessError::Empty)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
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

/// A program that has not ended. It ends with its group when this is dropped.
struct Running(Option<(Option<Pid>, Entry)>);

impl Running {
    /// It ended by itself; what it left behind goes on.
    fn ended(mut self) {
        if let Some((_, entry)) = self.0.take() {
            entry.ended();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((Some(group), entry)) = self.0.take() {
            // The leader has not been waited for, so the number still is this group's. Nothing can be done about a
            // failure: the group is gone, or not ours to end.
            let _ = killpg(group, Signal::SIGKILL);
            entry.killed(group);
        }
    }
}

/// Takes an output as it comes.
type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// Both outputs, read until their ends, which may be long after the program's own: a daemon that still writes must
/// find a reader, or it would be ended by its next line.
struct Outputs {
    output: Kept,
    errors: Kept,
    /// As they came.
    both: Kept,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Outputs {
    fn follow(
        output: Option<impl AsyncRead + Unpin + Send + 'static>,
        errors: Option<impl AsyncRead + Unpin + Send + 'static>,
        sink: Option<Sink>,
    ) -> Self {
        let both = Kept::new(TAIL_LIMIT);
        let (kept_output, kept_errors) = (Kept::new(OUTPUT_LIMIT), Kept::new(OUTPUT_LIMIT));
        let mut readers = Vec::new();
        readers.extend(output.map(|pipe| read(pipe, [kept_output.clone(), both.clone()], sink)));
        readers.extend(errors.map(|pipe| read(pipe, [kept_errors.clone(), both.clone()], None)));
        Self { output: kept_output, errors: kept_errors, both, readers }
    }

    /// False if not both have come to their ends within the time.
    async fn finish(&mut self, grace: Duration) -> bool {
        tokio::time::timeout(grace, futures::future::join_all(&mut self.readers)).await.is_ok()
    }
}

fn read(
    mut pipe: impl AsyncRead + Unpin + Send + 'static,
    into: [Kept; 2],
    mut sink: Option<Sink>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut part = vec![0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut part).await {
            into.iter().for_each(|kept| kept.push(&part[..count]));
            if let Some(sink) = &mut sink {
                sink(&part[..count]);
            }
        }
    })
}

/// The end of an output.
#[derive(Clone)]
struct Kept {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    limit: usize,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    fn push(&self, part: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend(part);
        let excess = bytes.len().saturating_sub(self.limit);
        bytes.drain(..excess);
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
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
        let finished =
            shell("echo out; echo err >&2; exit 3").run(&Children::default(), Duration::from_secs(10)).await.unwrap();
        assert_eq!((finished.code, finished.how.as_str()), (Some(3), "exit status: 3"));
        assert_eq!((finished.output.as_str(), finished.errors.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.last_words(), "err");
    }

    #[tokio::test]
    async fn ends_the_whole_group_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let error = shell(&script).run(&Children::default(), Duration::from_millis(300)).await.unwrap_err();
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
        let finished =
            shell("sleep 3 & echo started").run(&Children::default(), Duration::from_secs(10)).await.unwrap();
        assert_eq!(finished.output, "started\n");
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn the_environment_is_clean() {
        let program = shell("env").variable("SAID", Secret::new("so"));
        let output = program.run(&Children::default(), Duration::from_secs(10)).await.unwrap().output;
        assert!(output.contains("SAID=so"), "{output}");
        assert!(!output.contains("CARGO"), "{output}");
    }

    #[tokio::test]
    async fn an_output_that_is_handed_on_is_whole() {
        let seen = Arc::new(Mutex::new(0_usize));
        let counting = seen.clone();
        let program = shell("head -c 10000000 /dev/zero");
        let sink = move |part: &[u8]| *counting.lock().unwrap() += part.len();
        let finished = program.stream(&Children::default(), Duration::from_secs(60), sink).await.unwrap();
        assert!(finished.success() && finished.output.len() == OUTPUT_LIMIT, "{}", finished.how);
        assert_eq!(*seen.lock().unwrap(), 10_000_000);
    }
}
