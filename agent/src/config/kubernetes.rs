//! The options of a `kubernetes` resource.
//!
//! No option holds a secret: credentials are in the kubeconfig, or are those of the agent's own service account.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::options::{duration, span};

/// `kind: kubernetes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "KubernetesDraft")]
pub struct KubernetesOptions {
    /// How the cluster is reached. Default: the service account of the pod that the agent runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Where the workloads are. No default.
    pub namespace: String,
    /// What is started and stopped. No default; never empty.
    pub workloads: Vec<WorkloadOptions>,
    /// Manifests of Jobs for `run` steps, by name; YAML, one Job each. Default: none.
    pub jobs: BTreeMap<String, PathBuf>,
    /// The Argo CD Application that manages the workloads. Default: none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argocd: Option<ArgoOptions>,
    /// What becomes of the workloads while this cluster is quarantined. Default: `rest`.
    pub quarantine: Quarantine,
    /// How long the workloads may take to become ready or to go. Default: `2m`.
    #[serde(serialize_with = "span")]
    pub timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KubernetesDraft {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    namespace: String,
    workloads: Vec<WorkloadOptions>,
    #[serde(default)]
    jobs: BTreeMap<String, PathBuf>,
    argocd: Option<ArgoOptions>,
    #[serde(default)]
    quarantine: Quarantine,
    #[serde(default = "two_minutes", deserialize_with = "duration")]
    timeout: Duration,
}

impl TryFrom<KubernetesDraft> for KubernetesOptions {
    type Error = String;

    fn try_from(draft: KubernetesDraft) -> Result<Self, String> {
        let KubernetesDraft { kubeconfig, context, namespace, workloads, jobs, argocd, quarantine, timeout } = draft;
        if workloads.is_empty() {
            return Err("workloads is empty; list at least one, e.g. { deployment: checkout, replicas: 3 }".to_owned());
        }
        if context.is_some() && kubeconfig.is_none() {
            return Err("context is for a kubeconfig, and none is named".to_owned());
        }
        for path in kubeconfig.iter().chain(jobs.values()).chain(argocd.iter().flat_map(|argocd| &argocd.kubeconfig)) {
            if !path.is_absolute() {
                return Err(format!("{} is not an absolute path", path.display()));
            }
        }
        if argocd.as_ref().is_some_and(|argocd| argocd.by == ArgoWay::Kustomize) {
            // Kustomize knows replicas by the name of the workload, and nothing of CronJobs.
            let unfit = |one: &&WorkloadOptions| one.cron_job.is_some() || one.selector.is_some();
            if let Some(unfit) = workloads.iter().find(unfit) {
                return Err(format!(
                    "kustomize sets replicas by name, not of {}; use ignoreDifferences",
                    unfit.shown()
                ));
            }
            if let Some(unknown) = workloads.iter().find(|one| one.replicas.is_none()) {
                return Err(format!("kustomize needs a number; say replicas of {}", unknown.shown()));
            }
        }
        Ok(Self { kubeconfig, context, namespace, workloads, jobs, argocd, quarantine, timeout })
    }
}

/// Workloads, by one name or by labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "WorkloadDraft")]
pub struct WorkloadOptions {
    /// A Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// A StatefulSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<String>,
    /// A CronJob: suspended while at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron_job: Option<String>,
    /// Every Deployment, StatefulSet and CronJob with these labels, as `kubectl -l` takes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How many replicas there are at least while active; more, by an autoscaler, are left. Default: as many as there
    /// were when it was put to rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many replicas there are at most while at rest. Default: 0.
    pub at_rest: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorkloadDraft {
    deployment: Option<String>,
    stateful_set: Option<String>,
    cron_job: Option<String>,
    selector: Option<String>,
    replicas: Option<i32>,
    #[serde(default)]
    at_rest: Option<i32>,
}

impl TryFrom<WorkloadDraft> for WorkloadOptions {
    type Error = String;

    fn try_from(draft: WorkloadDraft) -> Result<Self, String> {
        let named = [&draft.deployment, &draft.stateful_set, &draft.cron_job, &draft.selector];
        if named.into_iter().flatten().filter(|name| !name.trim().is_empty()).count() != 1 {
            return Err("a workload is one of deployment, statefulSet, cronJob and selector".to_owned());
        }
        if draft.cron_job.is_some() && (draft.replicas.is_some() || draft.at_rest.is_some()) {
            return Err("a cronJob has no replicas: it is suspended while at rest".to_owned());
        }
        let at_rest = draft.at_rest.unwrap_or(0);
        if at_rest < 0 {
            return Err("atRest is not below 0".to_owned());
        }
        if draft.replicas.is_some_and(|replicas| replicas <= at_rest) {
            return Err(format!("replicas must be above atRest, which is {at_rest}"));
        }
        let WorkloadDraft { deployment, stateful_set, cron_job, selector, replicas, .. } = draft;
        Ok(Self { deployment, stateful_set, cron_job, selector, replicas, at_rest })
    }
}

impl WorkloadOptions {
    /// As messages name it.
    #[must_use]
    pub fn shown(&self) -> String {
        let named = [
            ("Deployment", &self.deployment),
            ("StatefulSet", &self.stateful_set),
            ("CronJob", &self.cron_job),
            ("workloads with labels", &self.selector),
        ];
        let named = named.into_iter().find_map(|(kind, name)| name.as_ref().map(|name| format!("{kind} {name}")));
        named.unwrap_or_default()
    }
}

/// The Argo CD Application that manages the workloads, and how it is told what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "ArgoDraft")]
pub struct ArgoOptions {
    /// Where the Application is. Default: `argocd`.
    pub namespace: String,
    /// Its name. No default.
    pub application: String,
    /// How it is told. No default.
    pub by: ArgoWay,
    /// Which of `spec.sources`, from 0. Default: `spec.source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<usize>,
    /// `helm`: parameters and their values while active. Default: none.
    pub active: BTreeMap<String, String>,
    /// `helm`: the same parameters while at rest. Default: none.
    pub at_rest: BTreeMap<String, String>,
    /// The cluster that Argo CD runs in, if it is another one. Default: the cluster of the workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of that kubeconfig. Default: its current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArgoDraft {
    #[serde(default = "argocd")]
    namespace: String,
    application: String,
    by: ArgoWay,
    source: Option<usize>,
    #[serde(default)]
    active: BTreeMap<String, String>,
    #[serde(default)]
    at_rest: BTreeMap<String, String>,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

impl TryFrom<ArgoDraft> for ArgoOptions {
    type Error = String;

    fn try_from(draft: ArgoDraft) -> Result<Self, String> {
        let ArgoDraft { namespace, application, by, source, active, at_rest, kubeconfig, context } = draft;
        if by == ArgoWay::Helm && (active.is_empty() || !active.keys().eq(at_rest.keys())) {
            return Err("helm needs the same parameters under active and under atRest, e.g. active: \
                        { replicaCount: \"3\" } and atRest: { replicaCount: \"0\" }"
                .to_owned());
        }
        if by != ArgoWay::Helm && !(active.is_empty() && at_rest.is_empty()) {
            return Err("active and atRest are parameters of helm".to_owned());
        }
        if by == ArgoWay::IgnoreDifferences && source.is_some() {
            return Err("source is for helm and kustomize: ignoreDifferences holds for all of them".to_owned());
        }
        if context.is_some() && kubeconfig.is_none() {
            return Err("context is for a kubeconfig, and none is named".to_owned());
        }
        Ok(Self { namespace, application, by, source, active, at_rest, kubeconfig, context })
    }
}

/// How Argo CD is told what the workloads should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ArgoWay {
    /// By parameters of the Application's Helm source.
    Helm,
    /// By replicas of the Application's Kustomize source.
    Kustomize,
    /// Not at all: replicas and suspension of these workloads are left to Regent for good.
    IgnoreDifferences,
}

/// What becomes of the workloads while this cluster is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Quarantine {
    /// They are kept at rest.
    #[default]
    Rest,
    /// They are left as they are.
    Leave,
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

fn argocd() -> String {
    "argocd".to_owned()
}
