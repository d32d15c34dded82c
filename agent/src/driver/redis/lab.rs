//! A Redis of its own in a scratch folder: no port, no upstream, nothing saved. Whoever may enter its folder reaches it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo};

use super::check::RedisCheck;
use super::session::{Failure, Info, ask, command};
use super::{COMMAND_LIMIT, GLANCE, Redis};
use crate::driver::DriverError;
use crate::driver::process::disk::{self, Durability};
use crate::driver::process::table::{Family, family};
use crate::driver::process::{Finished, Program};

/// What it loads.
pub(super) const DUMP: &str = "dump.rdb";
/// Programs of the step; its own deadline is what bounds them.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// How long a killed instance may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// The length of a socket's path that the kernel allows.
const SOCKET_LIMIT: usize = 107;
/// Where Redis's programs may be.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/opt/redis/bin"];
/// What a server is called.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// One such server.
pub(super) struct Lab<'r> {
    redis: &'r Redis,
    place: PathBuf,
    /// What its append-only file would be called; none: it keeps none.
    append_only: Option<AppendOnly>,
}

/// What a server calls its append-only file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppendOnly {
    /// The folder of its parts, in that of the data.
    pub(super) folder: String,
    /// How its parts begin.
    pub(super) file: String,
}

impl<'r> Lab<'r> {
    pub(super) fn at(redis: &'r Redis, place: PathBuf) -> Self {
        Self { redis, place, append_only: None }
    }

    /// It can write an append-only file that is called so.
    pub(super) fn with_append_only(self, append_only: Option<AppendOnly>) -> Self {
        Self { append_only, ..self }
    }

    /// Where what it loads belongs.
    pub(super) fn dump(&self) -> PathBuf {
        self.place.join("data").join(DUMP)
    }

    /// What it must answer.
    pub(super) fn checks(&self) -> &'r [RedisCheck] {
        &self.redis.options.checks
    }

    fn family(&self) -> Family {
        let data = self.place.join("data");
        let whole = std::fs::canonicalize(&data).unwrap_or_else(|_| data.clone());
        family(&NAMES, &[whole.as_path(), data.as_path()])
    }

    /// Starts it, and waits until it has loaded what there is.
    pub(super) async fn start(&self) -> Result<(), DriverError> {
        let socket = self.place.join("socket");
        if socket.as_os_str().len() > SOCKET_LIMIT {
            let message =
                format!("{} is too long for a socket; give scratch.directory a shorter path", socket.display());
            return Err(DriverError::permanent("redis-config", message));
        }
        let file = self.place.join("redis.conf");
        let (written, text) = (file.clone(), self.configuration(&socket));
        disk::bounded(
            "scratch-files",
            COMMAND_LIMIT * 10,
            "writing the configuration of a scratch instance",
            move || disk::replace(&written, text.as_bytes(), Durability::Written),
        )
        .await?;
        let program = Program::at(&tool("redis-server")).argument(&file);
        self.redis.succeed("scratch-start", &program).await?;
        let began = Instant::now();
        loop {
            match self.info().await {
                Ok(info) if info.is("loading", "0") => return Ok(()),
                Ok(_) => {}
                Err(_) if began.elapsed() > COMMAND_LIMIT && self.family().members.is_empty() => {
                    let log = tokio::fs::read_to_string(self.place.join("log")).await.unwrap_or_default();
                    let lines: Vec<&str> = log.lines().collect();
                    let words = lines[lines.len().saturating_sub(3)..].join("; ");
                    return Err(DriverError::retryable("scratch-start", format!("the scratch Redis ended: {words}")));
                }
                Err(_) => {}
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn configuration(&self, socket: &Path) -> String {
        let path = |name: &str| self.place.join(name).display().to_string();
        let fixed = [
            ("port", "0".to_owned()),
            ("unixsocket", socket.display().to_string()),
            ("unixsocketperm", "700".to_owned()),
            ("dir", path("data")),
            ("dbfilename", DUMP.to_owned()),
            ("save", "\"\"".to_owned()),
            ("appendonly", "no".to_owned()),
            ("daemonize", "yes".to_owned()),
            ("pidfile", path("pid")),
            ("logfile", path("log")),
        ];
        let own = self.redis.options.scratch.as_ref().map(|scratch| &scratch.settings);
        let own = own.into_iter().flatten().map(|(key, value)| format!("{key} {value}\n"));
        let named = self
            .append_only
            .iter()
            .map(|named| format!("appenddirname \"{}\"\nappendfilename \"{}\"\n", named.folder, named.file));
        own.chain(named).chain(fixed.iter().map(|(key, value)| format!("{key} {value}\n"))).collect()
    }

    /// Writes all that it has into an append-only file. Its folder.
    pub(super) async fn append(&self, named: &AppendOnly) -> Result<PathBuf, DriverError> {
        let mut connection = self.connect().await.map_err(unreadable)?;
        let begin = command(&["CONFIG", "SET", "appendonly", "yes"]);
        // It answers once it has forked, which takes its time where there is much.
        ask::<redis::Value>(&mut connection, &begin, LONG).await.map_err(unreadable)?;
        loop {
            let info = self.info().await.map_err(unreadable)?;
            if info.is("aof_last_bgrewrite_status", "err") {
                let message = "the scratch Redis cannot write its append-only file; see its log";
                return Err(DriverError::retryable("restore-failed", message));
            }
            let written = info.is("aof_rewrite_in_progress", "0") && info.is("aof_rewrite_scheduled", "0");
            if written && info.is("aof_enabled", "1") {
                return Ok(self.place.join("data").join(&named.folder));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Makes it a primary and sees a write accepted. How long that took.
    pub(super) async fn promote(&self) -> Result<Duration, DriverError> {
        let began = Instant::now();
        let mut connection = self.connect().await.map_err(unreadable)?;
        let key = format!("regent:drill:{}", std::process::id());
        for words in [&["REPLICAOF", "NO", "ONE"][..], &["SET", &key, "written", "PX", "60000"], &["DEL", &key]] {
            ask::<redis::Value>(&mut connection, &command(words), COMMAND_LIMIT).await.map_err(unreadable)?;
        }
        Ok(began.elapsed())
    }

    /// Counts its keys, and sees that it follows nobody and nobody can reach it.
    pub(super) async fn count(&self) -> Result<u64, DriverError> {
        let info = self.info().await.map_err(unreadable)?;
        if info.is_replica() || !info.is("tcp_port", "0") {
            let message = "the scratch Redis is not cut off: scratch.settings gives it a port or an upstream";
            return Err(DriverError::permanent("scratch-not-isolated", message));
        }
        Ok(info.keys())
    }

    /// Ends it, whatever it does, and sees it gone.
    pub(super) async fn stop(&self) -> Result<bool, DriverError> {
        let deadline = Instant::now() + KILL_LIMIT;
        let mut ran = false;
        loop {
            let family = self.family();
            if family.members.is_empty() {
                return Ok(ran);
            }
            ran = true;
            for process in &family.members {
                let _ = process.signal(Signal::SIGKILL);
            }
            if Instant::now() > deadline {
                return Err(DriverError::retryable("scratch-stop", "a scratch Redis outlives SIGKILL"));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn info(&self) -> Result<Info, Failure> {
        let mut connection = self.connect().await?;
        let text: String = ask(&mut connection, &command(&["INFO"]), COMMAND_LIMIT).await?;
        Ok(Info::parse(&text))
    }

    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        let connect = async {
            let info = ConnectionAddr::Unix(self.place.join("socket")).into_connection_info()?;
            // Bounded by this driver, for each command.
            let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
        };
        match tokio::time::timeout(COMMAND_LIMIT, connect).await {
            Ok(connection) => connection.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::TimedOut(COMMAND_LIMIT)),
        }
    }
}

pub(super) fn unreadable(failure: Failure) -> DriverError {
    DriverError::retryable("scratch-check", format!("the scratch Redis: {failure}"))
}

/// A program of Redis.
pub(crate) fn tool(name: &str) -> PathBuf {
    let places = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    places.into_iter().find(|path| path.exists()).unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

impl Redis {
    /// Runs a program and demands that it succeeds.
    pub(super) async fn succeed(&self, code: &'static str, program: &Program) -> Result<Finished, DriverError> {
        let finished = program.run(&self.children, LONG).await.map_err(|error| error.failure(code))?;
        if finished.success() {
            return Ok(finished);
        }
        Err(DriverError::retryable(code, format!("{} failed: {}", program.name(), finished.last_words())))
    }
}
