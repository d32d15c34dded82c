//! The HTTP side of the service.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use anyhow::{Context, Result, ensure};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};

use super::DemoConfig;

/// For one attempt at a database; the client has given up long before.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the line of the log begins that each start writes.
pub const STARTED: &str = "the service has started";

/// A numbered row.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Row {
    /// Its number.
    pub n: i64,
}

/// Serves until SIGTERM.
///
/// # Errors
/// It cannot listen.
pub async fn serve(config: DemoConfig) -> Result<()> {
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let mut terminated = signal(SignalKind::terminate())?;
    // Its log is the standard output: whoever counts how often it was started counts these lines.
    std::io::Write::write_all(&mut std::io::stdout(), format!("{STARTED} on {}\n", config.listen).as_bytes())?;
    let store = Arc::new(Store { config, postgres: Mutex::default(), redis: Mutex::default() });
    let routes = Router::new()
        .route("/rows", post(write))
        .route("/rows/max", get(highest))
        .route("/healthz", get(health))
        .with_state(store);
    tokio::select! {
        served = axum::serve(listener, routes) => served.context("the server ended"),
        _ = terminated.recv() => Ok(()),
    }
}

/// Connections to both databases, made when needed and made anew after an error.
struct Store {
    config: DemoConfig,
    postgres: Mutex<Option<Arc<Client>>>,
    redis: Mutex<Option<MultiplexedConnection>>,
}

type Refusal = (StatusCode, String);

fn refused(error: &anyhow::Error) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n"))
}

async fn write(State(store): State<Arc<Store>>, Json(row): Json<Row>) -> Result<StatusCode, Refusal> {
    store.write(row).await.map_err(|error| refused(&error))?;
    Ok(StatusCode::CREATED)
}

async fn highest(State(store): State<Arc<Store>>) -> Result<Json<Option<Row>>, Refusal> {
    let highest = store.highest().await.map_err(|error| refused(&error))?;
    Ok(Json(highest.map(|n| Row { n })))
}

async fn health(State(store): State<Arc<Store>>) -> Result<&'static str, Refusal> {
    store.check().await.map_err(|error| refused(&error))?;
    Ok("ok\n")
}

impl Store {
    /// A row whose number is there already was sent twice; that is a success.
    async fn write(&self, row: Row) -> Result<()> {
        let client = self.postgres().await?;
        let insert =
            async { client.execute("INSERT INTO rows (n) VALUES ($1) ON CONFLICT DO NOTHING", &[&row.n]).await };
        within("PostgreSQL", insert).await?;
        self.set(&format!("row:{}", row.n), "1").await
    }

    async fn highest(&self) -> Result<Option<i64>> {
        let client = self.postgres().await?;
        let row = within("PostgreSQL", async { client.query_one("SELECT max(n) FROM rows", &[]).await }).await?;
        Ok(row.try_get(0)?)
    }

    async fn check(&self) -> Result<()> {
        let client = self.postgres().await?;
        let query = "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'";
        let row = within("PostgreSQL", async { client.query_one(query, &[]).await }).await?;
        ensure!(row.try_get::<_, bool>(0)?, "PostgreSQL is read-only");
        self.set("health", "ok").await
    }

    async fn postgres(&self) -> Result<Arc<Client>> {
        let mut slot = self.postgres.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, connection) = within("PostgreSQL", tokio_postgres::connect(&self.config.postgres, NoTls)).await?;
        // Its errors come back through the client.
        tokio::spawn(connection);
        let client = Arc::new(client);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn set(&self, key: &str, value: &str) -> Result<()> {
        let mut slot = self.redis.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => {
                let client = ::redis::Client::open(self.config.redis.as_str()).context("not an address of Redis")?;
                within("Redis", client.get_multiplexed_async_connection()).await?
            }
        };
        let command = ::redis::cmd("SET").arg(key).arg(value).to_owned();
        within("Redis", command.query_async::<()>(&mut connection)).await?;
        // Kept only after a success: an error may have left it unusable.
        *slot = Some(connection);
        Ok(())
    }
}

async fn within<T, E>(what: &'static str, work: impl Future<Output = Result<T, E>>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.with_context(|| format!("{what} does not answer"))?.with_context(|| format!("{what} refuses"))
}
