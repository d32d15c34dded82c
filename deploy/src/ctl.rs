//! The command line of operators, and the reading of its JSON: the one place that knows either.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::process::Command;

use crate::config::Credentials;
use crate::place;

mod report;

pub use report::{Decision, Finding, Gap, Loss, Report};

const PATIENCE: Duration = Duration::from_secs(15);

/// An operator at a terminal.
#[derive(Debug, Clone)]
pub struct Ctl {
    common: Vec<String>,
}

impl Ctl {
    /// An operator who asks these coordinators.
    #[must_use]
    pub fn new(coordinators: &[SocketAddr], credentials: &Credentials) -> Self {
        let list: Vec<String> = coordinators.iter().map(ToString::to_string).collect();
        let file = |path: &Path| path.display().to_string();
        let Credentials { ca, certificate, key } = credentials;
        let common =
            ["--endpoints", &list.join(","), "--ca", &file(ca), "--cert", &file(certificate), "--key", &file(key)]
                .map(String::from)
                .to_vec();
        Self { common }
    }

    /// The command as one would type it.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> String {
        let words = self.common.iter().map(String::as_str).chain(words.iter().copied());
        std::iter::once("regentctl").chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Runs a command and gives its output.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub async fn run(&self, words: &[&str]) -> Result<String> {
        run(self.common.iter().cloned().chain(words.iter().map(ToString::to_string))).await
    }

    /// Hands in an Application document.
    ///
    /// # Errors
    /// It is refused.
    pub async fn apply(&self, document: &Path) -> Result<()> {
        self.run(&["apply", "-f", &document.display().to_string()]).await?;
        Ok(())
    }

    /// What the group is like.
    ///
    /// # Errors
    /// No coordinator answers, or the answer cannot be read.
    pub async fn status(&self) -> Result<Status> {
        Ok(self.json::<StatusAnswer>(&["status"]).await?.status)
    }

    /// Why a failover would, or would not, start now.
    ///
    /// # Errors
    /// No coordinator answers, or the answer cannot be read.
    pub async fn why(&self, application: &str) -> Result<Why> {
        Ok(self.json::<WhyAnswer>(&["why", application]).await?.explanation)
    }

    /// The runs, newest first.
    ///
    /// # Errors
    /// No coordinator answers, or the answer cannot be read.
    pub async fn runs(&self) -> Result<Vec<Run>> {
        Ok(self.json::<RunsAnswer>(&["runs"]).await?.runs)
    }

    /// The report of a run.
    ///
    /// # Errors
    /// No coordinator answers, or the answer cannot be read.
    pub async fn report(&self, run: u64) -> Result<Report> {
        Ok(self.json::<ReportAnswer>(&["report", &run.to_string()]).await?.report)
    }

    /// The coordinators that vote, and whether a change of them is under way.
    ///
    /// # Errors
    /// No coordinator answers, or the answer cannot be read.
    pub async fn members(&self) -> Result<Members> {
        self.json(&["members"]).await
    }

    async fn json<T: for<'de> Deserialize<'de>>(&self, words: &[&str]) -> Result<T> {
        let text = self.run(&[words, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("cannot read the answer of {}: {text}", words.join(" ")))
    }
}

/// Runs `regentctl` and gives its output.
///
/// # Errors
/// It fails; with what it said.
pub async fn run(words: impl IntoIterator<Item = String>) -> Result<String> {
    let words: Vec<String> = words.into_iter().collect();
    let mut command = Command::new(place::binary("regentctl")?);
    command.args(&words).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .with_context(|| format!("regentctl {} does not end", words.join(" ")))?
        .context("cannot start regentctl")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("regentctl {} ended with {}: {}", words.join(" "), output.status, said.trim());
    }
    String::from_utf8(output.stdout).context("its output is not text")
}

// Messages are the protocol's, in the protocol's own JSON: what is not set may be left out, and enums go by their full names.

#[derive(Deserialize)]
struct StatusAnswer {
    status: Status,
}

#[derive(Deserialize)]
struct RunsAnswer {
    #[serde(default)]
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct WhyAnswer {
    explanation: Why,
}

#[derive(Deserialize)]
struct ReportAnswer {
    report: Report,
}

/// Who belongs to the group.
#[derive(Debug, Clone, Deserialize)]
pub struct Members {
    #[serde(default)]
    coordinators: Vec<Member>,
    changing: Option<serde_json::Value>,
    /// Applications whose primary's agent has not confirmed the present voters.
    #[serde(default)]
    pub unconfirmed: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Member {
    id: u64,
    #[serde(default)]
    voter: bool,
}

impl Members {
    /// Those that vote, in order.
    #[must_use]
    pub fn voters(&self) -> Vec<u64> {
        self.coordinators.iter().filter(|one| one.voter).map(|one| one.id).collect()
    }

    /// A change is under way.
    #[must_use]
    pub const fn is_changing(&self) -> bool {
        self.changing.is_some()
    }
}

/// The parts of a status that a world looks at.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    view: Option<View>,
    #[serde(default)]
    applications: Vec<Application>,
}

#[derive(Debug, Clone, Deserialize)]
struct View {
    #[serde(default)]
    leader: u64,
    #[serde(default)]
    quorum: bool,
}

impl Status {
    /// A majority of coordinators is in contact.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.quorum)
    }

    /// The leader's id; 0 if none is known.
    #[must_use]
    pub fn leader(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.leader)
    }

    /// One application.
    ///
    /// # Errors
    /// It is not known.
    pub fn application(&self, name: &str) -> Result<&Application> {
        let found = self.applications.iter().find(|application| application.name == name);
        found.with_context(|| format!("there is no application {name}"))
    }
}

/// An application as operators see it.
#[derive(Debug, Clone, Deserialize)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// 0 until adopted.
    #[serde(default)]
    pub epoch: u64,
    /// Empty until adopted.
    #[serde(default)]
    pub primary: String,
    /// The primary's agent counts by the newest terms.
    #[serde(default)]
    pub confirmed: bool,
    #[serde(default)]
    placements: Vec<Placement>,
}

#[derive(Debug, Clone, Deserialize)]
struct Placement {
    cluster: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    lease: String,
    #[serde(default)]
    epoch: u64,
}

impl Application {
    /// The agent of a cluster holds the lease.
    #[must_use]
    pub fn holds_lease(&self, cluster: &str) -> bool {
        self.placement(cluster).is_some_and(|placement| placement.lease == "LEASE_STATE_HELD")
    }

    /// A cluster is called primary.
    #[must_use]
    pub fn is_primary(&self, cluster: &str) -> bool {
        self.placement(cluster).is_some_and(|placement| placement.role == "PLACEMENT_ROLE_PRIMARY")
    }

    /// The epoch that the agent of a cluster has stored; 0 if it has none, or was not heard.
    #[must_use]
    pub fn stored_epoch(&self, cluster: &str) -> u64 {
        self.placement(cluster).map_or(0, |placement| placement.epoch)
    }

    fn placement(&self, cluster: &str) -> Option<&Placement> {
        self.placements.iter().find(|placement| placement.cluster == cluster)
    }
}

/// Why a failover would, or would not, start now.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    #[serde(default)]
    held_by: Vec<Rule>,
    /// To where it would go; empty: nowhere.
    #[serde(default)]
    pub target: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Rule {
    detail: String,
}

impl Why {
    /// What holds it first of all.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.held_by.first().map_or("nothing holds the failover", |rule| rule.detail.as_str())
    }
}

/// A run as operators see it.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    /// Its number.
    pub id: u64,
    /// Of which application.
    pub application: String,
    /// The cluster that was primary.
    #[serde(default)]
    pub from: String,
    /// The cluster that it goes to.
    #[serde(default)]
    pub to: String,
    /// The change of the primary; absent before it, and of runs that change none.
    pub decision: Option<Decision>,
    /// What was known of the losses then.
    #[serde(default)]
    pub finding: Finding,
    status: String,
    /// In their order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

impl Run {
    /// E.g. `running`, `succeeded`, `stuck`.
    #[must_use]
    pub fn status(&self) -> String {
        word(&self.status, "RUN_STATUS_")
    }

    /// It has ended, and nothing of it changes any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !matches!(self.status().as_str(), "running" | "undoing" | "stuck")
    }
}

/// A step of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// Its number in the run; 0 of the first.
    #[serde(default)]
    pub id: u64,
    /// E.g. `promote`.
    pub kind: String,
    /// May be empty.
    #[serde(default)]
    pub resource: String,
    /// May be empty.
    #[serde(default)]
    pub cluster: String,
    /// Nothing waits for it.
    #[serde(default)]
    pub detached: bool,
    state: String,
    failure: Option<Failure>,
    report: Option<StepReport>,
}

#[derive(Debug, Clone, Deserialize)]
struct Failure {
    message: String,
}

#[derive(Debug, Clone, Deserialize)]
struct StepReport {
    message: String,
}

impl Step {
    /// E.g. `pending`, `running`, `succeeded`.
    #[must_use]
    pub fn state(&self) -> String {
        word(&self.state, "STEP_STATE_")
    }

    /// What its driver said of it; empty if nothing.
    #[must_use]
    pub fn message(&self) -> &str {
        let failure = self.failure.as_ref().map(|failure| failure.message.as_str());
        failure.or(self.report.as_ref().map(|report| report.message.as_str())).unwrap_or_default()
    }
}

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = r#"{ "status": { "view": { "quorum": true, "leader": 2 }, "paused": null, "applications": [ {
            "name": "shop", "epoch": 3, "primary": "a", "confirmed": true, "placements": [
                { "cluster": "a", "role": "PLACEMENT_ROLE_PRIMARY", "lease": "LEASE_STATE_HELD", "epoch": 3 },
                { "cluster": "b", "role": "PLACEMENT_ROLE_STANDBY" } ] } ] } }"#;
        let status = serde_json::from_str::<StatusAnswer>(text).unwrap().status;
        assert!(status.has_quorum());
        assert_eq!(status.leader(), 2);
        let application = status.application("shop").unwrap();
        assert!(application.holds_lease("a") && !application.holds_lease("b"));
        assert!(application.is_primary("a") && !application.is_primary("b"));
        assert_eq!(application.stored_epoch("a"), 3);
        assert_eq!(application.stored_epoch("b"), 0);
        assert!(status.application("other").is_err());
    }

    #[test]
    fn a_run_and_a_report_are_read() {
        let text = r#"{ "runs": [ { "id": 7, "application": "shop", "status": "RUN_STATUS_STUCK", "steps": [
            { "kind": "promote", "state": "STEP_STATE_FAILED_CONTINUED", "failure": { "code": "x", "message": "m" } } ] } ] }"#;
        let runs = serde_json::from_str::<RunsAnswer>(text).unwrap().runs;
        assert_eq!(runs[0].status(), "stuck");
        assert_eq!(runs[0].steps[0].state(), "failed continued");
        assert_eq!(runs[0].steps[0].message(), "m");
        let text = r#"{ "explanation": { "heldBy": [ { "code": "x", "detail": "why" } ], "target": "b" } }"#;
        let why = serde_json::from_str::<WhyAnswer>(text).unwrap().explanation;
        assert_eq!((why.reason(), why.target.as_str()), ("why", "b"));
        assert!(!runs[0].is_over() && runs[0].decision.is_none() && runs[0].finding.gaps.is_empty());
        let text = r#"{ "report": { "losses": [ { "resource": "db", "sentence": "unknown" } ] } }"#;
        let report = serde_json::from_str::<ReportAnswer>(text).unwrap().report;
        assert!(report.losses[0].bytes.is_none() && report.run.is_none());
    }

    #[test]
    fn what_a_decision_rests_on_is_read() {
        let text = r#"{ "report": { "run": { "id": 9, "application": "shop", "from": "a", "to": "b",
            "status": "RUN_STATUS_SUCCEEDED",
            "decision": { "index": 12, "at": "2026-03-01T10:00:00.500Z", "epoch": 2, "ground": "lost" },
            "finding": { "gaps": [ { "resource": "db", "primary": 900, "primaryAge": "11.500s", "candidate": 800 },
                                   { "resource": "cache" } ] } } } }"#;
        let run = serde_json::from_str::<ReportAnswer>(text).unwrap().report.run.unwrap();
        assert!(run.is_over());
        assert_eq!((run.from.as_str(), run.to.as_str()), ("a", "b"));
        let decision = run.decision.unwrap();
        assert_eq!((decision.epoch, decision.ground.as_str()), (2, "lost"));
        assert_eq!(decision.at, "2026-03-01T10:00:00.5Z".parse().unwrap());
        let ages: Vec<_> = run.finding.gaps.iter().map(|gap| gap.primary_age).collect();
        assert_eq!(ages, [Some(Duration::from_millis(11_500)), None]);
    }
}
