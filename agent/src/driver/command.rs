//! `kind: command`: a service that the programs listed in agent.yaml start, stop and check.
//!
//! Nothing else can be run: a coordinator names a command, and its absolute path and arguments are this agent's own.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use regent_core::facts::{Findings, Listed, NO_STATUS_COMMAND};
use tokio::time::Instant;

use super::process::children::Children;
use super::process::there::obstacle_of;
use super::process::{Finished, ProcessError, Program, TAIL_LIMIT};
use super::{Done, Driver, DriverError, DriverResult, Found, Health, Probe, Role};
use crate::config::{CommandLine, CommandOptions};
use crate::secret::Secret;

/// Bounds a probe, whatever the commands' own time-out.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// Bounds a look at the capacity.
const CAPACITY_LIMIT: Duration = Duration::from_secs(30);
/// Secrets shorter than this are not looked for in the output: they would hide ordinary text.
const SHORTEST_SECRET: usize = 4;
/// A restore takes as long as its step allows; this only ends what no step would.
const RESTORE_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Between two looks at a service that comes up or goes.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// A service behind commands.
pub struct CommandDriver {
    options: CommandOptions,
    children: Children,
}

/// What the status command says.
enum Status {
    Running,
    /// It ended with another code than 0.
    NotRunning(String),
    /// It was ended by a signal, could not be started, or took too long.
    Unknown(String),
    /// There is no such command.
    NotListed,
}

impl CommandDriver {
    /// A driver that runs what the options list, recorded among `children`.
    #[must_use]
    pub fn new(options: CommandOptions, children: &Children) -> Self {
        Self { options, children: children.clone() }
    }

    async fn execute(&self, line: &CommandLine, limit: Duration) -> Result<Finished, ProcessError> {
        let program = line.arguments.iter().fold(Program::at(&line.program), Program::argument);
        let environment = self.options.environment.iter();
        let program = environment.fold(program, |program, (name, value)| program.variable(name, value.clone()));
        program.run(&self.children, limit).await
    }

    /// The end of an output as the end of a message, with the values of secret variables hidden.
    fn shown(&self, tail: &str) -> String {
        let secrets: Vec<&str> = self.options.environment.values().map(Secret::expose).collect();
        let long = secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET);
        let longest = long.clone().map(|secret| secret.len()).max().unwrap_or_default();
        let text = long.fold(tail.to_owned(), |text, secret| text.replace(*secret, "***"));
        // What was cut may begin with the end of one.
        let cut = if tail.len() >= TAIL_LIMIT { longest.saturating_sub(1).min(text.len()) } else { 0 };
        let text = text.get(text.ceil_char_boundary(cut)..).unwrap_or_default().trim();
        if text.is_empty() { String::new() } else { format!(": {text}") }
    }

    fn failed(&self, error: &ProcessError) -> DriverError {
        let ProcessError::TimedOut { program, limit, tail } = error else {
            return error.failure("command-not-started");
        };
        let (seconds, tail) = (limit.as_secs_f32(), self.shown(tail));
        let message = format!("{program} did not end within {seconds} s and was killed with its process group{tail}");
        DriverError::retryable("command-timed-out", message)
    }

    /// Runs a command that must succeed; gives the end of its output as the end of a message.
    async fn succeed(&self, line: &CommandLine, limit: Duration) -> Result<String, DriverError> {
        let ended = self.execute(line, limit).await.map_err(|error| self.failed(&error))?;
        self.judged(line, &ended)
    }

    fn judged(&self, line: &CommandLine, ended: &Finished) -> Result<String, DriverError> {
        let tail = self.shown(&ended.tail);
        if ended.success() {
            return Ok(tail);
        }
        let message = format!("{} failed ({}); see its output{tail}", line.program.display(), ended.how);
        Err(DriverError::retryable("command-failed", message))
    }

    /// The same for what may leave half of something: what began, and did not say by an exit code how it ended, is told
    /// from any other failure.
    async fn succeed_whole(&self, line: &CommandLine, limit: Duration) -> Result<String, DriverError> {
        let error = match self.execute(line, limit).await {
            Ok(ended) if ended.code.is_some() => return self.judged(line, &ended),
            Ok(ended) => {
                let tail = self.shown(&ended.tail);
                format!("{} was ended in the middle ({}){tail}", line.program.display(), ended.how)
            }
            Err(error @ (ProcessError::TimedOut { .. } | ProcessError::Wait { .. })) => self.failed(&error).message,
            Err(
                error @ (ProcessError::Empty
                | ProcessError::NoSuchUser(_)
                | ProcessError::Start { .. }
                | ProcessError::LeftBehind { .. }
                | ProcessError::Unrecorded { .. }),
            ) => return Err(self.failed(&error)),
        };
        let again = self.options.restore_repeatable;
        let what = if again { "it may run over that" } else { "see what is there before it is repeated" };
        let interrupted =
            DriverError::permanent("restore-interrupted", format!("{error}; what it has left is not known: {what}"));
        Err(DriverError { retryable: again, ..interrupted })
    }

    /// What steps may ask for.
    fn listed(&self) -> Listed {
        let options = &self.options;
        let own = [
            ("activate", &options.activate),
            ("deactivate", &options.deactivate),
            ("status", &options.status),
            ("restore", &options.restore),
        ];
        let actions = own.into_iter().filter(|(_, line)| line.is_some()).map(|(name, _)| name.to_owned());
        Listed { actions: actions.collect(), commands: options.commands.keys().cloned().collect() }
    }

    /// Which of the listed programs could not be started.
    async fn lacking(&self) -> Vec<String> {
        let options = &self.options;
        let own = [
            ("activate", &options.activate),
            ("deactivate", &options.deactivate),
            ("status", &options.status),
            ("capacity", &options.capacity),
            ("restore", &options.restore),
            ("verifyRestored", &options.verify_restored),
        ];
        let own = own.into_iter().filter_map(|(name, line)| Some((name, line.as_ref()?)));
        let listed = own.chain(options.commands.iter().map(|(name, line)| (name.as_str(), line)));
        let mut lacks = Vec::new();
        for (name, line) in listed {
            lacks.extend(obstacle_of(name, &line.program, None).await);
        }
        lacks
    }

    /// What its capacity command says there is too little of; nothing without one.
    async fn short(&self) -> Vec<String> {
        let Some(line) = &self.options.capacity else { return Vec::new() };
        let said = match self.execute(line, CAPACITY_LIMIT.min(self.options.timeout)).await {
            Ok(ended) if ended.success() => return Vec::new(),
            // Its last line is meant for this; secrets are hidden before it is cut out.
            Ok(ended) => {
                let said = self.shown(&ended.tail);
                let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
                let last = last.map(|line| line.trim_start_matches(": ").to_owned());
                last.unwrap_or_else(|| format!("{} said no ({})", line.program.display(), ended.how))
            }
            // A program that is not there is told of as lacking.
            Err(ProcessError::Start { .. }) => return Vec::new(),
            Err(error) => format!("it is not known whether there is room: {}", self.failed(&error).message),
        };
        vec![said]
    }

    async fn status(&self, limit: Duration) -> Status {
        let Some(line) = &self.options.status else { return Status::NotListed };
        match self.execute(line, limit).await {
            Ok(ended) if ended.success() => Status::Running,
            Ok(Finished { code, how, tail, .. }) => {
                let text = format!("{} said no ({how}){}", line.program.display(), self.shown(&tail));
                if code.is_some() { Status::NotRunning(text) } else { Status::Unknown(text) }
            }
            Err(error) => Status::Unknown(self.failed(&error).message),
        }
    }

    /// Waits until the service is as it should be; without a status command its state is not known, and that is told.
    async fn settle(&self, running: bool) -> Result<(), DriverError> {
        let deadline = Instant::now() + self.options.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(STATUS_INTERVAL);
            let seen = match (self.status(left).await, running) {
                (Status::NotListed, _) | (Status::Running, true) | (Status::NotRunning(_), false) => return Ok(()),
                (Status::Running, false) => "its status command says that it still runs".to_owned(),
                (Status::NotRunning(text), true) | (Status::Unknown(text), _) => text,
            };
            if Instant::now() >= deadline {
                let (code, change) =
                    if running { ("command-not-running", "come up") } else { ("command-still-running", "end") };
                let seconds = self.options.timeout.as_secs_f32();
                let message = format!("the service did not {change} within {seconds} s; see its log: {seen}");
                return Err(DriverError::retryable(code, message));
            }
            tokio::time::sleep(STATUS_INTERVAL).await;
        }
    }
}

fn not_listed(name: &str, listed: &BTreeMap<String, CommandLine>) -> DriverError {
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    let known = if names.is_empty() { "none is".to_owned() } else { format!("these are: {}", names.join(", ")) };
    let message = format!("the command {name:?} is not listed in agent.yaml ({known}); list it there");
    DriverError::permanent("command-not-listed", message)
}

fn done(message: impl Into<String>) -> Done {
    Done { message: message.into(), ..Done::default() }
}

fn already(message: impl Into<String>) -> Done {
    Done { already: true, ..done(message) }
}

#[async_trait]
impl Driver for CommandDriver {
    fn kind(&self) -> &'static str {
        "command"
    }

    async fn probe(&self) -> Probe {
        let (health, detail) = match self.status(PROBE_LIMIT.min(self.options.timeout)).await {
            Status::Running => (Health::Healthy, "running".to_owned()),
            Status::NotRunning(text) => (Health::Failed, text),
            Status::Unknown(text) => (Health::Unknown, text),
            Status::NotListed => (Health::Unknown, NO_STATUS_COMMAND.to_owned()),
        };
        Probe { role: Role::None, ..Probe::without_answer(health, detail) }
    }

    /// A stopped service takes no new work; `activate` is its undo.
    async fn quiesce(&self) -> DriverResult {
        self.deactivate().await
    }

    /// A resource that is no database has no other way of becoming the active one than being started.
    async fn promote(&self, _position: Option<u64>) -> DriverResult {
        self.activate().await
    }

    async fn activate(&self) -> DriverResult {
        let Some(line) = &self.options.activate else { return Err(not_listed("activate", &BTreeMap::new())) };
        if matches!(self.status(self.options.timeout).await, Status::Running) {
            return Ok(already("it already runs"));
        }
        let tail = self.succeed(line, self.options.timeout).await?;
        self.settle(true).await?;
        Ok(done(format!("started{tail}")))
    }

    async fn deactivate(&self) -> DriverResult {
        let Some(line) = &self.options.deactivate else { return Err(not_listed("deactivate", &BTreeMap::new())) };
        if matches!(self.status(self.options.timeout).await, Status::NotRunning(_)) {
            return Ok(already("it does not run"));
        }
        let tail = self.succeed(line, self.options.timeout).await?;
        self.settle(false).await?;
        Ok(done(format!("stopped{tail}")))
    }

    async fn verify(&self) -> DriverResult {
        match self.status(self.options.timeout).await {
            Status::Running => Ok(already("it runs")),
            Status::NotRunning(text) | Status::Unknown(text) => {
                Err(DriverError::retryable("command-not-running", text))
            }
            Status::NotListed => Err(not_listed("status", &BTreeMap::new())),
        }
    }

    /// Only what certainly rests: the command would work under a running service. It reads no reality, so the agent's
    /// memory sees to it that a command that has ended well is not run again.
    async fn restore(&self, _run: u64) -> DriverResult {
        let Some(line) = &self.options.restore else { return Err(not_listed("restore", &BTreeMap::new())) };
        match self.status(self.options.timeout).await {
            Status::NotRunning(_) => {}
            Status::Running => {
                let message = "the service runs, and only what does not run is restored; stop it";
                return Err(DriverError::retryable("restore-running", message));
            }
            Status::Unknown(text) => {
                let message = format!("only what does not run is restored, and whether it runs is not known: {text}");
                return Err(DriverError::retryable("restore-running", message));
            }
            Status::NotListed => {
                let message = "only what does not run is restored; list `status` beside `restore` in agent.yaml";
                return Err(DriverError::permanent("command-not-listed", message));
            }
        }
        let tail = self.succeed_whole(line, RESTORE_LIMIT).await?;
        Ok(done(format!("restored{tail}")))
    }

    async fn verify_restored(&self) -> DriverResult {
        let Some(look) = &self.options.verify_restored else { return Ok(already("")) };
        match self.succeed(look, self.options.timeout).await {
            Ok(seen) => Ok(done(format!("and looked at{seen}"))),
            // Another restore would take away what a human should look at.
            Err(DriverError { message, .. }) => {
                let message = format!("restored, but it does not pass: {message}");
                Err(DriverError::permanent("restore-unverified", message))
            }
        }
    }

    fn restores_again(&self) -> bool {
        self.options.restore_repeatable
    }

    async fn facts(&self) -> Option<Found> {
        let (lacks, short) = (self.lacking().await, self.short().await);
        let capacity_unknown = if self.options.capacity.is_some() {
            String::new()
        } else {
            "no capacity command is listed in agent.yaml: whether there is room for it was not looked at".to_owned()
        };
        let findings = Findings { lacks, short, listed: Some(self.listed()), capacity_unknown, ..Findings::default() };
        Some(Found { findings, ..Found::default() })
    }

    async fn run(&self, command: &str) -> DriverResult {
        let line = self.options.commands.get(command).ok_or_else(|| not_listed(command, &self.options.commands))?;
        let tail = self.succeed(line, self.options.timeout).await?;
        Ok(done(format!("{command} ended well{tail}")))
    }
}
