//! Where a client writes its rows, and how.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, NoTls};

use super::resolve::Resolver;

/// Where a client writes.
#[derive(Debug, Clone)]
pub enum Target {
    /// Wherever the service is by its name.
    Service {
        /// The service's name, absolute.
        name: String,
        /// The service's port.
        port: u16,
        /// Authoritative servers of the name.
        servers: Vec<SocketAddr>,
    },
    /// One server of PostgreSQL, whatever it is just now.
    Postgres {
        /// Where it is.
        address: IpAddr,
        /// How a client connects.
        conninfo: String,
    },
    /// One server of Redis, whatever it is just now.
    Redis {
        /// Where it is.
        address: IpAddr,
        /// How a client connects.
        url: String,
    },
}

/// A target with what is kept open to it between two rows.
pub(super) enum Line {
    Service { name: String, port: u16, resolver: Resolver, http: reqwest::Client },
    Postgres { address: IpAddr, conninfo: String, client: Option<Client>, timeout: Duration },
    Redis { address: IpAddr, url: String, connection: Option<MultiplexedConnection>, timeout: Duration },
}

impl Line {
    /// `timeout` is for one request.
    pub(super) fn new(target: Target, timeout: Duration) -> Result<Self> {
        Ok(match target {
            Target::Service { name, port, servers } => {
                let http = reqwest::Client::builder().no_proxy().timeout(timeout).build().context("no HTTP client")?;
                Self::Service { name, port, resolver: Resolver::new(servers), http }
            }
            Target::Postgres { address, conninfo } => Self::Postgres { address, conninfo, client: None, timeout },
            Target::Redis { address, url } => Self::Redis { address, url, connection: None, timeout },
        })
    }

    /// Writes a row; gives who acknowledged it. What was open is opened anew after an error, and after a call that was
    /// given up.
    pub(super) async fn write(&mut self, n: i64) -> Result<IpAddr> {
        match self {
            Self::Service { name, port, resolver, http } => {
                let address = resolver.resolve(name).await?;
                post(http, SocketAddr::new(address, *port), n).await?;
                Ok(address)
            }
            Self::Postgres { address, conninfo, client, timeout } => {
                let insert = tokio::time::timeout(*timeout, insert(conninfo, client.take(), n));
                *client = Some(insert.await.context("PostgreSQL does not answer")??);
                Ok(*address)
            }
            Self::Redis { address, url, connection, timeout } => {
                let set = tokio::time::timeout(*timeout, set(url, connection.take(), n));
                *connection = Some(set.await.context("Redis does not answer")??);
                Ok(*address)
            }
        }
    }
}

/// As stubborn as a session can be: no default of the server's makes its transaction read-only.
async fn insert(conninfo: &str, open: Option<Client>, n: i64) -> Result<Client> {
    let client = match open {
        Some(open) => open,
        None => {
            let connect = tokio_postgres::connect(conninfo, NoTls).await;
            let (client, connection) = connect.context("cannot connect to PostgreSQL")?;
            // Its errors come back through the client.
            tokio::spawn(connection);
            client
        }
    };
    let insert = format!("BEGIN READ WRITE; INSERT INTO rows (n) VALUES ({n}) ON CONFLICT DO NOTHING; COMMIT");
    client.batch_execute(&insert).await.context("PostgreSQL refuses")?;
    Ok(client)
}

async fn set(url: &str, open: Option<MultiplexedConnection>, n: i64) -> Result<MultiplexedConnection> {
    let mut connection = match open {
        Some(open) => open,
        None => {
            let client = ::redis::Client::open(url).context("not an address of Redis")?;
            client.get_multiplexed_async_connection().await.context("cannot connect to Redis")?
        }
    };
    let set = ::redis::cmd("SET").arg(format!("row:{n}")).arg("1").to_owned();
    set.query_async::<()>(&mut connection).await.context("Redis refuses")?;
    Ok(connection)
}

async fn post(http: &reqwest::Client, to: SocketAddr, n: i64) -> Result<()> {
    let body = serde_json::to_string(&crate::demo::server::Row { n })?;
    let request = http.post(format!("http://{to}/rows")).header("content-type", "application/json").body(body);
    let answer = request.send().await.with_context(|| format!("{} does not take a row", to.ip()))?;
    if answer.status() != reqwest::StatusCode::CREATED {
        let status = answer.status();
        bail!("{} refused a row with {status}: {}", to.ip(), answer.text().await.unwrap_or_default().trim());
    }
    Ok(())
}
