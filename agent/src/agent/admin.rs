//! HTTP for the machine's own tools: alive, ready, metrics. Loopback only.

use regent_proto::watch;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::agent::Status;

type Watched = watch::Receiver<Arc<Status>>;

/// The routes.
pub fn router(status: Watched) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(status)
}

async fn ready(State(status): State<Watched>) -> (StatusCode, String) {
    let status = status.borrow().clone();
    let checks =
        [("coordinators", status.links > 0), ("guard", status.guard_alive), ("journal", status.journal_has_room)];
    let mut text = String::new();
    for (name, good) in checks {
        let _ = writeln!(text, "{} {name}", if good { "ok" } else { "failed" });
    }
    let good = checks.iter().all(|(_, good)| *good);
    (if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    application: String,
}

type Gauges = Family<Labels, Gauge>;

async fn metrics(State(status): State<Watched>) -> (StatusCode, String) {
    let status = status.borrow().clone();
    let mut registry = Registry::with_prefix("regent_agent");
    let gauge = |value: usize| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    registry.register("coordinator_streams", "Streams to coordinators that are up", gauge(status.links));
    registry.register("coordinators", "Coordinators that are dialled", gauge(status.coordinators));
    registry.register("steps_running", "Steps that run", gauge(status.steps));
    registry.register("guard_alive", "1 while the guard answers", gauge(usize::from(status.guard_alive)));
    registry.register(
        "journal_room",
        "1 while the journal can be written",
        gauge(usize::from(status.journal_has_room)),
    );
    registry.register("incarnation", "Process starts of this installation", counter(status.incarnation));
    registry.register("heartbeats", "Heartbeats sent", counter(status.heartbeats));
    let (epoch, primary, left) = (Gauges::default(), Gauges::default(), Gauges::default());
    let (failsafe, fenced) = (Gauges::default(), Gauges::default());
    for (application, one) in &status.applications {
        let labels = Labels { application: application.to_string() };
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        epoch.get_or_create(&labels).set(whole(one.epoch));
        primary.get_or_create(&labels).set(i64::from(one.primary));
        left.get_or_create(&labels).set(one.lease_left.map_or(0, |left| whole(left.millis())));
        failsafe.get_or_create(&labels).set(i64::from(one.failsafe));
        fenced.get_or_create(&labels).set(i64::from(one.fenced));
    }
    registry.register("epoch", "Epoch of the stored terms", epoch);
    registry.register("primary", "1 if this cluster is primary", primary);
    registry.register("lease_left_milliseconds", "What is left of the lease", left);
    registry.register("failsafe", "1 while the lease runs by promises alone", failsafe);
    registry.register("fenced", "1 while fenced, by command or by the agent itself", fenced);
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => (StatusCode::OK, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    }
}

fn counter(value: u64) -> ConstCounter<u64> {
    ConstCounter::new(value)
}
