//! Redis with replication: one server of a pair.
//!
//! Both refuse writes at rest (`min-replicas-to-write` with a number that no one has); the agent opens the primary at run
//! time and never in the file. Before an agent has taken over, the harness opens it as an operator would.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::keeper::{Keeper, Program, last_lines};
use crate::place;
use crate::script::{self, Gate, quote_path};
use crate::tree;
use crate::wait;

/// The agent's user.
pub const AGENT: &str = "regent";
/// The user that replicas connect as.
pub const REPLICATOR: &str = "replicator";
/// The clients' user.
pub const CLIENT: &str = "default";

const PATIENCE: Duration = Duration::from_secs(30);

/// Passwords of the three users.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Of [`AGENT`].
    pub agent: String,
    /// Of [`REPLICATOR`].
    pub replicator: String,
    /// Of [`CLIENT`].
    pub client: String,
}

impl Passwords {
    /// New ones.
    #[must_use]
    pub fn random() -> Self {
        let one = || uuid::Uuid::new_v4().simple().to_string();
        Self { agent: one(), replicator: one(), client: one() }
    }
}

/// One server.
#[derive(Clone)]
pub struct Redis {
    keeper: Arc<Keeper>,
    folder: PathBuf,
    address: IpAddr,
    port: u16,
    passwords: Passwords,
    gate: Gate,
}

impl Redis {
    /// Describes a server that shall stand in `folder`; nothing is made yet.
    #[must_use]
    pub fn new(
        keeper: Arc<Keeper>,
        folder: &Path,
        address: IpAddr,
        port: u16,
        passwords: Passwords,
        mut gate: Gate,
    ) -> Self {
        gate.switches.push(folder.join("off"));
        Self { keeper, folder: folder.to_owned(), address, port, passwords, gate }
    }

    /// Writes the passwords into files, where an agent's file can refer to them before there is a server.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_passwords(&self) -> Result<()> {
        place::passable(&self.folder)?;
        let Passwords { agent, replicator, client } = &self.passwords;
        for (user, password) in [(AGENT, agent), (REPLICATOR, replicator), (CLIENT, client)] {
            place::write_secret(&self.password_file(user), password)?;
        }
        Ok(())
    }

    /// Makes it a primary, starts it, and opens it as an operator would.
    ///
    /// # Errors
    /// It does not start.
    pub async fn create_primary(&self) -> Result<()> {
        self.lay_out(None)?;
        self.start().await?;
        self.open().await
    }

    /// Makes it a replica of `primary`, starts it, and waits until it is linked.
    ///
    /// # Errors
    /// It does not start, or finds no primary.
    pub async fn create_standby(&self, primary: &Self) -> Result<()> {
        self.lay_out(Some(primary.address()))?;
        self.start().await?;
        wait::until("the link of the Redis replica", PATIENCE, || async {
            match self.info("master_link_status").await?.as_deref() {
                Some("up") => Ok(()),
                other => bail!("master_link_status is {other:?}"),
            }
        })
        .await
    }

    /// Starts it, as its agent would, and waits until it answers.
    ///
    /// # Errors
    /// It does not start, or it is switched off.
    pub async fn start(&self) -> Result<()> {
        let start = Program::new("start-redis", &self.folder, [self.start_script().display().to_string()]);
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
        let stop = Program::new("stop-redis", &self.folder, [self.stop_script().display().to_string()]);
        self.keeper.run(stop, PATIENCE).await
    }

    /// Accepts writes from now on, until it is started anew.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn open(&self) -> Result<()> {
        let mut connection = self.connect_as_agent().await?;
        let command = ::redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(0).to_owned();
        command.query_async::<()>(&mut connection).await.context("cannot open Redis")
    }

    /// Kills it with SIGKILL and keeps it from being started again, until [`Self::switch_on`].
    ///
    /// # Errors
    /// The switch cannot be written.
    pub async fn kill_and_switch_off(&self) -> Result<()> {
        std::fs::write(self.folder.join("off"), "killed\n").context("cannot switch Redis off")?;
        self.kill().await
    }

    /// Kills it with SIGKILL; whoever likes may start it again.
    ///
    /// # Errors
    /// It does not die.
    pub async fn kill(&self) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        tree::kill_tree(pid);
        wait::until("the death of Redis", PATIENCE, || async {
            if tree::is_running(pid) { bail!("process {pid} is still there") } else { Ok(()) }
        })
        .await
    }

    /// Keeps nothing on its disk from now on, and has that put into its configuration file, as an operator may who wants
    /// it to be fast.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn keep_nothing(&self) -> Result<()> {
        let mut connection = self.connect_as_agent().await?;
        for words in [&["SET", "appendonly", "no"][..], &["SET", "save", ""], &["REWRITE"]] {
            let command = ::redis::cmd("CONFIG").arg(words).to_owned();
            command
                .query_async::<()>(&mut connection)
                .await
                .with_context(|| format!("Redis refuses CONFIG {words:?}"))?;
        }
        Ok(())
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
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot switch Redis on"),
            _ => Ok(()),
        }
    }

    /// Its process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let pid = Pid::from_raw(std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?);
        (tree::is_running(pid) && self.keeper.processes().contains(&pid)).then_some(pid)
    }

    /// A connection as a client has it.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        self.connect_by(CLIENT, &self.passwords.client).await
    }

    /// A connection as the agent has it.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub async fn connect_as_agent(&self) -> Result<MultiplexedConnection> {
        self.connect_by(AGENT, &self.passwords.agent).await
    }

    /// Sets a key as a client, to see whether that is possible.
    ///
    /// # Errors
    /// It is refused.
    pub async fn set(&self, key: &str, value: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        let command = ::redis::cmd("SET").arg(key).arg(value).to_owned();
        command.query_async::<()>(&mut connection).await.map_err(|error| anyhow::anyhow!("Redis refuses it: {error}"))
    }

    /// Numbers of all rows that a service has set a key for.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn rows(&self) -> Result<BTreeSet<i64>> {
        let mut connection = self.connect_as_agent().await?;
        let keys: Vec<String> =
            ::redis::cmd("KEYS").arg("row:*").query_async(&mut connection).await.context("cannot read the keys")?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix("row:")?.parse().ok()).collect())
    }

    /// One field of INFO REPLICATION, e.g. `role` or `master_link_status`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn info(&self, field: &str) -> Result<Option<String>> {
        let mut connection = self.connect_as_agent().await?;
        let text: String =
            ::redis::cmd("INFO").arg("REPLICATION").query_async(&mut connection).await.context("no answer to INFO")?;
        Ok(text.lines().find_map(|line| Some(line.trim().strip_prefix(field)?.strip_prefix(':')?.to_owned())))
    }

    /// Where clients reach it.
    #[must_use]
    pub const fn address(&self) -> (IpAddr, u16) {
        (self.address, self.port)
    }

    /// The passwords of its users.
    #[must_use]
    pub const fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// A file with the password of a user.
    #[must_use]
    pub fn password_file(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}-password"))
    }

    /// Where drills may work.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    /// The file that names its process.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("redis.conf")
    }

    /// Where it writes its process id.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("redis.pid")
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
        self.folder.join("redis.log")
    }

    /// What a client needs to connect, with its password.
    #[must_use]
    pub fn client_url(&self) -> String {
        self.url(CLIENT, &self.passwords.client)
    }

    fn url(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@{}:{}/", self.address, self.port)
    }

    async fn connect_by(&self, user: &str, password: &str) -> Result<MultiplexedConnection> {
        let client = ::redis::Client::open(self.url(user, password)).context("not an address of Redis")?;
        let connect = client.get_multiplexed_async_connection();
        let place = format!("Redis at {}:{} as {user}", self.address, self.port);
        tokio::time::timeout(Duration::from_secs(3), connect)
            .await
            .with_context(|| format!("{place} does not answer"))?
            .map_err(|error| anyhow::anyhow!("cannot connect to {place}: {error}"))
    }

    fn lay_out(&self, primary: Option<(IpAddr, u16)>) -> Result<()> {
        self.write_passwords()?;
        std::fs::create_dir_all(self.folder.join("data"))
            .with_context(|| format!("cannot make {}", self.folder.display()))?;
        let Passwords { agent, replicator, client } = &self.passwords;
        let folder = self.folder.display();
        let mut settings = format!(
            "bind {address}\nport {port}\ndir {folder}/data\npidfile {folder}/redis.pid\nlogfile {folder}/redis.log\n\
             daemonize yes\nappendonly yes\nmaxmemory 64mb\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\nrepl-timeout 5\n\
             # Closed at rest: opened at run time by the agent alone.\nmin-replicas-to-write 65535\n\
             user {AGENT} on >{agent} ~* &* +@all\n\
             user {REPLICATOR} on >{replicator} +psync +replconf +ping +info\n\
             user {CLIENT} on >{client} ~* &* +@all -@admin -@dangerous +info\n\
             masteruser {REPLICATOR}\nmasterauth {replicator}\n",
            address = self.address,
            port = self.port,
        );
        if let Some((address, port)) = primary {
            settings.push_str(&format!("replicaof {address} {port}\n"));
        }
        // It holds the passwords.
        place::write_secret(&self.config_file(), &settings)?;
        self.write_scripts()
    }

    fn write_scripts(&self) -> Result<()> {
        let pid = quote_path(&self.pid_file());
        let is_running = format!("running() {{ [ -s {pid} ] && kill -0 \"$(cat {pid})\" 2>/dev/null; }}\n");
        let ping = format!("{} -h {} -p {} ping", quote_path(&place::program("redis-cli")?), self.address, self.port);
        script::write(
            &self.start_script(),
            &format!(
                "cd /\n{}{is_running}if running; then exit 0; fi\nrm -f {pid}\n{} {}\n\
                 # Asking for a password is an answer too.\n\
                 for i in $(seq 300); do\n  case \"$({ping} 2>&1)\" in *PONG*|*NOAUTH*|*NOPERM*) exit 0 ;; esac\n  sleep 0.05\ndone\n\
                 echo 'Redis does not answer' >&2\nexit 1\n",
                self.gate.lines(),
                quote_path(&place::program("redis-server")?),
                quote_path(&self.config_file()),
            ),
        )?;
        script::write(
            &self.stop_script(),
            &format!(
                "cd /\n{is_running}if ! running; then exit 0; fi\nkill \"$(cat {pid})\"\n\
                 for i in $(seq 300); do\n  if ! running; then exit 0; fi\n  sleep 0.05\ndone\n\
                 echo 'Redis does not stop' >&2\nexit 1\n"
            ),
        )?;
        Ok(())
    }
}
