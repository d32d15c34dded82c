//! The agent's own login: kept, and made anew when it fails.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisError};

use super::options::RedisUpstream;
use crate::driver::DriverError;
use crate::secret::Secret;

/// Why a command got no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// The server said no.
    #[error("{code} {words}")]
    Server {
        /// First word of its answer.
        code: String,
        /// The others.
        words: String,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke, or something else on the way.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    pub(super) fn of(error: &RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::Refused;
        }
        match error.code() {
            Some(code) => Self::Server { code: code.to_owned(), words: error.detail().unwrap_or_default().to_owned() },
            None if error.kind() == redis::ErrorKind::AuthenticationFailed => {
                Self::Server { code: "WRONGPASS".into(), words: error.detail().unwrap_or_default().to_owned() }
            }
            None => Self::Broken(error.to_string()),
        }
    }

    /// The server's first word.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Server { code, .. } => code,
            _ => "",
        }
    }
}

impl From<Failure> for DriverError {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::Server { .. } => "redis-refused",
            _ => "redis-unreachable",
        };
        Self::retryable(code, format!("the agent's login to Redis: {failure}; see the server's log"))
    }
}

/// Where and as whom.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

impl Login {
    /// To another cluster, as a replica logs in there.
    pub(super) fn to(upstream: &RedisUpstream) -> Self {
        Self {
            host: upstream.host.clone(),
            port: upstream.port,
            user: upstream.user.clone(),
            password: upstream.password.clone(),
        }
    }

    /// A connection of its own.
    pub(super) async fn connect(&self, limit: Duration) -> Result<MultiplexedConnection, Failure> {
        let mut settings = redis::RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        let connect = async {
            let address = ConnectionAddr::Tcp(self.host.clone(), self.port);
            let info = address.into_connection_info()?.set_redis_settings(settings);
            // Bounded by this driver, for each command.
            let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
        };
        match tokio::time::timeout(limit, connect).await {
            Ok(connection) => connection.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::TimedOut(limit)),
        }
    }
}

/// Asks one command on a connection.
pub(super) async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
    limit: Duration,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, command.query_async(connection)).await {
        Ok(answer) => answer.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::TimedOut(limit)),
    }
}

/// One kept session.
pub(super) struct Session {
    pub(super) login: Login,
    kept: Mutex<Option<MultiplexedConnection>>,
}

impl Session {
    pub(super) fn new(login: Login) -> Self {
        Self { login, kept: Mutex::new(None) }
    }

    /// Asks a command that may be asked twice. A lost connection is made anew once.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd, limit: Duration) -> Result<T, Failure> {
        let kept = self.kept().clone();
        if let Some(mut connection) = kept {
            match ask(&mut connection, command, limit).await {
                Err(Failure::Broken(_) | Failure::Refused) => self.forget(),
                Err(failure @ Failure::TimedOut(_)) => {
                    self.forget();
                    return Err(failure);
                }
                answer => return answer,
            }
        }
        let mut connection = self.login.connect(limit).await?;
        *self.kept() = Some(connection.clone());
        let answer = ask(&mut connection, command, limit).await;
        if matches!(answer, Err(Failure::Broken(_) | Failure::Refused | Failure::TimedOut(_))) {
            self.forget();
        }
        answer
    }

    fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command by its words.
pub(super) fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command
}

/// What `INFO` says, by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Info(BTreeMap<String, String>);

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }

    /// A number; none if absent or negative: unknown, not zero.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.parse().ok()
    }

    pub(super) fn is(&self, key: &str, value: &str) -> bool {
        self.text(key) == value
    }

    /// No database has a key: `INFO` lists those that have.
    pub(super) fn has_no_keys(&self) -> bool {
        !self.0.keys().any(|key| key.strip_prefix("db").is_some_and(|rest| rest.parse::<u32>().is_ok()))
    }

    /// There is nothing in it that a copy would take the place of: no keys, and no functions.
    pub(super) fn is_empty(&self) -> bool {
        self.has_no_keys() && self.number("number_of_functions").is_none_or(|functions| functions == 0)
    }

    /// How many keys there are, in all databases.
    pub(super) fn keys(&self) -> u64 {
        let is_database = |key: &str| key.strip_prefix("db").is_some_and(|rest| rest.parse::<u32>().is_ok());
        let databases = self.0.iter().filter(|(key, _)| is_database(key));
        let keys =
            databases.filter_map(|(_, value)| value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok());
        keys.sum()
    }

    pub(super) fn is_replica(&self) -> bool {
        self.is("role", "slave")
    }

    /// Everything up to here has been applied.
    pub(super) fn position(&self) -> Option<u64> {
        self.number(if self.is_replica() { "slave_repl_offset" } else { "master_repl_offset" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_negative_or_absent_is_unknown() {
        let info =
            Info::parse("# Replication\r\nrole:slave\r\nmaster_last_io_seconds_ago:-1\r\nslave_repl_offset:7\r\n");
        assert!(info.is_replica());
        assert_eq!(info.position(), Some(7));
        assert_eq!(info.number("master_last_io_seconds_ago"), None);
        assert_eq!(info.number("connected_slaves"), None);
    }
}
