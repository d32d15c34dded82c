//! The metrics, computed from a view when they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use regent_core::id::RunId;
use regent_core::preflight::Severity;
use regent_core::state::State;

use super::names::{self, Name};
use crate::node::Node;
use crate::view::{self, ApplicationView, Lease, Role, RunState, View};

type Labels = Vec<(&'static str, String)>;
type Series = Family<Labels, Gauge<f64, AtomicU64>>;

/// What is scraped.
pub struct Metrics {
    node: Node,
    runs: Mutex<EndedRuns>,
}

/// The state forgets old runs, and a counter must not fall.
#[derive(Default)]
struct EndedRuns {
    counted: BTreeSet<RunId>,
    totals: BTreeMap<(String, &'static str), u64>,
}

impl Metrics {
    /// Of the encoded text.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Reads from this node.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self { node, runs: Mutex::default() }
    }

    /// The metrics as they are now.
    ///
    /// # Errors
    /// If they cannot be written as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let view = view::look(&self.node, |inputs| {
            runs.count(inputs.state);
            View::build(inputs)
        });
        let mut sheet = Sheet::default();
        group(&mut sheet, &view);
        for application in &view.applications {
            of_application(&mut sheet, application);
            of_runs(&mut sheet, &view, application);
        }
        let mut registry = sheet.registry();
        runs.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl EndedRuns {
    fn count(&mut self, state: &State) {
        for run in state.runs.values().filter(|run| run.status.is_final()) {
            if self.counted.insert(run.id) {
                let outcome = RunState::from(run.status).as_str();
                *self.totals.entry((run.application.to_string(), outcome)).or_default() += 1;
            }
        }
        self.counted.retain(|id| state.runs.contains_key(id));
    }

    fn register(&self, registry: &mut Registry) {
        let family = Family::<Labels, Counter>::default();
        for ((application, outcome), total) in &self.totals {
            let labels = vec![("application", application.clone()), ("outcome", (*outcome).to_owned())];
            family.get_or_create(&labels).inc_by(*total);
        }
        // The encoder itself writes the suffix of counters.
        let name = names::RUNS_TOTAL.name.trim_end_matches("_total");
        registry.register(name, names::RUNS_TOTAL.help, family);
    }
}

/// Gauges by name, while they are filled in.
#[derive(Default)]
struct Sheet {
    series: BTreeMap<&'static str, (Name, Series)>,
    /// Those without labels.
    single: BTreeMap<&'static str, (Name, f64)>,
}

impl Sheet {
    fn set(&mut self, name: Name, labels: &Labels, value: f64) {
        if labels.is_empty() {
            self.single.insert(name.name, (name, value));
            return;
        }
        let (_, series) = self.series.entry(name.name).or_insert_with(|| (name, Series::default()));
        series.get_or_create(labels).set(value);
    }

    fn flag(&mut self, name: Name, labels: &Labels, value: bool) {
        self.set(name, labels, f64::from(u8::from(value)));
    }

    fn count(&mut self, name: Name, labels: &Labels, value: u64) {
        self.set(name, labels, number(value));
    }

    fn seconds(&mut self, name: Name, labels: &Labels, ms: Option<u64>) {
        if let Some(ms) = ms {
            self.set(name, labels, number(ms) / 1000.0);
        }
    }

    fn registry(self) -> Registry {
        let mut registry = Registry::default();
        for (name, value) in self.single.into_values() {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(value);
            registry.register(name.name, name.help, gauge);
        }
        for (name, series) in self.series.into_values() {
            registry.register(name.name, name.help, series);
        }
        registry
    }
}

/// Exact up to 2^53, which no count or size here reaches.
#[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floating point")]
const fn number(value: u64) -> f64 {
    value as f64
}

fn group(sheet: &mut Sheet, view: &View) {
    let none = Vec::new;
    sheet.flag(names::BUILD_INFO, &vec![("release", env!("CARGO_PKG_VERSION").to_owned())], true);
    sheet.count(names::APPLIED_INDEX, &none(), view.applied_index);
    sheet.count(names::RAFT_TERM, &none(), view.quorum.term);
    sheet.flag(names::RAFT_IS_LEADER, &none(), view.me.leader);
    sheet.flag(names::QUORUM, &none(), view.quorum.held);
    sheet.seconds(names::VIEW_AGE_SECONDS, &none(), view.quorum.view_age_ms);
    for other in &view.coordinators {
        let labels = vec![("coordinator", other.id.to_string())];
        sheet.seconds(names::PEER_ROUND_TRIP_SECONDS, &labels, other.round_trip_ms);
    }
    sheet.count(names::DNS_SERIAL, &none(), u64::from(view.dns_serial));
    sheet.flag(names::PAUSED, &none(), view.paused.is_some());
    sheet.flag(names::FROZEN, &none(), view.frozen.is_some());
    for cluster in &view.clusters {
        let labels = || vec![("cluster", cluster.name.clone())];
        sheet.count(names::VOTES_STANDING, &labels(), cluster.votes_standing as u64);
        let own = cluster.observers.iter().find(|sight| sight.observer == view.me.id);
        sheet.seconds(names::CONTACT_AGE_SECONDS, &labels(), own.and_then(|sight| sight.two_way_age_ms));
    }
}

fn of_application(sheet: &mut Sheet, application: &ApplicationView) {
    let labels = || vec![("application", application.name.clone())];
    sheet.count(names::APPLICATION_EPOCH, &labels(), application.epoch);
    sheet.flag(names::APPLICATION_PAUSED, &labels(), application.paused.is_some());
    sheet.flag(names::APPLICATION_REFUSED, &labels(), application.refusal.is_some());
    sheet.count(names::APPLICATION_STUCK, &labels(), application.stuck.len() as u64);
    let left = application.cool_down.as_ref().map_or(0, |cool_down| cool_down.left_ms);
    sheet.seconds(names::APPLICATION_COOL_DOWN_SECONDS, &labels(), Some(left));
    sheet.flag(names::APPLICATION_ASKS, &labels(), matches!(application.advice.state, "asking" | "unanswered"));
    sheet.flag(names::APPLICATION_HELD, &labels(), application.held.is_some());
    if let Some(found) = &application.protection {
        sheet.flag(names::APPLICATION_PROTECTED, &labels(), found.protected);
    }
    for severity in [Severity::Blocker, Severity::Warning, Severity::Info].map(Severity::as_str) {
        let labels = vec![("application", application.name.clone()), ("severity", severity.to_owned())];
        let notes = application.readiness.iter().filter(|note| note.severity == severity);
        sheet.count(names::READINESS_NOTES, &labels, notes.count() as u64);
    }
    let open = application.commit_window.as_ref().map_or(0, |window| window.left_ms);
    sheet.seconds(names::APPLICATION_COMMIT_WINDOW_SECONDS, &labels(), Some(open));
    for cluster in &application.clusters {
        let labels = || vec![("application", application.name.clone()), ("cluster", cluster.cluster.clone())];
        sheet.flag(names::APPLICATION_PRIMARY, &labels(), cluster.role == Role::Primary);
        sheet.flag(names::LEASE_HELD, &labels(), cluster.lease == Lease::Held);
        sheet.seconds(names::LEASE_LEFT_SECONDS, &labels(), cluster.lease_left_ms);
        sheet.flag(names::GUARD_ALIVE, &labels(), cluster.guard_alive == Some(true));
        for resource in &cluster.resources {
            let labels = || {
                let mut labels = labels();
                labels.push(("resource", resource.name.clone()));
                labels
            };
            let mut with_health = labels();
            with_health.push(("health", resource.health.as_str().to_owned()));
            sheet.flag(names::RESOURCE_HEALTH, &with_health, true);
            if let Some(lag) = resource.lag_bytes {
                sheet.count(names::REPLICA_LAG_BYTES, &labels(), lag);
            }
            sheet.seconds(names::REPLICA_LAG_SECONDS, &labels(), resource.lag_ms);
        }
    }
}

fn of_runs(sheet: &mut Sheet, view: &View, application: &ApplicationView) {
    let labels = || vec![("application", application.name.clone())];
    let newest = view.runs.iter().find(|run| run.application == application.name);
    sheet.flag(names::RUN_ACTIVE, &labels(), newest.is_some_and(|run| run.ended.is_none()));
    sheet.flag(names::RUN_STUCK, &labels(), newest.is_some_and(|run| run.state == RunState::Stuck));
    sheet.seconds(names::RUN_SECONDS, &labels(), newest.map(|run| run.duration_ms));
    let mut moves = view.runs.iter().filter(|run| run.application == application.name);
    let newest_move = moves.find_map(|run| run.recovery.as_ref().zip(run.loss.as_ref()));
    sheet.seconds(names::RUN_RECOVERY_SECONDS, &labels(), newest_move.map(|(recovery, _)| recovery.elapsed_ms));
    if let Some(bytes) = newest_move.and_then(|(_, loss)| loss.bytes) {
        sheet.count(names::RUN_LOSS_BYTES, &labels(), bytes);
    }
}
