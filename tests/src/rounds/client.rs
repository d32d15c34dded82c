//! A client that writes numbered rows through the DNS name: one connection, made anew on error, never the same number
//! twice.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::world::World;
use regent_deploy::writer::resolve::Resolver;
use regent_deploy::writer::{Acknowledged, Target, WriterOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{NoTls, Statement};

use super::Plan;

/// For one row; a server that hangs is left.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the databases of a side are.
#[derive(Debug, Clone)]
pub struct Place {
    /// What the name answers for this side.
    pub address: IpAddr,
    /// How a client connects to PostgreSQL there.
    pub postgres: String,
    /// How a client connects to Redis there.
    pub redis: String,
}

impl Place {
    /// Of a side.
    ///
    /// # Errors
    /// It has no databases.
    pub fn of(side: &Region) -> Result<Self> {
        let cluster = side.cluster()?;
        let (postgres, redis) = (cluster.postgres.client_conninfo(), cluster.redis.client_url());
        Ok(Self { address: cluster.address, postgres, redis })
    }
}

/// How a client finds who takes its writes.
#[derive(Debug)]
pub enum Finding {
    /// By the name, as long as its answers may be believed.
    Name(String, Resolver),
    /// By trying one after the other, as libpq does with several hosts and `target_session_attrs=read-write`.
    Hosts(usize),
}

/// What a client remembers.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// Which client.
    pub client: u32,
    /// It writes to Redis.
    pub redis: bool,
    /// In order.
    pub acknowledged: Vec<Acknowledged>,
    /// Rows without an acknowledgement.
    pub failed: u64,
    /// Why the last of those failed.
    pub last_error: Option<String>,
}

type Shared = Arc<Mutex<Sheet>>;

/// Clients at work.
pub struct Clients {
    sheets: Vec<Shared>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them on a world; every fourth writes to Redis.
    #[must_use]
    pub fn start(world: &World, places: &[Place], plan: Plan) -> Self {
        let stop = watch::Sender::new(false);
        let WriterOptions { target, .. } = world.writer();
        let (name, servers) = match target {
            Target::Service { name, servers, .. } => (name, servers),
            Target::Postgres { .. } | Target::Redis { .. } => (String::new(), Vec::new()),
        };
        let mut clients = Self { sheets: Vec::new(), stop, tasks: Vec::new() };
        for number in 0..plan.clients {
            // Each region has clients that ask its own server first.
            let servers = turned(&servers, number);
            let finding = Finding::Name(name.clone(), Resolver::new(servers));
            let redis = number % 4 == 3;
            let sheet = Sheet { client: number, redis, ..Sheet::default() };
            clients.add(sheet, finding, places.to_vec(), plan.pace, plan.retry);
        }
        clients
    }

    /// PostgreSQL alone, found in this way by each.
    #[must_use]
    pub fn of_postgres(findings: Vec<Finding>, places: &[Place], pace: Duration, retry: Duration) -> Self {
        let mut clients = Self { sheets: Vec::new(), stop: watch::Sender::new(false), tasks: Vec::new() };
        for (client, finding) in (0..).zip(findings) {
            clients.add(Sheet { client, ..Sheet::default() }, finding, places.to_vec(), pace, retry);
        }
        clients
    }

    fn add(&mut self, sheet: Sheet, finding: Finding, places: Vec<Place>, pace: Duration, retry: Duration) {
        let mut line = Line { places, finding, open: Open::None, redis: sheet.redis, client: sheet.client };
        let sheet: Shared = Arc::new(Mutex::new(sheet));
        let (kept, stopped) = (Arc::clone(&sheet), self.stop.subscribe());
        self.sheets.push(sheet);
        self.tasks.push(tokio::spawn(async move {
            let mut n = 0;
            while !*stopped.borrow() {
                n += 1;
                let sent = Instant::now();
                let outcome = tokio::time::timeout(PATIENCE, line.write(n)).await;
                let at = Instant::now();
                let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}")));
                let pause = match &outcome {
                    Ok(_) => pace.saturating_sub(sent.elapsed()),
                    Err(_) => retry,
                };
                {
                    let mut sheet = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok(by) => sheet.acknowledged.push(Acknowledged { n, sent, at, by }),
                        Err(error) => {
                            line.left();
                            sheet.failed += 1;
                            sheet.last_error = Some(format!("{error:#}"));
                        }
                    }
                }
                tokio::time::sleep(pause).await;
            }
        }));
    }

    /// What each remembers so far.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Sheet> {
        self.sheets.iter().map(|sheet| sheet.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Each of them has a row acknowledged that it sends from now on.
    ///
    /// # Errors
    /// One has not within the time; with its last reason.
    pub async fn all_write(&self, within: Duration) -> Result<()> {
        let now = Instant::now();
        wait::until("a row of each client", within, || async {
            for sheet in &self.sheets {
                let sheet = sheet.lock().unwrap_or_else(PoisonError::into_inner);
                if sheet.acknowledged.last().is_none_or(|row| row.sent < now) {
                    bail!("client {}: {}", sheet.client, sheet.last_error.as_deref().unwrap_or("no failure either"));
                }
            }
            Ok(())
        })
        .await
    }

    /// Ends them after the rows in flight.
    ///
    /// # Errors
    /// One had died.
    pub async fn stop(self) -> Result<Vec<Sheet>> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.context("a client died")?;
        }
        Ok(self.sheets.iter().map(|sheet| sheet.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect())
    }
}

fn turned(servers: &[SocketAddr], number: u32) -> Vec<SocketAddr> {
    let mut servers = servers.to_vec();
    let count = servers.len().max(1);
    servers.rotate_left(number as usize % count);
    servers
}

enum Open {
    None,
    Postgres(IpAddr, tokio_postgres::Client, Statement),
    Redis(IpAddr, redis::aio::MultiplexedConnection),
}

struct Line {
    places: Vec<Place>,
    finding: Finding,
    open: Open,
    redis: bool,
    client: u32,
}

impl Line {
    async fn write(&mut self, n: i64) -> Result<IpAddr> {
        if matches!(self.open, Open::None) {
            self.open = self.connect().await?;
        }
        match &mut self.open {
            Open::None => bail!("not connected"),
            Open::Postgres(by, client, insert) => {
                client.execute(insert, &[&i64::from(self.client), &n]).await.context("PostgreSQL refuses")?;
                Ok(*by)
            }
            Open::Redis(by, connection) => {
                let row = format!("{}:{n}", self.client);
                let push = redis::cmd("RPUSH").arg("ledger").arg(row).to_owned();
                push.query_async::<i64>(connection).await.context("Redis refuses")?;
                Ok(*by)
            }
        }
    }

    /// What was open is opened anew after an error.
    fn left(&mut self) {
        self.open = Open::None;
        if let Finding::Hosts(at) = &mut self.finding {
            *at += 1;
        }
    }

    async fn connect(&mut self) -> Result<Open> {
        let place = match &mut self.finding {
            Finding::Name(name, resolver) => {
                let address = resolver.resolve(name).await?;
                self.places.iter().find(|place| place.address == address).context("the name answers something else")?
            }
            Finding::Hosts(at) => self.places.get(*at % self.places.len().max(1)).context("there is nowhere to go")?,
        };
        if self.redis {
            let connection = redis::Client::open(place.redis.as_str())?.get_multiplexed_async_connection().await?;
            return Ok(Open::Redis(place.address, connection));
        }
        let (client, connection) = tokio_postgres::connect(&place.postgres, NoTls).await?;
        // Its errors come back through the client.
        tokio::spawn(connection);
        if let Finding::Hosts(_) = self.finding {
            // What libpq asks of each host.
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
            if row.try_get(0)? {
                bail!("{} is read-only", place.address);
            }
        }
        let insert = client.prepare("INSERT INTO ledger (client, n) VALUES ($1, $2)").await?;
        Ok(Open::Postgres(place.address, client, insert))
    }
}
