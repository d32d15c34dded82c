//! Runs one listed program: no shell, a clean environment, a process group of its own, a bounded time.

use std::collections::{BTreeMap, VecDeque};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::CommandLine;
use crate::secret::Secret;

/// What a program finds others by, if the options do not say otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of the output is kept: the end of it.
const TAIL_LIMIT: usize = 2048;
/// How long the rest of the output is awaited after the program has ended.
const OUTPUT_LIMIT: Duration = Duration::from_millis(200);
/// Secrets shorter than this are not looked for in the output: they would hide ordinary text.
const SHORTEST_SECRET: usize = 4;

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The end of its output.
    pub(super) tail: String,
}

/// Why a program has no end that could be judged.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("{program} cannot be started ({source}); see that it exists and may be executed")]
    Start { program: String, source: std::io::Error },
    #[error("{program} did not end within {} s and was killed with its process group{tail}", limit.as_secs_f32())]
    TimedOut { program: String, limit: Duration, tail: String },
    #[error("{program} was started, but its end cannot be awaited ({source}); see the system's log")]
    Wait { program: String, source: std::io::Error },
}

/// Kills the group unless told that the program has ended. Dropped with the future that runs the program, so nothing
/// outlives a caller that gave up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The leader has not been waited for, so the number still is this group's. Gone already is as good.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a program to its end. What it leaves running in the background goes on.
pub(super) async fn run(
    line: &CommandLine,
    environment: &BTreeMap<String, Secret>,
    limit: Duration,
) -> Result<Ended, ProcessError> {
    let program = || line.program.display().to_string();
    let mut command = Command::new(&line.program);
    command
        .args(&line.arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(environment.iter().map(|(name, value)| (name, value.expose())))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(|source| ProcessError::Start { program: program(), source })?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let tail = Tail::default();
    let readers =
        [child.stdout.take().map(|pipe| tail.follow(pipe)), child.stderr.take().map(|pipe| tail.follow(pipe))];

    let Ok(waited) = timeout(limit, child.wait()).await else {
        drop(group);
        // Reaped, or it would stay a zombie; a process that cannot be killed is left to the runtime.
        let _ = timeout(OUTPUT_LIMIT, child.wait()).await;
        let tail = shown(&tail.text(environment));
        return Err(ProcessError::TimedOut { program: program(), limit, tail });
    };
    group.0 = None;
    let status = waited.map_err(|source| ProcessError::Wait { program: program(), source })?;
    // A daemon that was started may hold the pipes open for ever.
    let finished = async {
        for reader in readers.into_iter().flatten() {
            let _ = reader.await;
        }
    };
    let _ = timeout(OUTPUT_LIMIT, finished).await;
    Ok(Ended { status, tail: tail.text(environment) })
}

/// An output's tail as the end of a message.
pub(super) fn shown(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!(": {tail}") }
}

/// The last bytes of both outputs, as they came.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Reads a pipe until its end, which may be long after the program's own: a daemon that still writes must find a
    /// reader, or it would be ended by its next line.
    fn follow(&self, mut pipe: impl AsyncRead + Unpin + Send + 'static) -> tokio::task::JoinHandle<()> {
        let tail = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
                let mut bytes = tail.0.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend(&buffer[..length]);
                let excess = bytes.len().saturating_sub(TAIL_LIMIT);
                bytes.drain(..excess);
            }
        })
    }

    /// The tail as text, with the values of secret variables hidden.
    fn text(&self, environment: &BTreeMap<String, Secret>) -> String {
        let bytes: Vec<u8> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let mut text = String::from_utf8_lossy(&bytes).trim().to_owned();
        for secret in environment.values().map(Secret::expose).filter(|secret| secret.len() >= SHORTEST_SECRET) {
            text = text.replace(secret, "***");
        }
        text
    }
}
