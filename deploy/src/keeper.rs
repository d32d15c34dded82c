//! A keeper is the machine that processes run on: everything started through it descends from it, daemons included.
//!
//! ```text
//! harness ──requests──► regent-keeper (sub-reaper, process group of its own)
//!         ◄──events───    ├─ regent-coordinator        a child dies with the keeper
//!                         ├─ regent-agent ─ guard
//!                         └─ postgres                  a daemon whose parent ended becomes the keeper's
//! ```
//!
//! When the harness ends, however it ends, the keeper's input closes, and the keeper kills everything below it and ends. That
//! is what makes Ctrl-C, a failed test and a kill -9 of the harness leave nothing behind. [`Keeper::kill_all`] loses the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

use crate::place;
use crate::tree;

pub mod serve;

/// How long the end of a keeper is waited for: it has only to kill.
const END: Duration = Duration::from_secs(10);

/// A program to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// What it is called in messages.
    pub name: String,
    /// Absolute path and arguments.
    pub command: Vec<String>,
    /// Set beside what the harness itself has.
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Its output goes to the end of this file.
    pub log: PathBuf,
}

impl Program {
    /// A program that runs in `folder` and logs to `NAME.log` there.
    pub fn new<W: Into<String>>(name: &str, folder: &Path, command: impl IntoIterator<Item = W>) -> Self {
        Self {
            name: name.to_owned(),
            command: command.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
            folder: folder.to_owned(),
            log: folder.join(format!("{name}.log")),
        }
    }
}

/// What the harness asks.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Start {
        id: u64,
        program: Program,
    },
    KillAll {
        id: u64,
    },
    /// From now on the end of the harness changes nothing.
    Detach {
        id: u64,
    },
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
enum Event {
    Started { id: u64, pid: i32 },
    Failed { id: u64, message: String },
    Exited { pid: i32, status: Exit },
    Done { id: u64, count: usize },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Enough to find a keeper again that was left running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mark {
    /// Its process.
    pub pid: i32,
    /// When that started, so that no other process is taken for it.
    pub started: u64,
}

impl Mark {
    /// Ends the keeper and everything below it.
    ///
    /// # Errors
    /// It is still there after ten seconds.
    pub async fn end(&self) -> Result<()> {
        let pid = Pid::from_raw(self.pid);
        let is_there = || tree::is_running(pid) && tree::started(pid) == Some(self.started);
        if is_there() {
            kill(pid, Signal::SIGTERM).with_context(|| format!("cannot end the keeper {pid}"))?;
        }
        crate::wait::until("the end of a keeper", END, || async {
            if is_there() { bail!("process {pid} still runs") } else { Ok(()) }
        })
        .await
    }
}

type Answer = Result<usize, String>;
type Start = Result<(Pid, watch::Receiver<Option<Exit>>), String>;

/// Requests that wait for an answer, and processes that run.
#[derive(Default)]
struct Open {
    next: u64,
    answers: BTreeMap<u64, oneshot::Sender<Answer>>,
    starts: BTreeMap<u64, oneshot::Sender<Start>>,
    exits: BTreeMap<i32, watch::Sender<Option<Exit>>>,
}

/// See the module.
pub struct Keeper {
    name: String,
    mark: Mark,
    input: AsyncMutex<Option<ChildStdin>>,
    open: Arc<Mutex<Open>>,
    child: Mutex<Child>,
    detached: AtomicBool,
}

impl Keeper {
    /// Starts a keeper; its own messages go to `keeper.log` in `folder`.
    ///
    /// # Errors
    /// The program `regent-keeper` is missing or cannot be started.
    pub fn start(name: &str, folder: &Path) -> Result<Self> {
        Self::start_by(&[], name, folder)
    }

    /// The same by a `launcher`: a program with arguments that ends by becoming the keeper.
    ///
    /// # Errors
    /// One of the two programs is missing or cannot be started.
    pub fn start_by(launcher: &[String], name: &str, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log = std::fs::File::create(folder.join("keeper.log"))?;
        let own = place::binary("regent-keeper")?;
        let mut command = match launcher.split_first() {
            None => Command::new(own),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(own);
                command
            }
        };
        let mut child = command
            // Not reached by the Ctrl-C that is meant for the harness.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start regent-keeper")?;
        let pid = child.id().context("the keeper ended at once")?.cast_signed();
        let started = tree::started(Pid::from_raw(pid)).context("the keeper ended at once")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the keeper has no output")?;
        let open = Arc::new(Mutex::new(Open::default()));
        tokio::spawn(listen(output, Arc::clone(&open)));
        Ok(Self {
            name: name.to_owned(),
            mark: Mark { pid, started },
            input: AsyncMutex::new(input),
            open,
            child: Mutex::new(child),
            detached: AtomicBool::new(false),
        })
    }

    /// Enough to find it again.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark.clone()
    }

    /// Everything that runs on it.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        tree::descendants(Pid::from_raw(self.mark.pid))
    }

    /// Starts a program.
    ///
    /// # Errors
    /// It cannot be started, or the keeper is gone.
    pub async fn spawn(&self, program: Program) -> Result<Process> {
        let (sender, answer) = oneshot::channel();
        let (name, log) = (program.name.clone(), program.log.clone());
        let id = {
            let mut open = lock(&self.open);
            let id = open.id();
            open.starts.insert(id, sender);
            id
        };
        self.send(&Request::Start { id, program }).await?;
        let answer = answer.await.with_context(|| format!("the keeper of {} is gone", self.name))?;
        let (pid, exit) = answer.map_err(|message| anyhow::anyhow!("cannot start {name}: {message}"))?;
        Ok(Process { name, pid, exit, log })
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// It does not end well within the time, or cannot be started; with the last lines of its log.
    pub async fn run(&self, program: Program, within: Duration) -> Result<()> {
        let name = program.name.clone();
        let process = self.spawn(program).await?;
        match process.ended(within).await {
            Ok(Exit::Code(0)) => Ok(()),
            Ok(exit) => bail!("{name} ended with {exit}; it said:\n{}", process.last_words()),
            Err(error) => {
                process.kill();
                Err(error.context(format!("{name} said:\n{}", process.last_words())))
            }
        }
    }

    /// Loses the machine: kills everything on it with SIGKILL, and gives the number of processes once none is left.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn kill_all(&self) -> Result<usize> {
        self.ask(|id| Request::KillAll { id }).await
    }

    /// Leaves the keeper, and all that it keeps, running when the harness ends.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn detach(&self) -> Result<Mark> {
        self.ask(|id| Request::Detach { id }).await?;
        self.detached.store(true, Ordering::Relaxed);
        Ok(self.mark())
    }

    /// Kills everything and waits for the end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(&self) -> Result<()> {
        self.input.lock().await.take();
        crate::wait::until("the end of a keeper", END, || async {
            if self.has_ended() { Ok(()) } else { bail!("the keeper of {} still runs", self.name) }
        })
        .await
    }

    /// True if it outlives the harness.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    fn has_ended(&self) -> bool {
        !matches!(self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait(), Ok(None))
    }

    async fn ask(&self, request: impl FnOnce(u64) -> Request) -> Result<usize> {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut open = lock(&self.open);
            let id = open.id();
            open.answers.insert(id, sender);
            id
        };
        self.send(&request(id)).await?;
        let answer = answer.await.with_context(|| format!("the keeper of {} is gone", self.name))?;
        answer.map_err(|message| anyhow::anyhow!(message))
    }

    async fn send(&self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut input = self.input.lock().await;
        let input = input.as_mut().with_context(|| format!("the keeper of {} was ended", self.name))?;
        input.write_all(&line).await.with_context(|| format!("the keeper of {} is gone", self.name))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.is_detached() {
            return;
        }
        self.input.get_mut().take();
        // Whoever comes next may want the same ports and folders: wait until it is over.
        let deadline = std::time::Instant::now() + END;
        while !self.has_ended() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Open {
    const fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn lock(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the keeper's events until it ends.
async fn listen(output: ChildStdout, open: Arc<Mutex<Open>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
        let mut open = lock(&open);
        match event {
            Event::Started { id, pid } => {
                let (sender, exit) = watch::channel(None);
                open.exits.insert(pid, sender);
                if let Some(answer) = open.starts.remove(&id) {
                    let _gone = answer.send(Ok((Pid::from_raw(pid), exit)));
                }
            }
            Event::Failed { id, message } => {
                if let Some(answer) = open.starts.remove(&id) {
                    let _gone = answer.send(Err(message));
                }
            }
            Event::Exited { pid, status } => {
                if let Some(sender) = open.exits.remove(&pid) {
                    sender.send_replace(Some(status));
                }
            }
            Event::Done { id, count } => {
                if let Some(answer) = open.answers.remove(&id) {
                    let _gone = answer.send(Ok(count));
                }
            }
        }
    }
    // Whoever waits is told by the closed channels.
    let mut open = lock(&open);
    open.answers.clear();
    open.starts.clear();
    for sender in std::mem::take(&mut open.exits).into_values() {
        sender.send_replace(Some(Exit::Signal(Signal::SIGKILL as i32)));
    }
}

/// A process that the harness started itself, with a process group of its own.
#[derive(Debug, Clone)]
pub struct Process {
    name: String,
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
    log: PathBuf,
}

impl Process {
    /// Its number.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// True until it ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends a signal; nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may have ended in between, which is as good.
            let _gone = kill(self.pid, signal);
        }
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// SIGSTOP: it holds everything it has and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs.
    pub async fn ended(&self, within: Duration) -> Result<Exit> {
        let mut exit = self.exit.clone();
        let seen = tokio::time::timeout(within, exit.wait_for(Option::is_some))
            .await
            .with_context(|| format!("{} still runs after {:.1} s", self.name, within.as_secs_f32()))?;
        Ok(seen.ok().and_then(|exit| *exit).unwrap_or(Exit::Signal(Signal::SIGKILL as i32)))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_lines(&self.log, 15)
    }
}

/// The last lines of a file, or why there are none.
#[must_use]
pub fn last_lines(path: &Path, count: usize) -> String {
    match std::fs::read(path) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        }
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}
