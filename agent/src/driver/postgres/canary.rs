//! A connection from outside that is there before a fence, to see that the fence cuts it.
//!
//! It is a session of the agent's own superuser login over TCP, kept while the database is open; where `pg_hba.conf`
//! does not allow that, a bare connection that is opened as the fence begins.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_postgres::{Client, Config};

use super::Postgres;
use super::session::{connect, run};

const CONNECT_LIMIT: Duration = Duration::from_millis(250);
const CONTACT_LIMIT: Duration = Duration::from_millis(20);
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// The kept one.
#[derive(Default)]
pub(super) struct Kept {
    client: Mutex<Option<Client>>,
    failed: Mutex<Option<Instant>>,
}

/// One that a fence must cut.
pub(super) enum Canary {
    /// A session.
    Session(Client),
    /// A connection that has said nothing yet.
    Bare(TcpStream),
    /// Nobody listens outside.
    None,
}

impl Postgres {
    /// Sees to it that one is there for the next fence; its failure is no failure of the probe.
    pub(super) async fn keep_canary(&self) {
        let failed = *self.canary.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let has_one =
            self.canary.client.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|c| !c.is_closed());
        if has_one || failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE) {
            return;
        }
        let mut config = Config::new();
        config
            .host(&self.options.host)
            .port(self.options.port)
            .user(&self.options.user)
            .password(self.options.password.expose())
            .dbname("postgres")
            .application_name("regent-agent canary");
        match tokio::time::timeout(CONNECT_LIMIT, connect(&config)).await {
            Ok(Ok(client)) => *self.canary.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client),
            _ => *self.canary.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now()),
        }
    }

    /// Takes the kept one, or opens a bare connection.
    pub(super) async fn take_canary(&self) -> Canary {
        let kept = self.canary.client.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(client) = kept.filter(|client| !client.is_closed()) {
            return Canary::Session(client);
        }
        let address = (self.options.host.as_str(), self.options.port);
        match tokio::time::timeout(CONTACT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Canary::Bare(stream),
            _ => Canary::None,
        }
    }
}

impl Canary {
    /// It has been cut: nothing it says is answered any more.
    pub(super) async fn is_cut(&self) -> bool {
        match self {
            Self::Session(client) => {
                client.is_closed()
                    || matches!(tokio::time::timeout(CONTACT_LIMIT, run(client, "SELECT 1")).await, Ok(Err(_)))
            }
            Self::Bare(stream) => match stream.try_read(&mut [0; 64]) {
                Ok(0) => true,
                // The server's last words.
                Ok(_) => false,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            },
            Self::None => true,
        }
    }
}
