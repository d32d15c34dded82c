//! Real Redis servers in temporary folders.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::process::table::Process;
use regent_agent::driver::redis::{Redis, RedisOptions, RedisUpstream};
use regent_agent::secret::Secret;
use tempfile::TempDir;

/// One server.
pub(crate) struct Server {
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn new(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = crate::postgres::free_port();
        let path = folder.path().display();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {path}\npidfile {path}/pid\nlogfile {path}/log\ndaemonize yes\nsave \"\"\n\
             user default on nopass ~* &* +@all\nuser regent on >regent ~* &* +@all\n\
             user replicator on >replicator +psync +replconf +ping +info\nrepl-diskless-sync-delay 0\n{extra}\n"
        );
        std::fs::write(folder.path().join("redis.conf"), text).unwrap();
        let server = Self { folder, port };
        server.start();
        server
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("redis.conf")
    }

    pub(crate) fn start(&self) {
        let status = Command::new("redis-server")
            .arg(self.config())
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.cli(&["PING"]).contains("PONG") {
            assert!(Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn process(&self) -> Option<Process> {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).ok()?.trim().parse().ok()?;
        Process::read(pid).filter(|process| process.lives() && process.name == "redis-server")
    }

    /// Ends it with a signal and waits until it is gone.
    pub(crate) fn end(&self, signal: Signal) {
        let Some(process) = self.process() else { return };
        process.signal(signal).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // Its last thread may hold the port for a moment longer than its first one lives.
        while process.still_lives() || TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What an ordinary client is told.
    pub(crate) fn cli(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }

    /// What it has acknowledged is in its append-only file, if it keeps one: a write may wait for the disk for a moment.
    pub(crate) fn is_written(&self) -> bool {
        let told = self.cli(&["INFO", "persistence"]);
        told.contains("aof_enabled:0") || told.contains("aof_buffer_length:0")
    }

    pub(crate) fn driver(&self, cluster: &str, others: &[(&str, &Self)]) -> Redis {
        Redis::new(self.options(others), cluster)
    }

    pub(crate) fn options(&self, others: &[(&str, &Self)]) -> RedisOptions {
        let path = |name: &str| self.folder.path().join(name);
        let upstreams = others.iter().map(|(name, server)| {
            let upstream = RedisUpstream {
                host: "127.0.0.1".into(),
                port: server.port,
                user: Some("replicator".into()),
                password: Some(Secret::new("replicator")),
            };
            ((*name).to_owned(), upstream)
        });
        RedisOptions {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "regent".into(),
            password: Secret::new("regent"),
            clients: vec!["default".into()],
            pid_file: path("pid"),
            config_file: None,
            start: vec!["/usr/bin/redis-server".into(), self.config().display().to_string()],
            stop: vec!["/usr/bin/redis-cli".into(), "-p".into(), self.port.to_string(), "SHUTDOWN".into()],
            fence: regent_agent::driver::elsewhere::FenceAt::Local,
            hard_fence: Vec::new(),
            upstreams: upstreams.collect(),
            scratch: None,
            checks: Vec::new(),
            backups: None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.port, self.log());
        }
        self.end(Signal::SIGKILL);
    }
}
