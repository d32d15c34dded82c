//! Real PostgreSQL servers in temporary folders: a template is made once and copied.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::Marker;
use regent_agent::driver::postgres::{Postgres, PostgresOptions};
use regent_agent::driver::process::table::{Process, family};
use regent_agent::secret::Secret;
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

pub(crate) const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A folder that the database's user can reach.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("regent-").tempdir_in("/tmp").unwrap();
    own(folder.path());
    folder
}

fn own(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        nix::unistd::chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a program as the database's user; it must succeed.
pub(crate) fn run(program: &str, arguments: &[&str], password: &str) {
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program]);
        command
    } else {
        Command::new(program)
    };
    let output = command.args(arguments).env("HOME", "/tmp").env("PGPASSWORD", password).env("LC_ALL", "C");
    let status = output.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn tool(name: &str) -> String {
    format!("{BIN}/{name}")
}

/// PGDATA with roles and a database; lives as long as a server that was copied from it.
fn template() -> Arc<TempDir> {
    static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut kept = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = kept.upgrade() {
        return template;
    }
    let template = Arc::new(make_template());
    *kept = Arc::downgrade(&template);
    template
}

fn make_template() -> TempDir {
    let folder = folder();
    let data = folder.path().join("data");
    let password = folder.path().join("password");
    std::fs::write(&password, "postgres").unwrap();
    own(&password);
    let (target, secret) = (data.to_str().unwrap(), password.to_str().unwrap());
    let how = ["-U", "postgres", "-A", "scram-sha-256", "-N", "--no-locale"];
    run(&tool("initdb"), &[&["-D", target, "--pwfile", secret], &how[..]].concat(), "");
    let server = Server { folder: None, _template: None, data, socket: folder.path().to_owned(), port: free_port() };
    server.configure("");
    server.start();
    for statement in [
        "CREATE ROLE regent SUPERUSER LOGIN PASSWORD 'regent'",
        "CREATE ROLE app LOGIN PASSWORD 'app'",
        "CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'replicator'",
        "CREATE DATABASE app OWNER app",
    ] {
        server.psql("postgres", "postgres", statement);
    }
    server.psql("app", "app", "CREATE TABLE rows (n bigserial PRIMARY KEY, said text)");
    server.stop();
    folder
}

/// One server.
pub(crate) struct Server {
    folder: Option<TempDir>,
    _template: Option<Arc<TempDir>>,
    pub(crate) data: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    /// A fresh primary.
    pub(crate) fn primary(extra: &str) -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        let template = template();
        run("cp", &["-a", template.path().join("data").to_str().unwrap(), data.to_str().unwrap()], "");
        let socket = folder.path().to_owned();
        let server = Self { data, socket, port: free_port(), folder: Some(folder), _template: Some(template) };
        server.configure(extra);
        server.start();
        server
    }

    /// A standby of another.
    pub(crate) fn standby_of(primary: &Self) -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        let source = format!("host=127.0.0.1 port={} user=replicator password=replicator", primary.port);
        let target = data.to_str().unwrap().to_owned();
        run(&tool("pg_basebackup"), &["-D", &target, "-d", &source, "-c", "fast", "-X", "stream", "-R"], "");
        let socket = folder.path().to_owned();
        let server = Self { data, socket, port: free_port(), folder: Some(folder), _template: None };
        server.configure("");
        server.start();
        server
    }

    fn configure(&self, extra: &str) {
        let conf = self.data.join("postgresql.conf");
        let before = std::fs::read_to_string(&conf).unwrap();
        let text = format!(
            "{before}\nport = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nwal_log_hints = on\n\
             wal_keep_size = 64MB\nmax_connections = 50\nshared_buffers = 8MB\n{extra}\n",
            self.port,
            self.socket.display()
        );
        std::fs::write(&conf, text).unwrap();
        let rules = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
                     host replication all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(self.data.join("pg_hba.conf"), rules).unwrap();
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        let mut all = vec!["-D", self.data.to_str().unwrap(), "-w"];
        all.extend_from_slice(arguments);
        run(&tool("pg_ctl"), &all, "");
    }

    pub(crate) fn start(&self) {
        let log = self.socket.join("log");
        self.pg_ctl(&["-l", log.to_str().unwrap(), "start"]);
    }

    pub(crate) fn restart(&self) {
        let log = self.socket.join("log");
        self.pg_ctl(&["-m", "fast", "-l", log.to_str().unwrap(), "restart"]);
    }

    pub(crate) fn stop(&self) {
        self.pg_ctl(&["-m", "fast", "stop"]);
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.socket.join("log")).unwrap_or_default()
    }

    fn psql(&self, user: &str, database: &str, statement: &str) {
        let port = self.port.to_string();
        let target = ["-h", "127.0.0.1", "-p", &port, "-U", user, "-d", database, "-qXc", statement];
        run(&tool("psql"), &target, user);
    }

    pub(crate) fn processes(&self) -> Vec<Process> {
        family(&["postgres"], &[&self.data]).members
    }

    pub(crate) fn postmaster(&self) -> Process {
        family(&["postgres"], &[&self.data]).head().unwrap().clone()
    }

    /// Kills every process of it, and waits until it could be started again.
    pub(crate) fn kill_and_wait(&self) {
        let postmaster = self.postmaster().pid;
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(20);
        // Until it is reaped, its lock file seems to name a living process.
        while Process::read(postmaster).is_some() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills every process of it, and waits until they are gone.
    pub(crate) fn kill(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for process in processes {
                let _ = process.signal(Signal::SIGKILL);
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What an ordinary program would configure.
    pub(crate) fn config(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(user).password(user).dbname(database);
        config.connect_timeout(Duration::from_secs(5));
        config
    }

    pub(crate) async fn connect(&self, user: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config(user, "app").connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Whether a new session of this role can write a row.
    pub(crate) async fn accepts_write(&self, user: &str) -> Result<(), tokio_postgres::Error> {
        self.connect(user).await?.execute("INSERT INTO rows (said) VALUES ('check')", &[]).await.map(drop)
    }

    /// One value, as the superuser.
    pub(crate) async fn value(&self, statement: &str) -> String {
        let client = self.connect("postgres").await.unwrap();
        for message in client.simple_query(statement).await.unwrap() {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                return row.get(0).unwrap_or_default().to_owned();
            }
        }
        panic!("no row")
    }

    /// The agent's options for it, in a world of these other clusters.
    pub(crate) fn options(&self, others: &[(&str, &Self)]) -> PostgresOptions {
        let pg_ctl = |arguments: &[&str]| {
            let mut command = vec![tool("pg_ctl"), "-D".into(), self.data.display().to_string(), "-w".into()];
            command.extend(arguments.iter().map(ToString::to_string));
            command
        };
        let conninfos = |user: &str, more: &str| -> BTreeMap<String, Secret> {
            let each = others.iter().map(|(name, server)| {
                let text = format!("host=127.0.0.1 port={} user={user} password={user}{more}", server.port);
                ((*name).to_owned(), Secret::new(text))
            });
            each.collect()
        };
        PostgresOptions {
            data_directory: self.data.clone(),
            host: "127.0.0.1".into(),
            port: self.port,
            socket_directory: self.socket.clone(),
            user: "regent".into(),
            password: Secret::new("regent"),
            owner: "app".into(),
            database: "app".into(),
            bin_directory: None,
            os_user: "postgres".into(),
            start: pg_ctl(&["-l", self.socket.join("log").to_str().unwrap(), "start"]),
            stop: pg_ctl(&["-m", "fast", "stop"]),
            grace: Duration::from_millis(100),
            fence: regent_agent::driver::elsewhere::FenceAt::Local,
            hard_fence: Vec::new(),
            upstreams: conninfos("regent", " dbname=postgres"),
            replication: conninfos("replicator", ""),
            scratch: None,
            checks: Vec::new(),
            backups: None,
        }
    }

    pub(crate) fn driver(&self, cluster: &str, others: &[(&str, &Self)]) -> Postgres {
        Postgres::new(self.options(others), cluster)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.data.display(), self.log());
        }
        self.kill();
        let _ = &self.folder;
    }
}

pub(crate) fn marker(cluster: &str) -> Marker {
    Marker {
        group: "11111111-2222-3333-4444-555555555555".into(),
        application: "shop".into(),
        cluster: cluster.into(),
        installation: "i1".into(),
    }
}
