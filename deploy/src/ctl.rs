//! The command line of operators, and the reading of its JSON: the one place that knows either.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::process::Command;

use crate::config::Credentials;
use crate::place;

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
        let common = vec![
            "--endpoints".into(),
            list.join(","),
            "--ca".into(),
            file(&credentials.ca),
            "--certificate".into(),
            file(&credentials.certificate),
            "--key".into(),
            file(&credentials.key),
        ];
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
        self.json(&["status"]).await
    }

    /// The runs, newest first.
    ///
    /// # Errors
    /// No coordinator answers, or the answer cannot be read.
    pub async fn runs(&self) -> Result<Vec<Run>> {
        Ok(self.json::<Runs>(&["runs"]).await?.runs)
    }

    /// The report of a run.
    ///
    /// # Errors
    /// No coordinator answers, or the answer cannot be read.
    pub async fn report(&self, run: u64) -> Result<Report> {
        self.json(&["report", &run.to_string()]).await
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

/// The parts of a status that a world looks at.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    view: View,
    #[serde(default)]
    applications: Vec<Application>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    #[serde(default)]
    leader: u64,
    #[serde(default)]
    quorum: bool,
}

impl Status {
    /// A majority of coordinators is in contact.
    #[must_use]
    pub const fn has_quorum(&self) -> bool {
        self.view.quorum
    }

    /// The leader's id; 0 if there is none.
    #[must_use]
    pub const fn leader(&self) -> u64 {
        self.view.leader
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
#[serde(rename_all = "camelCase")]
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
#[serde(rename_all = "camelCase")]
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
        self.placement(cluster).is_some_and(|placement| placement.lease == "held")
    }

    /// A cluster is called a standby.
    #[must_use]
    pub fn is_standby(&self, cluster: &str) -> bool {
        self.placement(cluster).is_some_and(|placement| placement.role == "standby")
    }

    /// The epoch that the agent of a cluster has stored; 0 if it has none.
    #[must_use]
    pub fn stored_epoch(&self, cluster: &str) -> u64 {
        self.placement(cluster).map_or(0, |placement| placement.epoch)
    }

    fn placement(&self, cluster: &str) -> Option<&Placement> {
        self.placements.iter().find(|placement| placement.cluster == cluster)
    }
}

#[derive(Debug, Deserialize)]
struct Runs {
    #[serde(default)]
    runs: Vec<Run>,
}

/// A run as operators see it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its number.
    pub id: u64,
    /// Of which application.
    pub application: String,
    /// E.g. `running`, `succeeded`, `stuck`.
    pub status: String,
    /// The new primary's cluster.
    #[serde(default)]
    pub to: String,
    /// In their order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A step of a run.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// E.g. `promote`.
    pub kind: String,
    /// May be empty.
    #[serde(default)]
    pub resource: String,
    /// May be empty.
    #[serde(default)]
    pub cluster: String,
    /// E.g. `pending`, `running`, `succeeded`.
    pub state: String,
}

/// What a report says of losses.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of each database.
    #[serde(default)]
    pub losses: Vec<Loss>,
}

/// The loss in one database.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Which.
    pub resource: String,
    /// By the last positions that were known; absent: unknown.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// For humans, with its uncertainty.
    #[serde(default)]
    pub sentence: String,
}
