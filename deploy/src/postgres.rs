//! PostgreSQL with streaming replication: one server of a pair.
//!
//! Address, port and socket are given on the command line, not in the data directory: `pg_rewind` and `pg_basebackup` copy
//! the settings of the other server, and the two must not then take each other's place.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio_postgres::{Client, Config, NoTls};

use crate::keeper::{Keeper, Program, last_lines};
use crate::place;
use crate::script::{self, Gate, quote, quote_path};
use crate::tree;
use crate::wait;

use remains::Remains;

pub(crate) mod remains;
mod template;

pub use template::{remove_templates, settings};

/// The role that the agent uses; superuser.
pub const AGENT: &str = "regent";
/// The role that owns the application's database, of the same name.
pub const OWNER: &str = "app";
/// The role that standbys stream as.
pub const REPLICATOR: &str = "replicator";

/// How long a start, a stop or a copy may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// Passwords of the three roles; replication makes them the same on both servers.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Of [`AGENT`].
    pub agent: String,
    /// Of [`OWNER`].
    pub owner: String,
    /// Of [`REPLICATOR`].
    pub replicator: String,
}

impl Passwords {
    /// New ones.
    #[must_use]
    pub fn random() -> Self {
        let one = || uuid::Uuid::new_v4().simple().to_string();
        Self { agent: one(), owner: one(), replicator: one() }
    }

    /// Writes `regent-password`, `app-password` and `replicator-password`, readable by us alone.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        for (role, password) in [(AGENT, &self.agent), (OWNER, &self.owner), (REPLICATOR, &self.replicator)] {
            place::write_secret(&folder.join(format!("{role}-password")), password)?;
        }
        Ok(())
    }
}

/// One server.
#[derive(Clone)]
pub struct Postgres {
    keeper: Arc<Keeper>,
    folder: PathBuf,
    address: IpAddr,
    port: u16,
    programs: PathBuf,
    passwords: Passwords,
    gate: Gate,
    _remains: Arc<Remains>,
}

impl Postgres {
    /// Describes a server that shall stand in `folder`; nothing is made yet.
    ///
    /// # Errors
    /// PostgreSQL is not installed.
    pub fn new(
        keeper: Arc<Keeper>,
        folder: &Path,
        address: IpAddr,
        port: u16,
        passwords: Passwords,
        mut gate: Gate,
    ) -> Result<Self> {
        gate.switches.push(folder.join("off"));
        let programs = place::postgres_programs()?;
        let remains = Arc::new(Remains { keeper: Arc::clone(&keeper), data: folder.join("data") });
        Ok(Self { keeper, folder: folder.to_owned(), address, port, programs, passwords, gate, _remains: remains })
    }

    /// Writes the passwords into files, where an agent's file can refer to them before there is a server.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_passwords(&self) -> Result<()> {
        place::passable(&self.folder)?;
        self.passwords.write(&self.folder)
    }

    /// Makes it a primary with the three roles and the application's database, and starts it.
    ///
    /// # Errors
    /// With the step that failed and what the server said.
    pub async fn create_primary(&self) -> Result<()> {
        self.lay_out()?;
        template::copy(&self.programs, &self.data()).await?;
        self.furnish().await
    }

    /// The same with an identity of its own: whatever comes from the template has the template's system identifier, and no
    /// two applications may have the same database.
    ///
    /// # Errors
    /// With the step that failed and what the server said.
    pub async fn create_primary_of_its_own(&self) -> Result<()> {
        self.lay_out()?;
        template::make(&self.programs, &self.data()).await?;
        self.furnish().await
    }

    async fn furnish(&self) -> Result<()> {
        self.start().await?;
        let admin = self.connect_by(AGENT, template::PASSWORD, "postgres", Route::Socket).await?;
        let Passwords { agent, owner, replicator } = &self.passwords;
        // The passwords are hexadecimal digits of our own: nothing to quote.
        admin
            .batch_execute(&format!(
                "ALTER ROLE {AGENT} PASSWORD '{agent}';
                 CREATE ROLE {OWNER} LOGIN PASSWORD '{owner}';
                 CREATE ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD '{replicator}';"
            ))
            .await
            .context("cannot create the roles")?;
        admin.batch_execute(&format!("CREATE DATABASE {OWNER} OWNER {OWNER}")).await?;
        drop(admin);
        self.connect()
            .await?
            .batch_execute(
                "CREATE TABLE rows (n bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())",
            )
            .await?;
        Ok(())
    }

    /// Makes it a streaming standby of `primary`, and starts it.
    ///
    /// # Errors
    /// With the step that failed and what the server said.
    pub async fn create_standby(&self, primary: &Self) -> Result<()> {
        self.lay_out()?;
        self.copy(primary, &self.data(), &["-R"]).await?;
        self.start().await
    }

    /// Writes a base backup of it into this folder, which is made.
    ///
    /// # Errors
    /// With what the program said.
    pub async fn base_backup(&self, folder: &Path) -> Result<()> {
        self.copy(self, folder, &[]).await
    }

    async fn copy(&self, source: &Self, target: &Path, words: &[&str]) -> Result<()> {
        let mut command = place::as_postgres()?;
        command.push(self.programs.join("pg_basebackup").display().to_string());
        command.extend(["-D".into(), target.display().to_string()]);
        command.extend(["-d".into(), source.replication_conninfo()]);
        command.extend(["-X", "stream", "-c", "fast", "--no-sync"].iter().chain(words).map(ToString::to_string));
        let mut program = Program::new("pg_basebackup", &self.folder, command);
        // In the environment, not on the command line, where everybody could read it.
        program.environment.insert("PGPASSWORD".into(), self.passwords.replicator.clone());
        program.environment.insert("HOME".into(), self.folder.display().to_string());
        self.keeper.run(program, PATIENCE).await
    }

    /// Starts it, as its agent would, and waits until it is up.
    ///
    /// # Errors
    /// It does not start, or it is switched off.
    pub async fn start(&self) -> Result<()> {
        let start = Program::new("start-postgres", &self.folder, [self.start_script().display().to_string()]);
        self.keeper
            .run(start, PATIENCE)
            .await
            .with_context(|| format!("the server's log ends so:\n{}", last_lines(&self.log(), 15)))
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn stop(&self) -> Result<()> {
        let stop = Program::new("stop-postgres", &self.folder, [self.stop_script().display().to_string()]);
        self.keeper.run(stop, PATIENCE).await
    }

    /// Kills the whole server with SIGKILL and keeps it from being started again, until [`Self::switch_on`].
    ///
    /// # Errors
    /// The switch cannot be written.
    pub async fn kill_and_switch_off(&self) -> Result<()> {
        std::fs::write(self.folder.join("off"), "killed\n").context("cannot switch the database off")?;
        self.kill().await
    }

    /// Kills the whole server with SIGKILL.
    ///
    /// # Errors
    /// It is still there.
    pub async fn kill(&self) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        tree::kill_tree(pid);
        wait::until("the death of the database", PATIENCE, || async {
            if tree::is_running(pid) { bail!("process {pid} is still there") } else { Ok(()) }
        })
        .await
    }

    /// SIGSTOP to the whole server: it holds its connections and answers nobody.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT to the whole server.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            tree::signal_tree(pid, signal);
        }
    }

    /// Lets it be started again.
    ///
    /// # Errors
    /// The switch cannot be removed.
    pub fn switch_on(&self) -> Result<()> {
        match std::fs::remove_file(self.folder.join("off")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot switch the database on")
            }
            _ => Ok(()),
        }
    }

    /// The postmaster, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?);
        // A file that a dead server left may name a process of somebody else by now.
        (tree::is_running(pid) && self.keeper.processes().contains(&pid)).then_some(pid)
    }

    /// A connection as a client has it: the owner, over TCP, to its own database.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn connect(&self) -> Result<Client> {
        self.connect_by(OWNER, &self.passwords.owner, OWNER, Route::Network).await
    }

    /// A connection as the agent has it: superuser, over the Unix socket.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn connect_as_agent(&self) -> Result<Client> {
        self.connect_by(AGENT, &self.passwords.agent, "postgres", Route::Socket).await
    }

    /// The same to the application's database, e.g. to read what is there behind a fence.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn connect_as_agent_to_application(&self) -> Result<Client> {
        self.connect_by(AGENT, &self.passwords.agent, OWNER, Route::Socket).await
    }

    /// The same superuser from outside, over TCP.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn connect_as_superuser(&self) -> Result<Client> {
        self.connect_by(AGENT, &self.passwords.agent, OWNER, Route::Network).await
    }

    /// Numbers of all rows, read over the Unix socket, which works behind a fence too.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn rows(&self) -> Result<BTreeSet<i64>> {
        let client = self.connect_as_agent_to_application().await?;
        let rows = client.query("SELECT n FROM rows", &[]).await.context("cannot read the rows")?;
        rows.iter().map(|row| row.try_get(0).context("a row without a number")).collect()
    }

    /// Inserts a row as a client, to see whether that is possible.
    ///
    /// # Errors
    /// It is refused.
    pub async fn insert(&self, n: i64) -> Result<()> {
        insert(self.connect().await?, n).await
    }

    /// Inserts a row as a superuser from outside, to see whether that is possible.
    ///
    /// # Errors
    /// It is refused.
    pub async fn insert_as_superuser(&self, n: i64) -> Result<()> {
        insert(self.connect_as_superuser().await?, n).await
    }

    /// True for a standby.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn is_in_recovery(&self) -> Result<bool> {
        let row = self.connect_as_agent().await?.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        Ok(row.try_get(0)?)
    }

    /// How many standbys stream from it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn streaming(&self) -> Result<i64> {
        let query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        Ok(self.connect_as_agent().await?.query_one(query, &[]).await?.try_get(0)?)
    }

    /// Where clients reach it.
    #[must_use]
    pub const fn address(&self) -> (IpAddr, u16) {
        (self.address, self.port)
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where drills may work.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    /// The folder of its Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The folder of the server's programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The passwords of its roles.
    #[must_use]
    pub const fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// A file with the password of a role.
    #[must_use]
    pub fn password_file(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}-password"))
    }

    /// The listed command that starts it.
    #[must_use]
    pub fn start_script(&self) -> PathBuf {
        self.folder.join("start")
    }

    /// The listed command that stops it.
    #[must_use]
    pub fn stop_script(&self) -> PathBuf {
        self.folder.join("stop")
    }

    /// The server's own log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log").join("postgres.log")
    }

    /// What a client needs to connect, with its password.
    #[must_use]
    pub fn client_conninfo(&self) -> String {
        let (address, port, password) = (self.address, self.port, &self.passwords.owner);
        format!("host={address} port={port} user={OWNER} password={password} dbname={OWNER} connect_timeout=2")
    }

    fn replication_conninfo(&self) -> String {
        format!("host={} port={} user={REPLICATOR}", self.address, self.port)
    }

    async fn connect_by(&self, user: &str, password: &str, database: &str, route: Route) -> Result<Client> {
        let mut config = Config::new();
        match route {
            Route::Network => config.host(self.address.to_string()),
            Route::Socket => config.host_path(self.socket_folder()),
        };
        config.port(self.port).user(user).password(password).dbname(database).application_name("world");
        let connect = tokio::time::timeout(Duration::from_secs(3), config.connect(NoTls));
        let place = format!("{}:{} as {user}", self.address, self.port);
        let (client, connection) = connect
            .await
            .with_context(|| format!("{place} does not answer"))?
            .with_context(|| format!("cannot connect to {place}"))?;
        // Its errors come back through the client.
        tokio::spawn(connection);
        Ok(client)
    }

    fn lay_out(&self) -> Result<()> {
        place::passable(&self.folder)?;
        for part in ["data", "run", "log"] {
            let path = self.folder.join(part);
            std::fs::create_dir_all(&path)?;
            place::give_to_postgres(&path)?;
        }
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.data(), std::fs::Permissions::from_mode(0o700))?;
        self.write_passwords()?;
        self.write_scripts()
    }

    fn write_scripts(&self) -> Result<()> {
        // Whoever runs it may already be PostgreSQL's user: an agent that starts it so.
        let control = format!(
            "if [ \"$(id -u)\" = 0 ]; then as='{}'; else as=; fi\nexport HOME={}\npg_ctl() {{ $as {} -D {} \"$@\"; }}\n",
            place::as_postgres()?.join(" "),
            quote_path(&self.folder),
            quote_path(&self.programs.join("pg_ctl")),
            quote_path(&self.data()),
        );
        let options = format!(
            "-c listen_addresses={} -c port={} -c unix_socket_directories={}",
            self.address,
            self.port,
            self.socket_folder().display()
        );
        script::write(
            &self.start_script(),
            &format!(
                "cd /\n{}{control}if pg_ctl status >/dev/null 2>&1; then exit 0; fi\npg_ctl -s -w -t 50 -l {} -o {} start\n",
                self.gate.lines(),
                quote_path(&self.log()),
                quote(options),
            ),
        )?;
        script::write(
            &self.stop_script(),
            &format!(
                "cd /\n{control}if ! pg_ctl status >/dev/null 2>&1; then exit 0; fi\npg_ctl -s -w -t 50 -m fast stop\n"
            ),
        )?;
        Ok(())
    }
}

async fn insert(client: Client, n: i64) -> Result<()> {
    let insert = async { client.execute("INSERT INTO rows (n) VALUES ($1)", &[&n]).await };
    tokio::time::timeout(Duration::from_secs(3), insert).await.context("the insert hangs")??;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Route {
    Network,
    Socket,
}
