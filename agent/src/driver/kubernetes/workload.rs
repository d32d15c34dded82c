//! One workload: read, changed by the version that was read, and followed until it is as it should be.

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use super::failure::{Refusal, Request};
use super::follow::{Seen, Which, until};
use super::state::{Kind, REMEMBERED, State};
use super::{MANAGER, follow};
use crate::config::{KubernetesOptions, WorkloadOptions};
use crate::driver::DriverError;

/// A change that meets others' changes is tried so often, each time upon what was read anew.
pub(super) const CONFLICTS: u32 = 10;
/// A workload that others put back is scaled so often: a controller may have been at work on the old state.
const REVERTED: u32 = 3;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkloadKind {
    Deployment,
    StatefulSet,
    CronJob,
}

/// One workload.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) kind: WorkloadKind,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) replicas: Option<i32>,
    pub(super) at_rest: i32,
}

/// What became of one.
pub(super) struct Moved {
    pub(super) already: bool,
    pub(super) said: String,
}

/// How one looks.
pub(super) struct Look {
    pub(super) serves: bool,
    pub(super) said: String,
}

/// Calls a function that is generic over the kind.
macro_rules! by_kind {
    ($workload:expr, $method:ident($($argument:expr),*)) => {
        match $workload.kind {
            WorkloadKind::Deployment => $workload.$method::<Deployment>($($argument),*).await,
            WorkloadKind::StatefulSet => $workload.$method::<StatefulSet>($($argument),*).await,
            WorkloadKind::CronJob => $workload.$method::<CronJob>($($argument),*).await,
        }
    };
}

/// Every workload of the options; labels are looked up.
pub(super) async fn all(client: &Client, options: &KubernetesOptions) -> Result<Vec<Workload>, DriverError> {
    let mut workloads: Vec<Workload> = Vec::new();
    for one in &options.workloads {
        let named = [
            (WorkloadKind::Deployment, &one.deployment),
            (WorkloadKind::StatefulSet, &one.stateful_set),
            (WorkloadKind::CronJob, &one.cron_job),
        ];
        let named = named.into_iter().find_map(|(kind, name)| Some((kind, name.clone()?)));
        let mut found: Vec<(WorkloadKind, String)> = named.into_iter().collect();
        if let Some(labels) = &one.selector {
            let of = |kind| WorkloadKind::labelled(kind, client, &options.namespace, labels);
            let kinds = [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::CronJob];
            found.extend(try_join_all(kinds.map(of)).await?.into_iter().flatten());
            if found.is_empty() {
                let message =
                    format!("nothing in namespace {} has the labels {labels}; see agent.yaml", options.namespace);
                return Err(DriverError::retryable("kubernetes-missing", message));
            }
        }
        for (kind, name) in found {
            if !workloads.iter().any(|known| known.kind == kind && known.name == name) {
                workloads.push(Workload::new(kind, name, &options.namespace, one));
            }
        }
    }
    Ok(workloads)
}

/// Which of them Argo CD manages, though no Application is named for them: it would put them back.
pub(super) async fn unnamed_argo(client: &Client, workloads: &[Workload]) -> Result<Option<String>, DriverError> {
    let mut tracked = Vec::new();
    for workload in workloads {
        tracked.extend(by_kind!(workload, state(client))?.and_then(|state| state.tracked));
    }
    Ok(tracked.first().map(|application| {
        format!("Argo CD manages it by the Application {application}: name that under argocd, or self-heal reverts it")
    }))
}

impl WorkloadKind {
    async fn labelled(
        self,
        client: &Client,
        namespace: &str,
        labels: &str,
    ) -> Result<Vec<(Self, String)>, DriverError> {
        async fn names<K: Kind>(client: &Client, namespace: &str, labels: &str) -> Result<Vec<String>, DriverError> {
            let api: Api<K> = Api::namespaced(client.clone(), namespace);
            let request = Request { verb: "list", resource: K::RESOURCE, name: "", namespace };
            let found = request.send(api.list(&ListParams::default().labels(labels))).await?;
            Ok(found.items.iter().map(ResourceExt::name_any).collect())
        }
        let names = match self {
            Self::Deployment => names::<Deployment>(client, namespace, labels).await,
            Self::StatefulSet => names::<StatefulSet>(client, namespace, labels).await,
            Self::CronJob => names::<CronJob>(client, namespace, labels).await,
        };
        Ok(names?.into_iter().map(|name| (self, name)).collect())
    }

    /// Its group and kind as Argo CD names them.
    pub(super) const fn group_kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Deployment => ("apps", Deployment::WORD),
            Self::StatefulSet => ("apps", StatefulSet::WORD),
            Self::CronJob => ("batch", CronJob::WORD),
        }
    }

    /// The field that is changed, as a JSON pointer.
    pub(super) const fn pointer(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "/spec/replicas",
            Self::CronJob => "/spec/suspend",
        }
    }
}

impl Workload {
    fn new(kind: WorkloadKind, name: String, namespace: &str, options: &WorkloadOptions) -> Self {
        let (replicas, at_rest) = match kind {
            WorkloadKind::Deployment | WorkloadKind::StatefulSet => (options.replicas, options.at_rest),
            // Not suspended, and suspended.
            WorkloadKind::CronJob => (Some(1), 0),
        };
        Self { kind, name, namespace: namespace.to_owned(), replicas, at_rest }
    }

    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.kind.group_kind().1, self.name)
    }

    /// Raises it to its number and waits until it serves. With `by_argo` what is missing, or of unknown number, comes
    /// by Argo CD.
    pub(super) async fn start(&self, client: &Client, by_argo: bool, deadline: Instant) -> Result<Moved, DriverError> {
        by_kind!(self, start_as(client, by_argo, deadline))
    }

    /// Lowers it to its number at rest and waits until its pods are gone.
    pub(super) async fn stop(&self, client: &Client, by_argo: bool, deadline: Instant) -> Result<Moved, DriverError> {
        by_kind!(self, stop_as(client, by_argo, deadline))
    }

    /// How it looks now.
    pub(super) async fn look(&self, client: &Client) -> Result<Look, DriverError> {
        let Some(state) = by_kind!(self, state(client))? else {
            return Ok(Look { serves: false, said: format!("{}: not there", self.shown()) });
        };
        if state.asked <= self.at_rest {
            let said = format!("{}: at rest ({} of {})", self.shown(), state.available, state.asked);
            return Ok(Look { serves: false, said });
        }
        let awaited = state.awaited();
        let serves = awaited.is_none();
        let said = awaited.unwrap_or_else(|| format!("{} of {} available", state.available, state.asked));
        Ok(Look { serves, said: format!("{}: {said}", self.shown()) })
    }

    async fn start_as<K: Kind>(&self, client: &Client, by_argo: bool, deadline: Instant) -> Result<Moved, DriverError> {
        let api: Api<K> = Api::namespaced(client.clone(), &self.namespace);
        let (mut scaled, mut reverted) = (false, 0);
        loop {
            let stalled = self.state::<K>(client).await?.and_then(|state| state.stalled);
            scaled |= self.raise(client, &api, by_argo).await?;
            let mut last = None;
            let rolled = until(&api, self.request::<K>("get"), self.named(), deadline, |seen: &Seen<K>| {
                let state = seen.get(&self.name)?.state();
                let ended = self.rolled(&state, by_argo, &stalled);
                last = Some(state);
                ended
            });
            match rolled.await? {
                Some(Rolled::Out(said)) => return Ok(Moved { already: !scaled, said }),
                // Somebody else was at work upon the state before.
                Some(Rolled::Back(_)) if reverted < REVERTED => reverted += 1,
                Some(Rolled::Back(by)) => {
                    let message = format!(
                        "{} was put to rest again {REVERTED} times by {by}; stop that, or name it under argocd",
                        self.shown()
                    );
                    return Err(DriverError::retryable("kubernetes-reverted", message));
                }
                Some(Rolled::Stalled) => {
                    let why = self.why_not(client, last.as_ref()).await;
                    let message = format!("{} makes no progress, says its controller{why}", self.shown());
                    return Err(DriverError::retryable("kubernetes-not-ready", message));
                }
                None => {
                    let awaited = last.as_ref().map_or_else(|| Some("it is not there".into()), State::awaited);
                    let why = self.why_not(client, last.as_ref()).await;
                    let message =
                        format!("{} is not ready in time: {}{why}", self.shown(), awaited.unwrap_or_default());
                    return Err(DriverError::retryable("kubernetes-not-ready", message));
                }
            }
        }
    }

    fn rolled(&self, state: &State, by_argo: bool, stalled: &Option<String>) -> Option<Rolled> {
        if state.asked <= self.at_rest {
            // What comes by Argo CD alone has not come yet.
            let unknown = by_argo && self.replicas.is_none();
            return (!unknown).then(|| Rolled::Back(state.owner.clone().unwrap_or_else(|| "somebody".to_owned())));
        }
        if state.awaited().is_none() {
            return Some(Rolled::Out(format!("{}: {} of {} available", self.shown(), state.available, state.asked)));
        }
        // A stall that was there before says nothing of this change.
        (state.stalled.is_some() && state.stalled != *stalled).then_some(Rolled::Stalled)
    }

    async fn raise<K: Kind>(&self, client: &Client, api: &Api<K>, by_argo: bool) -> Result<bool, DriverError> {
        for _ in 0..CONFLICTS {
            let Some(state) = self.state::<K>(client).await? else {
                return if by_argo { Ok(false) } else { Err(self.not_there::<K>()) };
            };
            let wanted = match self.wanted(&state) {
                Some(wanted) => wanted,
                None if by_argo => return Ok(false),
                None => {
                    let message = format!(
                        "{} is at rest, and nobody knows of how many replicas it should be; say that under replicas",
                        self.shown()
                    );
                    return Err(DriverError::permanent("kubernetes-replicas-unknown", message));
                }
            };
            if state.asked >= wanted {
                return Ok(false);
            }
            match self.scale(api, &state, wanted, false).await {
                Ok(()) => return Ok(true),
                Err(Refusal::Changed(_)) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(self.contended::<K>())
    }

    async fn stop_as<K: Kind>(&self, client: &Client, by_argo: bool, deadline: Instant) -> Result<Moved, DriverError> {
        let api: Api<K> = Api::namespaced(client.clone(), &self.namespace);
        let mut reverted = 0;
        let mut lowered = false;
        loop {
            let Some(changed) = self.lower(client, &api).await? else {
                // What is not there does not run.
                if by_argo || reverted > 0 {
                    return Ok(Moved { already: !lowered, said: format!("{}: not there", self.shown()) });
                }
                return Err(self.not_there::<K>());
            };
            lowered |= changed;
            let gone = self.gone::<K>(client, &api, deadline).await?;
            match gone {
                Gone::Yes => {
                    return Ok(Moved { already: !lowered, said: format!("{}: at rest", self.shown()) });
                }
                Gone::Raised(_) if reverted < REVERTED => reverted += 1,
                Gone::Raised(by) => {
                    let message = format!(
                        "{} was started again {REVERTED} times by {by}; stop that, or name it under argocd",
                        self.shown()
                    );
                    return Err(DriverError::retryable("kubernetes-reverted", message));
                }
                Gone::StillThere(names) => {
                    let message = format!(
                        "{} is at rest, but these still run: {}; see their grace periods and finalizers",
                        self.shown(),
                        names.join(", ")
                    );
                    return Err(DriverError::retryable("kubernetes-still-running", message));
                }
            }
        }
    }

    /// None if it is not there.
    async fn lower<K: Kind>(&self, client: &Client, api: &Api<K>) -> Result<Option<bool>, DriverError> {
        for _ in 0..CONFLICTS {
            let Some(mut state) = self.state::<K>(client).await? else { return Ok(None) };
            if state.asked <= self.at_rest {
                return Ok(Some(false));
            }
            let forgotten = self.replicas.is_none() && state.remembered != Some(state.asked);
            let change = async {
                if forgotten {
                    state.version = self.remember(api, &state).await?;
                }
                self.scale(api, &state, self.at_rest, false).await
            };
            match change.await {
                Ok(()) => return Ok(Some(true)),
                Err(Refusal::Changed(_)) => {}
                Err(Refusal::Missing(_)) => return Ok(None),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(self.contended::<K>())
    }

    async fn gone<K: Kind>(&self, client: &Client, api: &Api<K>, deadline: Instant) -> Result<Gone, DriverError> {
        let mut last = None;
        let watched = until(api, self.request::<K>("get"), self.named(), deadline, |seen: &Seen<K>| {
            let state = seen.get(&self.name).map(Kind::state);
            let ended = match &state {
                None => Some(Ok(None)),
                Some(state) if state.asked > self.at_rest => {
                    Some(Err(state.owner.clone().unwrap_or_else(|| "somebody".to_owned())))
                }
                Some(state) => state.jobs.is_empty().then(|| Ok(Some(state.pods.clone()))),
            };
            last = state;
            ended
        });
        let labels = match watched.await? {
            Some(Ok(labels)) => labels.unwrap_or_default(),
            Some(Err(by)) => return Ok(Gone::Raised(by)),
            None => return Ok(Gone::StillThere(last.map(|state| state.jobs).unwrap_or_default())),
        };
        // Of an empty selector all pods would be its own.
        if labels.is_empty() {
            return Ok(Gone::Yes);
        }
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let request = Request { verb: "list", resource: "pods", name: "", namespace: &self.namespace };
        let mut left = Vec::new();
        let allowed = usize::try_from(self.at_rest).unwrap_or(0);
        let ended = until(&pods, request, Which::Labelled(labels), deadline, |seen: &Seen<Pod>| {
            left = seen.values().filter(|pod| runs(pod)).map(ResourceExt::name_any).collect();
            (left.len() <= allowed).then_some(())
        });
        Ok(if ended.await?.is_some() { Gone::Yes } else { Gone::StillThere(left) })
    }

    /// What it says of itself; none if it is not there.
    pub(super) async fn state<K: Kind>(&self, client: &Client) -> Result<Option<State>, DriverError> {
        let api: Api<K> = Api::namespaced(client.clone(), &self.namespace);
        let found = self.request::<K>("get").send(api.get_opt(&self.name)).await?;
        Ok(found.map(|object| object.state()))
    }

    /// Its number while active; none if nobody knows.
    pub(super) fn wanted(&self, state: &State) -> Option<i32> {
        let up = (state.asked > self.at_rest).then_some(state.asked);
        self.replicas.or(up).or(state.remembered.filter(|number| *number > self.at_rest))
    }

    /// A dry run goes through all that the server asks of a change, and changes nothing.
    pub(super) async fn scale<K: Kind>(
        &self,
        api: &Api<K>,
        state: &State,
        to: i32,
        dry_run: bool,
    ) -> Result<(), Refusal> {
        let by = PatchParams { field_manager: Some(MANAGER.to_owned()), dry_run, ..PatchParams::default() };
        let request = Request { resource: K::SCALE, ..self.request::<K>("patch") };
        let read = json!({ "resourceVersion": state.version });
        match self.kind {
            WorkloadKind::Deployment | WorkloadKind::StatefulSet => {
                let patch = Patch::Merge(json!({ "metadata": read, "spec": { "replicas": to } }));
                request.send(api.patch_scale(&self.name, &by, &patch)).await.map(drop)
            }
            WorkloadKind::CronJob => {
                let patch = Patch::Merge(json!({ "metadata": read, "spec": { "suspend": to == 0 } }));
                request.send(api.patch(&self.name, &by, &patch)).await.map(drop)
            }
        }
    }

    /// Keeps the number to come back to; gives the version that this made. The version that was read is part of it: an
    /// object that is gone is not made anew.
    async fn remember<K: Kind>(&self, api: &Api<K>, state: &State) -> Result<String, Refusal> {
        let applied = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "resourceVersion": state.version,
                "annotations": { REMEMBERED: state.asked.to_string() },
            },
        });
        let by = PatchParams::apply(MANAGER);
        let kept = self.request::<K>("patch").send(api.patch(&self.name, &by, &Patch::Apply(applied))).await?;
        Ok(kept.resource_version().unwrap_or_default())
    }

    /// What its pods say of why they are not ready, as the end of a message.
    async fn why_not(&self, client: &Client, state: Option<&State>) -> String {
        let Some(labels) = state.map(|state| state.pods.as_str()).filter(|labels| !labels.is_empty()) else {
            return String::new();
        };
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let request = Request { verb: "list", resource: "pods", name: "", namespace: &self.namespace };
        let Ok(found) = request.send(pods.list(&ListParams::default().labels(labels))).await else {
            return String::new();
        };
        let why = found.items.iter().find_map(|pod| Some(format!("; pod {}: {}", pod.name_any(), waits_for(pod)?)));
        why.unwrap_or_default()
    }

    fn named(&self) -> follow::Which {
        Which::Named(self.name.clone())
    }

    pub(super) fn request<K: Kind>(&self, verb: &'static str) -> Request<'_> {
        Request { verb, resource: K::RESOURCE, name: &self.name, namespace: &self.namespace }
    }

    fn not_there<K: Kind>(&self) -> DriverError {
        let message = format!(
            "there is no {} {} in namespace {}; see agent.yaml and the cluster",
            K::WORD,
            self.name,
            self.namespace
        );
        DriverError::retryable("kubernetes-missing", message)
    }

    fn contended<K: Kind>(&self) -> DriverError {
        let message = format!("{} {} is being changed by others all the time; see by whom", K::WORD, self.name);
        DriverError::retryable("kubernetes-conflict", message)
    }
}

/// How a start goes on.
enum Rolled {
    Out(String),
    /// Put to rest again, by whom.
    Back(String),
    Stalled,
}

/// How a stop goes on.
enum Gone {
    Yes,
    /// Started again, by whom.
    Raised(String),
    StillThere(Vec<String>),
}

/// A pod that has ended by itself no longer runs, whoever cleans it away.
fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Why a pod is not ready, in the cluster's own words.
fn waits_for(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref());
    let waiting = waiting.filter_map(|waiting| {
        let reason = waiting.reason.clone()?;
        Some(waiting.message.as_ref().map_or_else(|| reason.clone(), |message| format!("{reason} ({message})")))
    });
    let unschedulable = || {
        let conditions = status.conditions.iter().flatten();
        let mut false_ones = conditions.filter(|one| one.type_ == "PodScheduled" && one.status == "False");
        false_ones.find_map(|one| one.message.clone())
    };
    waiting.into_iter().next().or_else(unschedulable)
}
