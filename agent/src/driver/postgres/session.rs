//! The agent's own login over the Unix socket: kept, and made anew when it fails.

use std::error::Error as _;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::options::PostgresOptions;
use crate::driver::DriverError;

/// Why a statement got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// There is no socket.
    #[error("no socket")]
    Absent,
    /// It does not accept connections now; in the server's words.
    #[error("{0}")]
    NotNow(String),
    /// The server said no.
    #[error("{message} (SQLSTATE {code})")]
    Server {
        /// SQLSTATE.
        code: String,
        /// In its words.
        message: String,
        /// PANIC: the server goes down.
        panic: bool,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke, or something else on the way.
    #[error("{0}")]
    Broken(String),
}

impl SqlError {
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            if server.code() == &SqlState::CANNOT_CONNECT_NOW || server.code() == &SqlState::ADMIN_SHUTDOWN {
                return Self::NotNow(server.message().to_owned());
            }
            return Self::Server {
                code: server.code().code().to_owned(),
                message: server.message().to_owned(),
                panic: server.severity() == "PANIC",
            };
        }
        match error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => Self::Refused,
            Some(ErrorKind::NotFound) => Self::Absent,
            _ => Self::Broken(match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }),
        }
    }

    /// The same statement on a fresh connection may be answered.
    fn connection_is_lost(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::NotNow(_))
    }
}

impl From<SqlError> for DriverError {
    fn from(error: SqlError) -> Self {
        let code = match &error {
            SqlError::Server { .. } => "postgres-refused",
            _ => "postgres-unreachable",
        };
        Self::retryable(code, format!("the agent's login to PostgreSQL: {error}; see the server's log"))
    }
}

/// The agent's own login.
pub(super) fn login(options: &PostgresOptions) -> Config {
    let mut config = Config::new();
    config
        .host_path(&options.socket_directory)
        .port(options.port)
        .user(&options.user)
        .password(options.password.expose())
        .dbname("postgres")
        .application_name("regent-agent")
        // Never wait for a standby: it may be on the far side of the partition.
        .options("-c synchronous_commit=local -c lock_timeout=2s");
    config
}

/// One kept session.
pub(super) struct Session {
    config: Config,
    kept: Mutex<Option<Arc<Client>>>,
}

impl Session {
    pub(super) fn new(options: &PostgresOptions) -> Self {
        Self { config: login(options), kept: Mutex::new(None) }
    }

    /// Runs statements, and gives the rows of the last that has any. A lost connection is made anew once.
    pub(super) async fn rows(&self, statement: &str, limit: Duration) -> Result<Vec<SimpleQueryRow>, SqlError> {
        let answer = tokio::time::timeout(limit, async {
            let (client, fresh) = self.client().await?;
            match run(&client, statement).await {
                Err(error) if !fresh && error.connection_is_lost() => {
                    self.forget();
                    let (client, _) = self.client().await?;
                    run(&client, statement).await
                }
                answer => answer,
            }
        })
        .await
        .unwrap_or(Err(SqlError::TimedOut(limit)));
        if answer.as_ref().is_err_and(|error| !matches!(error, SqlError::Server { .. })) {
            self.forget();
        }
        answer
    }

    /// The one row of a statement.
    pub(super) async fn row(&self, statement: &str, limit: Duration) -> Result<SimpleQueryRow, SqlError> {
        self.rows(statement, limit).await?.pop().ok_or_else(|| SqlError::Broken("no row".into()))
    }

    /// Runs statements without an answer.
    pub(super) async fn execute(&self, statement: &str, limit: Duration) -> Result<(), SqlError> {
        self.rows(statement, limit).await.map(drop)
    }

    async fn client(&self) -> Result<(Arc<Client>, bool), SqlError> {
        if let Some(client) = self.kept().as_ref().filter(|client| !client.is_closed()) {
            return Ok((Arc::clone(client), false));
        }
        let client = Arc::new(connect(&self.config).await?);
        *self.kept() = Some(Arc::clone(&client));
        Ok((client, true))
    }

    fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Arc<Client>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects; the connection ends when the client is dropped.
pub(super) async fn connect(config: &Config) -> Result<Client, SqlError> {
    let (client, connection) = config.connect(NoTls).await.map_err(|error| SqlError::of(&error))?;
    tokio::spawn(async move {
        // How it ended is told to whoever runs the next statement.
        let _ = connection.await;
    });
    Ok(client)
}

/// Runs statements on a client.
pub(super) async fn run(client: &Client, statement: &str) -> Result<Vec<SimpleQueryRow>, SqlError> {
    let messages = client.simple_query(statement).await.map_err(|error| SqlError::of(&error))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

/// A text column; none if NULL or absent.
pub(super) fn text<'row>(row: &'row SimpleQueryRow, column: &str) -> Option<&'row str> {
    row.try_get(column).ok().flatten()
}

/// A column as a number; none if NULL.
pub(super) fn number<T: std::str::FromStr>(row: &SimpleQueryRow, column: &str) -> Option<T> {
    text(row, column)?.parse().ok()
}

/// A boolean column; none if NULL.
pub(super) fn truth(row: &SimpleQueryRow, column: &str) -> Option<bool> {
    text(row, column).map(|value| value == "t")
}

/// A position as PostgreSQL writes it, in bytes.
pub(super) fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some((u64::from(u32::from_str_radix(high, 16).ok()?) << 32) | u64::from(u32::from_str_radix(low, 16).ok()?))
}

/// A position as PostgreSQL writes it.
pub(super) fn lsn_text(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)
}

/// A position column; none if NULL: unknown, not zero.
pub(super) fn position(row: &SimpleQueryRow, column: &str) -> Option<u64> {
    lsn(text(row, column)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_bytes() {
        assert_eq!(lsn("1/3000148"), Some((1 << 32) | 0x0300_0148));
        assert_eq!(lsn_text((1 << 32) | 0x0300_0148), "1/3000148");
        assert_eq!(lsn("x"), None);
    }
}
