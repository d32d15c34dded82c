//! What a client from outside meets: a connection attempt that needs no credentials.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::Postgres;
use crate::driver::process::contact::{Contact, contact, nobody};

/// One attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(250);

/// What an attempt met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// `pg_hba.conf` rejected it.
    Rejected,
    /// Nobody listens there.
    Nobody,
    /// It was asked for a password or let in: the fence does not stand.
    Admitted,
    /// It could not be told.
    Unclear,
}

impl Met {
    /// No write can come this way.
    pub(super) fn keeps_out(self) -> bool {
        matches!(self, Self::Rejected | Self::Nobody)
    }
}

impl Postgres {
    /// Knocks as the owner, as the superuser and as the agent's own login from outside, and as the owner over the
    /// socket; all at once.
    pub(super) async fn knock_everywhere(&self) -> [Met; 4] {
        let (owner, superuser, own, local) = tokio::join!(
            self.knock(&self.options.owner, false),
            self.knock("postgres", false),
            self.knock(&self.options.user, false),
            self.knock_locally(),
        );
        [owner, superuser, own, local]
    }

    async fn knock_locally(&self) -> Met {
        // The owner may be the agent's own login only in a strange set-up; that login stays on the socket.
        if self.options.owner == self.options.user {
            Met::Rejected
        } else {
            self.knock(&self.options.owner, true).await
        }
    }

    /// Knocks once, without a password.
    pub(super) async fn knock(&self, user: &str, local: bool) -> Met {
        let mut config = Config::new();
        config.port(self.options.port).user(user).dbname(&self.options.database).application_name("regent-agent");
        if local {
            config.host_path(&self.options.socket_directory);
        } else {
            config.host(&self.options.host);
        }
        let Ok(attempt) = tokio::time::timeout(ATTEMPT_LIMIT, config.connect(NoTls)).await else {
            return Met::Unclear;
        };
        attempt.err().map_or(Met::Admitted, |error| judge(&error))
    }

    /// Nobody listens, neither on the socket nor outside.
    pub(super) async fn nobody_listens(&self) -> bool {
        let socket = self.options.socket_directory.join(format!(".s.PGSQL.{}", self.options.port));
        let (local, outside) = tokio::join!(
            tokio::time::timeout(ATTEMPT_LIMIT, tokio::net::UnixStream::connect(socket)),
            contact(&self.options.host, self.options.port, ATTEMPT_LIMIT),
        );
        matches!(local, Ok(Err(error)) if nobody(error.kind())) && outside == Contact::Nobody
    }
}

fn judge(error: &tokio_postgres::Error) -> Met {
    use std::error::Error as _;
    if let Some(server) = error.as_db_error() {
        // An unknown role has the same SQLSTATE, but another place in the server: it had got past pg_hba.conf.
        let rejected = server.code() == &SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            && server.routine() == Some("ClientAuthentication");
        let busy = [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS, SqlState::ADMIN_SHUTDOWN];
        return match () {
            () if rejected => Met::Rejected,
            () if busy.contains(server.code()) => Met::Unclear,
            () => Met::Admitted,
        };
    }
    match error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) {
        Some(io) if nobody(io.kind()) => Met::Nobody,
        Some(_) => Met::Unclear,
        // The server asked for a password, which this attempt does not have; or it closed without a word.
        None if error.is_closed() => Met::Unclear,
        None => Met::Admitted,
    }
}
