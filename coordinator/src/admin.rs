//! The HTTP server of a coordinator: the dashboard, and beside it what machines ask: alive, ready, metrics.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::dashboard;
use crate::node::Node;
use crate::telemetry::Metrics;

/// Something that must have happened before this coordinator is of use. Latches: what happened stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latch {
    /// The configuration was read and is valid.
    ConfigParsed,
    /// Log and snapshot were read from the disk.
    LogReplayed,
    /// This coordinator knows itself as a member of its group.
    MemberKnown,
    /// Certificates and keys were read.
    TlsLoaded,
    /// The DNS server has its ports, or there is none.
    DnsBound,
}

/// Which latches are set. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    set: Arc<AtomicU8>,
}

/// Why there is no HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The port could not be had.
    #[error("cannot listen on {address} for the dashboard: free the port or change `dashboard`")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server failed while it ran.
    #[error("the dashboard's server on {address} stopped: restart the coordinator")]
    Stopped {
        /// Where it listened.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
}

/// A port, bound and not yet served.
#[derive(Debug)]
pub struct BoundAdmin {
    listener: TcpListener,
    address: SocketAddr,
}

/// After the end was asked for, open connections have so long.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

impl Latch {
    /// Every latch.
    pub const ALL: [Self; 5] =
        [Self::ConfigParsed, Self::LogReplayed, Self::MemberKnown, Self::TlsLoaded, Self::DnsBound];

    /// As `/readyz` names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigParsed => "config-parsed",
            Self::LogReplayed => "log-replayed",
            Self::MemberKnown => "member-known",
            Self::TlsLoaded => "tls-loaded",
            Self::DnsBound => "dns-bound",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Readiness {
    /// It has happened.
    pub fn set(&self, latch: Latch) {
        self.set.fetch_or(latch.bit(), Ordering::Release);
    }

    /// What has not happened yet.
    #[must_use]
    pub fn missing(&self) -> Vec<Latch> {
        let set = self.set.load(Ordering::Acquire);
        Latch::ALL.into_iter().filter(|latch| set & latch.bit() == 0).collect()
    }

    /// Everything has happened.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }
}

/// Binds the address. Port 0: any free port.
///
/// # Errors
/// If it cannot be had.
pub async fn bind(listen: SocketAddr) -> Result<BoundAdmin, AdminError> {
    let refused = |source| AdminError::Bind { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok(BoundAdmin { listener, address })
}

/// Everything that is served over HTTP. Streams end when the token is cancelled.
pub fn router(node: Node, readiness: Readiness, shutdown: CancellationToken) -> Router {
    let metrics = Arc::new(Metrics::new(node.clone()));
    Router::new()
        .route("/livez", get(async || Json(serde_json::json!({ "alive": true }))))
        .route("/readyz", get(readyz).with_state((readiness, node.clone())))
        .route("/metrics", get(scrape).with_state(metrics))
        .merge(dashboard::router(node, shutdown))
}

impl BoundAdmin {
    /// The address that was bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled.
    ///
    /// # Errors
    /// If the server fails.
    pub async fn serve(self, node: Node, readiness: Readiness, shutdown: CancellationToken) -> Result<(), AdminError> {
        let address = self.address;
        let app = router(node, readiness, shutdown.clone());
        tracing::info!(%address, "dashboard listens");
        let serving = axum::serve(self.listener, app).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        tokio::select! {
            ended = serving.into_future() => ended.map_err(|source| AdminError::Stopped { address, source }),
            () = async { shutdown.cancelled().await; tokio::time::sleep(LAST_ANSWERS).await } => Ok(()),
        }
    }
}

/// Warnings take nothing from its readiness: to take a coordinator out for them would make it worse.
async fn readyz(State((readiness, node)): State<(Readiness, Node)>) -> Response {
    let missing: Vec<_> = readiness.missing().into_iter().map(Latch::as_str).collect();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let leadership = node.replica.leadership().borrow().clone();
    let far =
        leadership.too_far().map(|(id, took)| format!("coordinator {id} answers in {took:?}: raise raft.heartbeat"));
    let warnings: Vec<String> = far.collect();
    let body = serde_json::json!({ "ready": missing.is_empty(), "missing": missing, "warnings": warnings });
    (status, Json(body)).into_response()
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_nothing_is_missing() {
        let readiness = Readiness::default();
        assert_eq!(readiness.missing(), Latch::ALL);
        for latch in Latch::ALL {
            assert!(!readiness.is_ready());
            readiness.set(latch);
            readiness.set(latch);
        }
        assert!(readiness.is_ready());
        assert!(readiness.missing().is_empty());
    }
}
