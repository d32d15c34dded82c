//! The gentle fence: writes refused by the server itself, clients switched off and cut, and refusals seen.

use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::server::no_file_to_close;
use super::session::{Failure, Login, ask, command};
use super::{CLOSED, COMMAND_LIMIT, DISK_LIMIT, Redis, ok};
use crate::driver::process::disk::{self, Durability, replace};
use crate::driver::{Done, DriverError, DriverResult, Marker};

/// Everything a gentle fence may take; the agent goes hard long before.
const FENCE_LIMIT: Duration = Duration::from_secs(5);

/// How long a fence waits for a command that opens, to come after it.
const GATE_LIMIT: Duration = Duration::from_millis(500);

/// Milliseconds for which a fenced primary expires nothing.
const STILL_FOR: &str = "600000";

/// Seconds between two pings of a fenced primary to its replicas: a number that nobody would configure.
const NO_PINGS: &str = "2147483647";

/// The setting they are kept in, in memory only.
const PING_PERIOD: &str = "repl-ping-replica-period";

/// What Redis does where nothing is configured.
const PING_DEFAULT: &str = "10";

/// A write that changes nothing, should it be accepted after all.
const HARMLESS_WRITE: [&str; 2] = ["DEL", "regent:fence-check"];

impl Redis {
    /// Writes the marker beside the data and closes the server at rest. A replica is closed at run time, too, which
    /// it does not feel: should it be promoted by hand, it refuses writes.
    ///
    /// A server that does not run is closed by its file alone: that is what the gate asks for before a start.
    pub(super) async fn take_into_guard(&self, marker: &Marker) -> DriverResult {
        if self.is_gone().await {
            if self.config_file().is_none() {
                return Err(no_file_to_close());
            }
            return self.fence_at_rest().await;
        }
        let info = self.info().await?;
        let closed = self.close_at_rest(!info.is_replica()).await?;
        if info.is_replica() {
            self.set("min-replicas-to-write", CLOSED).await?;
        }
        let folder = std::path::PathBuf::from(self.get("dir").await?);
        let marker = marker.clone();
        let marked = disk::bounded("redis-files", DISK_LIMIT, "writing regent.marker beside the data", move || {
            let file = folder.join("regent.marker");
            let mut text = serde_json::to_vec(&marker)?;
            text.push(b'\n');
            if std::fs::read(&file).is_ok_and(|before| before == text) {
                return Ok(false);
            }
            replace(&file, &text, Durability::Synced).map(|()| true)
        })
        .await?;
        Ok(Done {
            already: !closed && !marked,
            message: "closed at rest (min-replicas-to-write), marker written".into(),
            ..Done::default()
        })
    }

    /// Fences: commands are refused and connections cut.
    pub(super) async fn fence_gently(&self) -> DriverResult {
        self.gate.begins();
        match tokio::time::timeout(FENCE_LIMIT, self.fence_within()).await {
            Ok(done) => done,
            Err(_) => Err(unconfirmed("the server did not settle")),
        }
    }

    async fn fence_within(&self) -> DriverResult {
        if self.is_gone().await {
            return self.fence_at_rest().await;
        }
        match self.fence_running().await {
            // It was about to end when the fence began.
            Err(error) if error.code == "redis-unreachable" && self.is_gone().await => self.fence_at_rest().await,
            done => done,
        }
    }

    async fn fence_running(&self) -> DriverResult {
        let _gate = tokio::time::timeout(GATE_LIMIT, self.gate.opening.lock())
            .await
            .map_err(|_| unconfirmed("an opening is under way and does not end"))?;
        let was_closed = self.get("min-replicas-to-write").await? == CLOSED;
        let mut old = self.acting.login.connect(COMMAND_LIMIT).await?;
        // Closed before it is let go: a client's write that waited must not run in between.
        self.close().await?;
        // A write that waits is not seen refused.
        self.let_go().await;
        let switched = self.switch_clients("off").await?;
        let cut = self.cut_clients().await?;
        // Whatever an older connection of the agent's still had on the way came before this.
        self.close().await?;
        self.see_refused(&mut old, "an old connection").await?;
        let mut new = self.acting.login.connect(COMMAND_LIMIT).await?;
        self.see_refused(&mut new, "a new connection").await?;
        self.see_nameless_refused().await?;
        self.stand_still().await;
        let info = self.info().await?;
        if !was_closed && !info.is_replica() {
            // The last that it had while it was open: what a restart may not have, and what another side must.
            self.memory.saw(&info, None);
        }
        self.close_at_rest_beside();
        Ok(Done {
            already: was_closed && !switched && cut == 0,
            message: format!("writes are refused on old and new connections, {cut} connections cut"),
            position: if info.is_replica() { None } else { info.position() },
            ..Done::default()
        })
    }

    /// No server: what counts is how the next start comes up.
    async fn fence_at_rest(&self) -> DriverResult {
        let known = self.config_file().is_some();
        // Not known: this agent never met the server alive, and the guard closed the file in an earlier life.
        let closed = if known { self.close_at_rest(false).await? } else { false };
        if !self.is_gone().await {
            return Err(unconfirmed("the server was started meanwhile"));
        }
        Ok(Done {
            already: !closed,
            message: "the server does not run; its next start refuses writes".into(),
            ..Done::default()
        })
    }

    /// A fenced primary goes on to expire keys, and pings its replicas, which is part of its history: that would part
    /// from the one that another side takes over, and it could follow that side only by a full copy. Not needed for the
    /// fence: what does not work is passed over.
    pub(super) async fn stand_still(&self) {
        let _ = self.acting.ask::<Value>(&command(&["CLIENT", "PAUSE", STILL_FOR, "WRITE"]), COMMAND_LIMIT).await;
        if let Ok(period) = self.get(PING_PERIOD).await
            && period != NO_PINGS
        {
            self.known().ping_period = Some(period);
            let _ = self.set(PING_PERIOD, NO_PINGS).await;
        }
    }

    /// Ends that.
    pub(super) async fn let_go(&self) {
        let _ = self.acting.ask::<Value>(&command(&["CLIENT", "UNPAUSE"]), COMMAND_LIMIT).await;
        if self.get(PING_PERIOD).await.is_ok_and(|period| period == NO_PINGS) {
            // An earlier process of this agent may have stopped them.
            let period = self.known().ping_period.clone().unwrap_or_else(|| PING_DEFAULT.to_owned());
            let _ = self.set(PING_PERIOD, &period).await;
        }
    }

    async fn close(&self) -> Result<(), DriverError> {
        // A lag of 0 would switch the check off.
        if self.get("min-replicas-max-lag").await? == "0" {
            self.set("min-replicas-max-lag", "10").await?;
        }
        self.set("min-replicas-to-write", CLOSED).await
    }

    /// Switches the clients' ACL users; true if one had to be switched. The agent's own user is never among them.
    pub(super) async fn switch_clients(&self, to: &str) -> Result<bool, DriverError> {
        let users: Vec<String> = self.acting.ask(&command(&["ACL", "LIST"]), COMMAND_LIMIT).await?;
        let mut switched = false;
        for client in self.options.clients.iter().filter(|client| **client != self.options.user) {
            let rule = users.iter().find(|rule| rule.split(' ').nth(1) == Some(client));
            let Some(rule) = rule else { continue };
            if rule.split(' ').nth(2) != Some(to) {
                switched = true;
                ok(self.acting.ask(&command(&["ACL", "SETUSER", client, to]), COMMAND_LIMIT).await)?;
            }
        }
        Ok(switched)
    }

    /// Cuts clients, but no replicas. An agent's own other connections come back by themselves and are not counted.
    async fn cut_clients(&self) -> Result<u64, DriverError> {
        let mut cut = 0;
        for client in self.options.clients.iter().filter(|client| **client != self.options.user) {
            // A user that does not exist is an error, and has no connections.
            let kill = command(&["CLIENT", "KILL", "USER", client, "TYPE", "normal", "SKIPME", "yes"]);
            cut += self.acting.ask::<u64>(&kill, COMMAND_LIMIT).await.unwrap_or_default();
        }
        for kind in ["normal", "pubsub"] {
            let kill = command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
            self.acting.ask::<u64>(&kill, COMMAND_LIMIT).await?;
        }
        Ok(cut)
    }

    /// A write as the agent's own user, which may do everything, is refused or the connection is cut.
    async fn see_refused(&self, connection: &mut MultiplexedConnection, which: &str) -> Result<(), DriverError> {
        match ask::<Value>(connection, &command(&HARMLESS_WRITE), COMMAND_LIMIT).await {
            Err(Failure::Broken(_) | Failure::Refused) => Ok(()),
            Err(failure) if matches!(failure.code(), "NOREPLICAS" | "READONLY") => Ok(()),
            Err(failure) => Err(unconfirmed(&format!("a write on {which}: {failure}"))),
            Ok(_) => Err(unconfirmed(&format!("a write on {which} was accepted"))),
        }
    }

    /// A client that does not log in is refused.
    async fn see_nameless_refused(&self) -> Result<(), DriverError> {
        let nameless = Login { user: None, password: None, ..self.acting.login.clone() };
        match nameless.connect(COMMAND_LIMIT).await {
            Ok(mut connection) => match ask::<Value>(&mut connection, &command(&HARMLESS_WRITE), COMMAND_LIMIT).await {
                Ok(_) => Err(unconfirmed("a write without a login was accepted")),
                Err(Failure::TimedOut(limit)) => Err(unconfirmed(&format!("no answer within {limit:?}"))),
                Err(_) => Ok(()),
            },
            Err(Failure::TimedOut(limit)) => Err(unconfirmed(&format!("no answer within {limit:?}"))),
            Err(_) => Ok(()),
        }
    }
}

fn unconfirmed(why: &str) -> DriverError {
    DriverError::retryable("redis-fence-unconfirmed", format!("the fence is not confirmed: {why}; go hard"))
}
