//! A PostgreSQL of its own in a scratch folder, cut off from everything: no address, no archive, no upstream, no workers of
//! replication, no libraries that run jobs. Whoever may enter its folder reaches it, nobody else.
//!
//! ```text
//!  PLACE/data   PGDATA     PLACE/run   the socket     PLACE/postgresql.conf, pg_hba.conf   its whole configuration
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_postgres::{Client, Config, SimpleQueryRow};

use super::copied::Name;
use super::session::{SqlError, connect, number, run, text, truth};
use super::{GLANCE, Postgres, files};
use crate::driver::DriverError;
use crate::driver::process::Program;
use crate::driver::process::table::{Family, family};

/// Programs of the step; its own deadline is what bounds them.
pub(super) const LONG: Duration = Duration::from_secs(24 * 3600);
/// Programs that only read or print, and statements that only look.
pub(super) const SHORT: Duration = Duration::from_secs(30);
/// How long a killed instance may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// The length of a socket's path that the kernel allows.
const SOCKET_LIMIT: usize = 107;
/// Its port: only the name of the socket.
const PORT: u16 = 5432;
/// So long rows are counted one by one; beyond it the statistics have to do.
const COUNT_LIMIT: Duration = Duration::from_secs(30);

/// What a copy must have at least as large as what it was copied from, by the words of `pg_controldata`.
const AT_LEAST: [(&str, &str); 5] = [
    ("max_connections setting:", "max_connections"),
    ("max_worker_processes setting:", "max_worker_processes"),
    ("max_wal_senders setting:", "max_wal_senders"),
    ("max_prepared_xacts setting:", "max_prepared_transactions"),
    ("max_locks_per_xact setting:", "max_locks_per_transaction"),
];

/// One such server.
pub(super) struct Lab<'p> {
    postgres: &'p Postgres,
    place: PathBuf,
    /// The folder of the programs that fit its data.
    programs: PathBuf,
    /// That of `pg_restore`.
    loads: PathBuf,
}

/// What a count found.
pub(super) struct Rows {
    tables: usize,
    rows: u64,
    exact: bool,
    /// Every table that is there. Without a number: not counted, for the time was over; or its rows are not those of a dump
    /// alone, since an extension or a partition has them.
    pub(super) found: BTreeMap<Name, Option<u64>>,
}

impl std::fmt::Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let about = if self.exact { "" } else { "about " };
        write!(f, "{about}{} rows in {} tables", self.rows, self.tables)
    }
}

impl<'p> Lab<'p> {
    pub(super) fn at(postgres: &'p Postgres, place: PathBuf) -> Self {
        let programs = postgres.options.programs();
        Self { postgres, place, loads: programs.clone(), programs }
    }

    /// With these programs instead of the server's own, and `pg_restore` of those.
    pub(super) fn with_programs(self, programs: PathBuf, loads: PathBuf) -> Self {
        Self { programs, loads, ..self }
    }

    pub(super) fn tool(&self, name: &str) -> Program {
        let folder = if name == "pg_restore" { &self.loads } else { &self.programs };
        self.postgres.tool_in(folder, name)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.place.join("data")
    }

    /// Its processes, by where they work.
    pub(super) fn family(&self) -> Family {
        let data = self.data();
        let whole = std::fs::canonicalize(&data).unwrap_or_else(|_| data.clone());
        family(&super::server::NAMES, &[whole.as_path(), data.as_path()])
    }

    /// Writes its configuration: nothing of what came with the data counts.
    pub(super) async fn isolate(&self, more: &[(&str, String)]) -> Result<(), DriverError> {
        if self.socket().as_os_str().len() > SOCKET_LIMIT {
            let message =
                format!("{} is too long for a socket; give scratch.directory a shorter path", self.place.display());
            return Err(DriverError::permanent("postgres-config", message));
        }
        let mut settings: Vec<(String, String)> = isolation(&self.place);
        settings.extend(self.capacity().await?);
        let own = self.postgres.options.scratch.as_ref().map(|scratch| &scratch.settings);
        settings.extend(own.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        settings.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let text: String = settings.iter().map(|(key, value)| format!("{key} = {}\n", quoted(value))).collect();
        let place = self.place.clone();
        files::blocking(SHORT, "writing the configuration of a scratch instance", move || {
            let write =
                |name: &str, text: &str| files::replace(&place.join(name), text.as_bytes(), files::Durability::Written);
            write("postgresql.conf", &text)?;
            write("pg_hba.conf", "local all all trust\n")?;
            write("pg_ident.conf", "")?;
            // It is read beside any configuration, and would lead to the upstream.
            write("data/postgresql.auto.conf", "")
        })
        .await
    }

    /// A server in recovery refuses to be smaller than the one whose WAL it reads.
    async fn capacity(&self) -> Result<Vec<(String, String)>, DriverError> {
        let program = self.tool("pg_controldata").argument("-D").argument(self.data());
        let output = self.postgres.succeed("postgres-control", &program, SHORT).await?.output;
        let value =
            |key: &str| output.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
        Ok(AT_LEAST.iter().filter_map(|(key, name)| Some(((*name).to_owned(), value(key)?))).collect())
    }

    /// Starts it, waits until it answers, and sees that it is cut off.
    pub(super) async fn start(&self) -> Result<(), DriverError> {
        let (data, log) = (self.data(), self.log());
        let config = self.place.join("postgresql.conf");
        let program = self
            .tool("pg_ctl")
            .argument("start")
            .argument("-D")
            .argument(&data)
            .argument("-l")
            .argument(&log)
            .argument("-o")
            .argument(format!("-c config_file={}", shell_quoted(&config)))
            .argument("-w")
            .argument("-t")
            .argument(LONG.as_secs().to_string());
        let started = self.postgres.succeed("scratch-start", &program, LONG).await;
        if let Err(error) = started {
            let message =
                format!("{}; the log of the scratch instance ends: {}", error.message, self.last_words().await);
            return Err(DriverError { message, ..error });
        }
        let client = self.connect("postgres").await?;
        let look = "SELECT current_setting('listen_addresses') = '' AND current_setting('primary_conninfo') = ''
            AND current_setting('archive_mode') = 'off' AND NOT EXISTS (SELECT FROM pg_stat_wal_receiver) AS isolated";
        let row = ask(&client, look).await?;
        if row.first().and_then(|row| truth(row, "isolated")) != Some(true) {
            self.stop().await?;
            let message =
                "the scratch instance is not cut off: scratch.settings gives it an address, an archive or an upstream";
            return Err(DriverError::permanent("scratch-not-isolated", message));
        }
        Ok(())
    }

    /// Promotes it, and sees a write accepted. How long that took.
    pub(super) async fn promote(&self) -> Result<Duration, DriverError> {
        let began = Instant::now();
        let client = self.connect("postgres").await?;
        let mut signalled: Option<Instant> = None;
        loop {
            let row = ask(&client, "SELECT pg_is_in_recovery() AS standby").await?;
            if row.first().and_then(|row| truth(row, "standby")) == Some(false) {
                break;
            }
            if signalled.is_none_or(|at| at.elapsed() >= super::open::SIGNAL_AGAIN) {
                // Fails if recovery ended between the two statements; the next look says so.
                let _ = ask(&client, "SELECT pg_promote(false)").await;
                signalled = Some(Instant::now());
            }
            tokio::time::sleep(GLANCE).await;
        }
        let client = self.connect(&self.postgres.options.database).await?;
        // Triggers of the application have no part in it.
        let write = "SET session_replication_role = replica; CREATE SCHEMA regent_drill;
            CREATE TABLE regent_drill.written AS SELECT clock_timestamp() AS at; DROP SCHEMA regent_drill CASCADE";
        ask(&client, write).await?;
        Ok(began.elapsed())
    }

    /// Waits until recovery has ended by itself: the end of the WAL, or the wanted point in it.
    pub(super) async fn wait_until_open(&self) -> Result<(), DriverError> {
        let client = self.connect("postgres").await?;
        let mut closed: Option<Instant> = None;
        loop {
            match ask(&client, "SELECT pg_is_in_recovery() AS standby").await {
                Ok(rows) if rows.first().and_then(|row| truth(row, "standby")) == Some(false) => return Ok(()),
                Ok(_) => {}
                // It ends by itself if the wanted point is beyond its WAL.
                Err(_) if self.family().members.is_empty() => {
                    let message = format!("the recovery of the backup ended: {}", self.last_words().await);
                    return Err(DriverError::permanent("restore-failed", message));
                }
                // Its sessions end before its last process does.
                Err(error) if client.is_closed() && closed.get_or_insert_with(Instant::now).elapsed() > SHORT => {
                    return Err(error);
                }
                Err(_) => {}
            }
            tokio::time::sleep(GLANCE * 4).await;
        }
    }

    /// Ends it so that its data are whole.
    pub(super) async fn shut_down(&self) -> Result<(), DriverError> {
        let program = self.tool("pg_ctl").argument("stop").argument("-D").argument(self.data());
        let program = program.argument("-m").argument("fast").argument("-w").argument("-t").argument("3600");
        self.postgres.succeed("restore-failed", &program, LONG).await?;
        let program = self.tool("pg_controldata").argument("-D").argument(self.data());
        let output = self.postgres.succeed("postgres-control", &program, SHORT).await?.output;
        let state = output.lines().find_map(|line| line.strip_prefix("Database cluster state:")).map(str::trim);
        if state == Some("shut down") {
            return Ok(());
        }
        let message = format!("what was restored did not shut down cleanly: it is {}", state.unwrap_or("unknown"));
        Err(DriverError::retryable("restore-failed", message))
    }

    /// A program that speaks with it.
    pub(super) fn program(&self, name: &str, database: &str) -> Program {
        let port = PORT.to_string();
        let program = self.tool(name).argument("-h").argument(self.place.join("run")).argument("-p").argument(port);
        let program = program.argument("-U").argument(&self.postgres.options.user).argument("-d").argument(database);
        if name == "psql" { program.argument("-X").argument("-q") } else { program }
    }

    /// A file with the password of the agent's role.
    pub(super) async fn password_file(&self) -> Result<PathBuf, DriverError> {
        let (file, password) = (self.place.join("run/password"), self.postgres.options.password.clone());
        let path = file.clone();
        files::blocking(SHORT, "writing a password for initdb", move || {
            files::replace(&file, password.expose().as_bytes(), files::Durability::Written)
        })
        .await?;
        Ok(path)
    }

    /// Counts what is in the application's database.
    pub(super) async fn count(&self) -> Result<Rows, DriverError> {
        let client = self.connect(&self.postgres.options.database).await?;
        let tables = "SELECT nspname, relname, format('%I.%I', nspname, relname) AS name, relkind = 'r' AS has_rows,
                greatest(reltuples, 0)::bigint AS about,
                EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
                    AS of_extension
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE relkind IN ('r', 'p', 'f') AND nspname NOT IN ('pg_catalog', 'information_schema')
                AND nspname NOT LIKE 'pg\\_t%'";
        let all = ask(&client, tables).await?;
        let word = |row: &SimpleQueryRow, column: &str| text(row, column).unwrap_or_default().to_owned();
        let key = |row: &SimpleQueryRow| (word(row, "nspname"), word(row, "relname"));
        let tables: Vec<&SimpleQueryRow> = all.iter().filter(|row| truth(row, "has_rows") == Some(true)).collect();
        let began = Instant::now();
        let found = all.iter().map(|row| (key(row), None)).collect();
        let mut found = Rows { tables: tables.len(), rows: 0, exact: true, found };
        for table in &tables {
            let name = word(table, "name");
            let left = COUNT_LIMIT.saturating_sub(began.elapsed());
            // Those that inherit from it are counted by themselves.
            let statement = format!("SELECT count(*) AS rows FROM ONLY {name}");
            let counted = tokio::time::timeout(left, run(&client, &statement)).await;
            match counted {
                Ok(Ok(rows)) => {
                    let rows = rows.first().and_then(|row| number::<u64>(row, "rows")).unwrap_or_default();
                    found.rows += rows;
                    if truth(table, "of_extension") == Some(false) {
                        found.found.insert(key(table), Some(rows));
                    }
                }
                Ok(Err(error)) => return Err(refused(&error, &format!("rows of {name} cannot be counted: {error}"))),
                Err(_) => {
                    found.exact = false;
                    break;
                }
            }
        }
        if !found.exact {
            found.rows = tables.iter().filter_map(|table| number::<u64>(table, "about")).sum();
        }
        Ok(found)
    }

    /// Puts the listed queries to it.
    pub(super) async fn check(&self) -> Result<usize, DriverError> {
        let client = self.connect(&self.postgres.options.database).await?;
        for check in &self.postgres.options.checks {
            let rows = match tokio::time::timeout(LONG, run(&client, &check.query)).await {
                Ok(rows) => rows.map_err(|error| refused(&error, &format!("{:?}: {error}", check.query)))?,
                Err(_) => return Err(unreadable(&format!("{:?} is not answered", check.query))),
            };
            let answer = rows.first().and_then(|row| row.try_get(0).ok().flatten());
            let good = match (&check.expect, answer) {
                (Some(wanted), Some(answer)) => wanted == answer,
                (None, Some(answer)) => answer != "f",
                (Some(_) | None, None) => false,
            };
            if !good {
                let (found, wanted) = (answer.unwrap_or("nothing"), check.expect.as_deref().unwrap_or("a value"));
                return Err(wrong(&format!("{:?} gives {found}, expected is {wanted}", check.query)));
            }
        }
        Ok(self.postgres.options.checks.len())
    }

    /// Ends it, whatever it does, and sees it gone.
    pub(super) async fn stop(&self) -> Result<bool, DriverError> {
        let (patience, deadline) = (Instant::now() + KILL_LIMIT / 4, Instant::now() + KILL_LIMIT);
        let mut ran = false;
        loop {
            let family = self.family();
            if family.members.is_empty() {
                return Ok(ran);
            }
            if Instant::now() > patience {
                for process in &family.members {
                    let _ = process.signal(Signal::SIGKILL);
                }
            } else if let Some(postmaster) = family.head().filter(|_| !ran) {
                // At once and without a checkpoint, but so that it leaves nothing in the kernel.
                let _ = postmaster.signal(Signal::SIGQUIT);
            }
            ran = true;
            if Instant::now() > deadline {
                let pids: Vec<String> = family.members.iter().map(|process| process.pid.to_string()).collect();
                let message = format!("processes {} of a scratch instance outlive SIGKILL", pids.join(", "));
                return Err(DriverError::retryable("scratch-stop", message));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// A session of the agent's role.
    pub(super) async fn connect(&self, database: &str) -> Result<Client, DriverError> {
        let mut config = Config::new();
        config
            .host_path(self.place.join("run"))
            .port(PORT)
            .user(&self.postgres.options.user)
            .dbname(database)
            .application_name("regent-agent");
        let connected = tokio::time::timeout(SHORT, connect(&config)).await.unwrap_or(Err(SqlError::TimedOut(SHORT)));
        connected.map_err(|error| unreadable(&format!("no session in its database {database}: {error}")))
    }

    fn socket(&self) -> PathBuf {
        self.place.join(format!("run/.s.PGSQL.{PORT}"))
    }

    fn log(&self) -> PathBuf {
        self.place.join("run/log")
    }

    async fn last_words(&self) -> String {
        let text = tokio::fs::read_to_string(self.log()).await.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        // Behind what ended it stand lines that say only that it ends.
        let fatal = lines.iter().rposition(|line| {
            let ends = line.contains("FATAL:") || line.contains("PANIC:");
            ends && !line.contains("terminating connection") && !line.contains("the database system is")
        });
        let from = fatal.unwrap_or(lines.len()).min(lines.len().saturating_sub(3));
        lines[from..].iter().take(3).copied().collect::<Vec<_>>().join("; ")
    }
}

async fn ask(client: &Client, statement: &str) -> Result<Vec<SimpleQueryRow>, DriverError> {
    let answer = tokio::time::timeout(SHORT, run(client, statement)).await.unwrap_or(Err(SqlError::TimedOut(SHORT)));
    answer.map_err(|error| unreadable(&error.to_string()))
}

/// It could not be asked.
fn unreadable(why: &str) -> DriverError {
    DriverError::retryable("scratch-check", format!("the scratch instance: {why}"))
}

/// What it answers will be the same however often it is built: hours of it would be thrown away for nothing.
fn wrong(why: &str) -> DriverError {
    DriverError::permanent("scratch-check", format!("the scratch instance: {why}"))
}

/// What the server itself says is its answer.
fn refused(error: &SqlError, why: &str) -> DriverError {
    if matches!(error, SqlError::Server { panic: false, .. }) { wrong(why) } else { unreadable(why) }
}

/// What cuts it off, and keeps it small beside the database that serves.
fn isolation(place: &Path) -> Vec<(String, String)> {
    let path = |name: &str| place.join(name).display().to_string();
    let fixed = [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        ("archive_mode", "off"),
        ("restore_command", ""),
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
        ("synchronous_standby_names", ""),
        // A promoted copy would else take up the subscriptions of the original.
        ("max_logical_replication_workers", "0"),
        ("shared_preload_libraries", ""),
        ("session_preload_libraries", ""),
        ("local_preload_libraries", ""),
        ("autovacuum", "off"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("ssl", "off"),
        ("cluster_name", "regent-scratch"),
        ("hot_standby", "on"),
        ("wal_level", "replica"),
        ("shared_buffers", "32MB"),
        ("huge_pages", "off"),
        // What is left of a killed one goes with its folder.
        ("dynamic_shared_memory_type", "mmap"),
    ];
    let mut settings: Vec<(String, String)> =
        fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    settings.push(("port".to_owned(), PORT.to_string()));
    settings.push(("unix_socket_directories".to_owned(), path("run")));
    settings.push(("hba_file".to_owned(), path("pg_hba.conf")));
    settings.push(("ident_file".to_owned(), path("pg_ident.conf")));
    settings
}

/// As PostgreSQL's configuration files quote.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `pg_ctl` hands its options to a shell, and the server its `restore_command`.
pub(super) fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
