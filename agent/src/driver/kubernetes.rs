//! `kind: kubernetes`: Deployments, StatefulSets and CronJobs that are started, stopped and waited for.
//!
//! ```text
//!  activate:    Argo CD's desired state ─► replicas, suspension ─► rolled out and available ─► Argo CD agrees
//!  deactivate:  Argo CD's desired state ─► (number remembered) replicas at rest ─► its pods are gone
//! ```
//!
//! **How it scales.** By the scale subresource, with the version that was read: an update takes the field over from
//! whoever set it before. Server-side apply would not do: after `kubectl scale` the owner of the field is `kubectl`
//! with subresource scale, after an autoscaler or Argo CD it is those, and each apply would meet a conflict that only
//! force resolves, without a look at what the other one wanted. The number to come back to is the agent's own, and no
//! field of anybody else: it is an annotation, applied by the field manager `regent`.
//!
//! **What is more than asked for is left.** An autoscaler may have gone above `replicas`, and goes on from there; at 0
//! it rests by itself.
//!
//! **Argo CD** is told first: see [`argocd`].
//!
//! **A cluster that comes back** starts its pods by itself, by what its own API server remembers, long before any agent
//! runs. Those pods cannot write, as the databases beside them are closed at rest, and no name leads to them. Once the
//! agent has stored terms that exclude this cluster it brings them to rest, in Argo CD's desired state, too, and keeps
//! them so until the cluster is readmitted (`quarantine: leave` turns that off).

pub(crate) mod argocd;
mod capacity;
pub(crate) mod door;
pub(crate) mod failure;
mod follow;
mod job;
mod manifest;
mod permission;
mod quantity;
mod room;
mod state;
mod workload;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use kube::Client;
use regent_core::facts::{Findings, Listed};
use tokio::time::Instant;

use self::argocd::{Aim, Argo};
use self::door::Door;
use self::workload::{Moved, Workload};
use super::{Done, Driver, DriverError, DriverResult, Found, Health, Probe, Role};
use crate::config::{KubernetesOptions, Quarantine};

/// As the API server records who has changed what.
pub(crate) const MANAGER: &str = "regent";
/// Bounds a probe, whatever the resource's own time-out.
const PROBE_LIMIT: Duration = Duration::from_secs(8);
/// Bounds a look at what changes seldom.
const FACTS_LIMIT: Duration = Duration::from_secs(30);
/// However long Argo CD took, what it may have undone is done again.
const AGAIN: Duration = Duration::from_secs(10);
/// Permissions change seldom, and each is a request of its own.
const REVIEWED_FOR: Duration = Duration::from_secs(60);

/// Workloads of one namespace.
pub struct Kubernetes {
    options: KubernetesOptions,
    door: Door,
    argo: Option<Argo>,
    /// When permissions were last asked for, and what was missing.
    reviewed: Mutex<Option<(Instant, Vec<String>)>>,
    /// Held while the listed manifests are read.
    reading: Arc<Mutex<()>>,
}

impl Kubernetes {
    /// A driver for the workloads of the options. Nothing is contacted yet.
    #[must_use]
    pub fn new(options: KubernetesOptions) -> Self {
        let door = Door::new(options.kubeconfig.clone(), options.context.clone());
        let argo = options.argocd.clone().map(Argo::new);
        Self { options, door, argo, reviewed: Mutex::default(), reading: Arc::default() }
    }

    /// Whatever goes wrong may have been a matter of credentials.
    async fn heard<T>(&self, outcome: Result<T, DriverError>) -> Result<T, DriverError> {
        if let Err(error) = &outcome {
            self.door.hear(error).await;
            if let Some(argo) = &self.argo {
                argo.hear(error).await;
            }
        }
        outcome
    }

    async fn bring_to(&self, aim: Aim) -> DriverResult {
        let deadline = Instant::now() + self.options.timeout;
        let client = self.door.client().await?;
        let workloads = workload::all(&client, &self.options).await?;
        // First what Argo CD goes by: else it would undo what is done here.
        let told = match &self.argo {
            Some(argo) => argo.tell(&client, &workloads, aim).await?,
            None => false,
        };
        let mut moved = self.move_all(&client, &workloads, aim, deadline).await?;
        let mut agreed = String::new();
        if let Some(argo) = &self.argo {
            agreed = argo.agrees(&client, &workloads, aim, deadline).await?;
            // Before it agreed it may have gone by the old state once more.
            let deadline = deadline.max(Instant::now() + AGAIN);
            let again = self.move_all(&client, &workloads, aim, deadline).await?;
            moved.iter_mut().zip(again).for_each(|(first, second)| first.already &= second.already);
        }
        let already = !told && moved.iter().all(|moved| moved.already);
        let said: Vec<String> = moved.into_iter().map(|moved| moved.said).collect();
        Ok(Done { already, message: format!("{}{agreed}", said.join(", ")), ..Done::default() })
    }

    async fn move_all(
        &self,
        client: &Client,
        workloads: &[Workload],
        aim: Aim,
        deadline: Instant,
    ) -> Result<Vec<Moved>, DriverError> {
        // Replicas that only the chart knows come by Argo CD.
        let by_argo = self.argo.as_ref().is_some_and(Argo::renders);
        let moves = workloads.iter().map(|workload| async move {
            match aim {
                Aim::Active => workload.start(client, by_argo, deadline).await,
                Aim::AtRest => workload.stop(client, by_argo, deadline).await,
            }
        });
        let moved = try_join_all(moves).await;
        match (moved, &self.argo) {
            // What it says of itself may be the reason.
            (Err(error), Some(argo)) if error.code == "kubernetes-not-ready" => {
                let argo = argo.shown(client, workloads).await.unwrap_or_else(|error| error.message);
                Err(DriverError { message: format!("{}; {argo}", error.message), ..error })
            }
            (Err(error), Some(argo)) if error.code == "kubernetes-reverted" => {
                Err(argo.explain(client, workloads, aim, error).await)
            }
            (moved, _) => moved,
        }
    }

    async fn look(&self) -> Result<(Health, String), DriverError> {
        let client = self.door.client().await?;
        let missing = self.missing_permissions(&client).await?;
        if !missing.is_empty() {
            return Ok((Health::Unknown, format!("the agent may not {}; grant it by RBAC", missing.join(", "))));
        }
        let workloads = workload::all(&client, &self.options).await?;
        let looks = try_join_all(workloads.iter().map(|workload| workload.look(&client))).await?;
        let serves = looks.iter().all(|look| look.serves);
        let mut said: Vec<String> = looks.into_iter().map(|look| look.said).collect();
        match &self.argo {
            Some(argo) => said.push(argo.shown(&client, &workloads).await?),
            None => said.extend(workload::unnamed_argo(&client, &workloads).await?),
        }
        let health = if serves { Health::Healthy } else { Health::Failed };
        Ok((health, said.join(", ")))
    }

    async fn look_around(&self) -> Result<Findings, DriverError> {
        let client = self.door.client().await?;
        let mut missing = self.missing_permissions(&client).await?;
        // Not of the probe: nothing that a step does needs it.
        missing.extend(permission::missing(&client, &permission::of_quotas(&self.options)).await?);
        let lacks = missing.into_iter().map(|right| format!("the agent may not {right}; grant it by RBAC")).collect();
        let by_argo = self.argo.as_ref().is_some_and(Argo::renders);
        let short = capacity::short(&client, &self.options, by_argo).await;
        Ok(Findings { lacks, short, ..Findings::default() })
    }

    async fn missing_permissions(&self, client: &Client) -> Result<Vec<String>, DriverError> {
        let kept = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, missing)) = kept
            && at.elapsed() < REVIEWED_FOR
            && missing.is_empty()
        {
            return Ok(missing);
        }
        let mut missing = permission::missing(client, &permission::of_workloads(&self.options)).await?;
        if let Some(argo) = &self.argo {
            missing.extend(argo.missing_permissions(client).await?);
        }
        let mut reviewed = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner);
        *reviewed = Some((Instant::now(), missing.clone()));
        Ok(missing)
    }
}

#[async_trait]
impl Driver for Kubernetes {
    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    /// Healthy where all workloads serve; failed where one does not, on the standby, too; unknown where the API server
    /// does not answer or something is forbidden.
    async fn probe(&self) -> Probe {
        let looked = tokio::time::timeout(PROBE_LIMIT, self.look()).await;
        let (health, detail) = match looked {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                self.door.hear(&error).await;
                let gone = error.code == "kubernetes-missing";
                (if gone { Health::Failed } else { Health::Unknown }, error.message)
            }
            Err(_) => (Health::Unknown, format!("no answer within {} s", PROBE_LIMIT.as_secs())),
        };
        Probe { role: Role::None, ..Probe::without_answer(health, detail) }
    }

    /// Pods that are gone take no new work; `activate` is its undo.
    async fn quiesce(&self) -> DriverResult {
        self.deactivate().await
    }

    async fn activate(&self) -> DriverResult {
        let outcome = self.bring_to(Aim::Active).await;
        self.heard(outcome).await
    }

    fn rests_in_quarantine(&self) -> bool {
        self.options.quarantine == Quarantine::Rest
    }

    async fn deactivate(&self) -> DriverResult {
        let outcome = self.bring_to(Aim::AtRest).await;
        self.heard(outcome).await
    }

    async fn verify(&self) -> DriverResult {
        let outcome = async {
            let client = self.door.client().await?;
            let workloads = workload::all(&client, &self.options).await?;
            let looks = try_join_all(workloads.iter().map(|workload| workload.look(&client))).await?;
            let failed: Vec<&str> = looks.iter().filter(|look| !look.serves).map(|look| look.said.as_str()).collect();
            if !failed.is_empty() {
                return Err(DriverError::retryable("kubernetes-not-ready", failed.join(", ")));
            }
            let said: Vec<String> = looks.into_iter().map(|look| look.said).collect();
            Ok(Done { already: true, message: said.join(", "), ..Done::default() })
        };
        let outcome = outcome.await;
        self.heard(outcome).await
    }

    async fn facts(&self) -> Option<Found> {
        let looked = tokio::time::timeout(FACTS_LIMIT, self.look_around()).await;
        // What the API server did not say is not known; that it does not answer, the probe tells.
        let mut findings = looked.ok().and_then(Result::ok).unwrap_or_default();
        findings.lacks.extend(job::lacking(&self.options, &self.reading).await);
        findings.listed = Some(Listed { commands: self.options.jobs.keys().cloned().collect(), ..Listed::default() });
        Some(Found { findings, ..Found::default() })
    }

    async fn run(&self, command: &str) -> DriverResult {
        let outcome = async { job::run(&self.door.client().await?, &self.options, command).await };
        let outcome = outcome.await;
        self.heard(outcome).await
    }
}
