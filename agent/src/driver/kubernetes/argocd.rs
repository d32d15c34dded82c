//! The Argo CD Application that manages the workloads: told what they should be, before they are touched.
//!
//! Argo CD compares what its source renders with what is live, and with `selfHeal` it writes the source's word over
//! whatever differs, some seconds later and then again and again. Whoever only scales a Deployment has lost already.
//! There are four ways out, and two of them are right:
//!
//! - **Change the desired state** (`by: helm`, `by: kustomize`). The Application's own overrides, `helm.parameters` or
//!   `kustomize.replicas`, are part of what it renders: once they say three replicas, three is what self-heal restores.
//!   Both sides want the same, through every refresh, new commit and restart of Argo CD, and the override is there for
//!   all to see. The workloads are scaled beside it at once, so that the activation waits neither for Argo CD nor for
//!   the Git server, which may have been in the region that was lost.
//! - **Take the field out of the comparison** (`by: ignoreDifferences`), where replicas are no parameter. It takes
//!   `RespectIgnoreDifferences=true` beside it: without that the field is not *compared*, but the next sync for another
//!   reason, such as a new commit, still *writes* it. The field then is Regent's for good. Both are best set in Git
//!   beforehand; what is missing is set here.
//! - Pausing automated sync for the span of a run only moves the fight to the moment at which it is switched on again,
//!   stops healing of everything else meanwhile, and an agent that dies in between leaves it off. Not done.
//! - A commit to Git is the purest, and needs a Git server, a credential with write access and a render before anything
//!   starts: a runbook can have it as a `run` step. Not done here.
//!
//! **Whoever generates the Application** (an `ApplicationSet`, an Application of Applications that heals itself) puts
//! overrides back. That is seen after the fact and named (`argocd-reverted`), and the probe says beforehand that there
//! is somebody; it must leave the field alone, by `ignoreApplicationDifferences` or `ignoreDifferences` of its own.
//!
//! **What is waited for** is that Argo CD has compared by the new word and calls these workloads synced. Its health is
//! not waited for: it is that of everything in the Application, and that of the workloads is seen by themselves. Where
//! Argo CD does not get to it in time, since its controller is down or Git cannot be reached, the step succeeds and says
//! so: what it will go by when it is back is set, and by what it cannot render it reverts nothing.

use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::MANAGER;
use super::door::Door;
use super::failure::{Refusal, Request};
use super::follow::{Seen, Which, until};
use super::permission::{self, Right};
use super::workload::{CONFLICTS, Workload};
use crate::config::{ArgoOptions, ArgoWay};
use crate::driver::DriverError;

const RESOURCE: &str = "applications.argoproj.io";
/// Beyond it the step does not wait for Argo CD's word.
const PATIENCE: Duration = Duration::from_secs(15);
/// However late it is, it is asked once.
const AT_LEAST: Duration = Duration::from_secs(2);
const RESPECT: &str = "RespectIgnoreDifferences=true";

/// What the workloads should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// They serve.
    Active,
    /// They do not.
    AtRest,
}

/// One Application.
pub(super) struct Argo {
    options: ArgoOptions,
    /// None if it is in the cluster of the workloads.
    door: Option<Door>,
}

/// How the Application stands to what was told.
enum Standing {
    Agrees,
    /// What was told is not there any more.
    PutBack(String),
}

impl Argo {
    pub(super) fn new(options: ArgoOptions) -> Self {
        let door = options.kubeconfig.clone().map(|kubeconfig| Door::new(Some(kubeconfig), options.context.clone()));
        Self { options, door }
    }

    pub(super) async fn hear(&self, error: &DriverError) {
        if let Some(door) = &self.door {
            door.hear(error).await;
        }
    }

    /// What is desired comes by Argo CD, and not only by this agent.
    pub(super) fn renders(&self) -> bool {
        self.options.by != ArgoWay::IgnoreDifferences
    }

    pub(super) async fn missing_permissions(&self, own: &Client) -> Result<Vec<String>, DriverError> {
        let right = |verb| Right {
            verb,
            group: "argoproj.io",
            resource: "applications",
            subresource: "",
            namespace: self.options.namespace.clone(),
            name: self.options.application.clone(),
        };
        let rights = ["get", "list", "watch", "patch"].into_iter().map(right).collect();
        permission::missing(&self.client(own).await?, &rights).await
    }

    /// Makes the Application want this. True if it did not before.
    pub(super) async fn tell(&self, own: &Client, workloads: &[Workload], aim: Aim) -> Result<bool, DriverError> {
        let api = self.api(self.client(own).await?);
        let by = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        for _ in 0..CONFLICTS {
            let found = self.request("get").send(api.get(&self.options.application)).await;
            let application = found.map_err(|refusal| self.absent(refusal))?;
            let before = &application.data["spec"];
            let mut spec = before.clone();
            self.edit(&mut spec, workloads, aim)?;
            if spec == *before {
                return Ok(false);
            }
            let mut patch = json!({
                "metadata": { "resourceVersion": application.metadata.resource_version },
                "spec": differing(before, &spec),
            });
            if self.needs_sync(&application, workloads) {
                patch["operation"] = json!({ "initiatedBy": { "username": MANAGER }, "sync": {} });
            }
            let (request, patch) = (self.request("patch"), Patch::Merge(patch));
            match request.send(api.patch(&self.options.application, &by, &patch)).await {
                Ok(_) => return Ok(true),
                Err(Refusal::Changed(_)) => {}
                Err(refusal) => return Err(self.absent(refusal)),
            }
        }
        let message = format!("{} is being changed by others all the time; see by whom", self.named());
        Err(DriverError::retryable("kubernetes-conflict", message))
    }

    /// Waits until Argo CD agrees; gives what is to be added to the message if it has not got to it.
    pub(super) async fn agrees(
        &self,
        own: &Client,
        workloads: &[Workload],
        aim: Aim,
        deadline: Instant,
    ) -> Result<String, DriverError> {
        let api = self.api(self.client(own).await?);
        let which = Which::Named(self.options.application.clone());
        let now = Instant::now();
        let deadline = deadline.min(now + PATIENCE).max(now + AT_LEAST);
        let mut last = None;
        let standing = until(&api, self.request("get"), which, deadline, |seen: &Seen<DynamicObject>| {
            let application = seen.get(&self.options.application)?;
            last = Some(state(&application.data));
            self.standing(application, workloads, aim)
        });
        match standing.await? {
            Some(Standing::Agrees) => Ok("; Argo CD agrees".to_owned()),
            Some(Standing::PutBack(by)) => Err(self.put_back(&by)),
            None => Ok(format!(
                "; Argo CD has not compared by it yet ({}), and will go by it when it does",
                last.unwrap_or_else(|| "there is no word of it".to_owned())
            )),
        }
    }

    /// Of a workload that was set back: whether the Application was, and by whom.
    pub(super) async fn explain(
        &self,
        own: &Client,
        workloads: &[Workload],
        aim: Aim,
        reverted: DriverError,
    ) -> DriverError {
        let Ok(client) = self.client(own).await else { return reverted };
        match self.request("get").send(self.api(client).get(&self.options.application)).await {
            Ok(application) => match self.standing(&application, workloads, aim) {
                Some(Standing::PutBack(by)) => self.put_back(&by),
                Some(Standing::Agrees) | None => reverted,
            },
            Err(_) => reverted,
        }
    }

    /// How it stands, for humans.
    pub(super) async fn shown(&self, own: &Client, workloads: &[Workload]) -> Result<String, DriverError> {
        let api = self.api(self.client(own).await?);
        let found = self.request("get").send(api.get(&self.options.application)).await;
        let application = found.map_err(|refusal| self.absent(refusal))?;
        let mut said = format!("Argo CD: {}", state(&application.data));
        let mut spec = application.data["spec"].clone();
        // Where it is not, a missing source is named now and not only when it matters.
        self.edit(&mut spec, workloads, Aim::Active)?;
        if !self.renders() && spec != application.data["spec"] {
            said.push_str(", replicas not left to Regent yet (done when it activates)");
        }
        if let Some(generated) = generated(&application) {
            said.push_str(&format!(", generated by {generated}, which must leave the overrides alone"));
        }
        Ok(said)
    }

    fn standing(&self, application: &DynamicObject, workloads: &[Workload], aim: Aim) -> Option<Standing> {
        let holds = |spec: &Value| {
            let mut edited = spec.clone();
            self.edit(&mut edited, workloads, aim).is_ok() && edited == *spec
        };
        let (spec, sync) = (&application.data["spec"], &application.data["status"]["sync"]);
        if !holds(spec) {
            return Some(Standing::PutBack(generated(application).unwrap_or_else(|| "somebody".to_owned())));
        }
        // What it compared by has the shape of a spec, as far as it matters here.
        let mut compared = sync["comparedTo"].clone();
        if !self.renders() {
            compared["syncPolicy"] = spec["syncPolicy"].clone();
        }
        // The rest of the Application may be out of sync; unknown is what it could not compare at all.
        let synced = sync["status"] == "Synced"
            || (sync["status"] == "OutOfSync" && workloads.iter().all(|one| is_synced(&application.data, one)));
        (holds(&compared) && synced).then_some(Standing::Agrees)
    }

    fn edit(&self, spec: &mut Value, workloads: &[Workload], aim: Aim) -> Result<(), DriverError> {
        match self.options.by {
            ArgoWay::Helm => {
                let wanted = if aim == Aim::Active { &self.options.active } else { &self.options.at_rest };
                change(&mut self.source(spec)?["helm"]["parameters"], |parameters| {
                    for (name, value) in wanted {
                        match parameters.iter_mut().find(|one| one["name"] == name.as_str()) {
                            Some(one) => one["value"] = json!(value),
                            None => parameters.push(json!({ "name": name, "value": value })),
                        }
                    }
                });
            }
            ArgoWay::Kustomize => {
                change(&mut self.source(spec)?["kustomize"]["replicas"], |replicas| {
                    for workload in workloads {
                        let active = workload.replicas.unwrap_or(1);
                        let count = if aim == Aim::Active { active } else { workload.at_rest };
                        match replicas.iter_mut().find(|one| one["name"] == workload.name.as_str()) {
                            // A number may also be written as a text.
                            Some(one) if one["count"].as_str() == Some(&count.to_string()) => {}
                            Some(one) => one["count"] = json!(count),
                            None => replicas.push(json!({ "name": workload.name, "count": count })),
                        }
                    }
                });
            }
            ArgoWay::IgnoreDifferences => {
                change(&mut spec["ignoreDifferences"], |ignored| {
                    for workload in workloads {
                        if !ignored.iter().any(|entry| covers(entry, workload)) {
                            ignored.push(left_alone(workload));
                        }
                    }
                });
                change(&mut spec["syncPolicy"]["syncOptions"], |options| {
                    if !options.iter().any(|option| option == RESPECT) {
                        options.retain(|option| option != "RespectIgnoreDifferences=false");
                        options.push(json!(RESPECT));
                    }
                });
            }
        }
        Ok(())
    }

    fn source<'a>(&self, spec: &'a mut Value) -> Result<&'a mut Value, DriverError> {
        let (found, place) = match self.options.source {
            Some(index) => (spec.get_mut("sources").and_then(|all| all.get_mut(index)), format!("sources[{index}]")),
            None => (spec.get_mut("source"), "source".to_owned()),
        };
        found.filter(|source| source.is_object()).ok_or_else(|| {
            let message = format!("{} has no spec.{place}; see the option source in agent.yaml", self.named());
            DriverError::permanent("argocd-source", message)
        })
    }

    /// Argo CD syncs by itself what is automated. Else, what only it knows the number of is asked for.
    fn needs_sync(&self, application: &DynamicObject, workloads: &[Workload]) -> bool {
        let automated = &application.data["spec"]["syncPolicy"]["automated"];
        let by_itself = automated.is_object() && automated["enabled"] != false;
        let idle = application.data["operation"].is_null();
        self.renders() && !by_itself && idle && workloads.iter().any(|one| one.replicas.is_none())
    }

    async fn client(&self, own: &Client) -> Result<Client, DriverError> {
        match &self.door {
            Some(door) => door.client().await,
            None => Ok(own.clone()),
        }
    }

    fn api(&self, client: Client) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application"),
            "applications",
        );
        Api::namespaced_with(client, &self.options.namespace, &resource)
    }

    fn request(&self, verb: &'static str) -> Request<'_> {
        Request { verb, resource: RESOURCE, name: &self.options.application, namespace: &self.options.namespace }
    }

    fn named(&self) -> String {
        format!("the Application {} in namespace {}", self.options.application, self.options.namespace)
    }

    fn put_back(&self, by: &str) -> DriverError {
        let message = format!(
            "what {} was told was put back by {by}; have that leave it alone (see the page of this code)",
            self.named()
        );
        DriverError::retryable("argocd-reverted", message)
    }

    fn absent(&self, refusal: Refusal) -> DriverError {
        match refusal {
            Refusal::Missing(_) => {
                let message = format!(
                    "there is no {RESOURCE} {} in namespace {}; see argocd in agent.yaml",
                    self.options.application, self.options.namespace
                );
                DriverError::retryable("argocd-missing", message)
            }
            other => other.into(),
        }
    }
}

/// Of the spec, what differs: lists as a whole, as a merge patch replaces them.
fn differing(before: &Value, after: &Value) -> Value {
    let all = after.as_object().into_iter().flatten();
    all.filter(|(key, value)| before.get(key) != Some(*value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Changes a list, which is made if it is not there.
fn change(value: &mut Value, change: impl FnOnce(&mut Vec<Value>)) {
    let mut items = match value.take() {
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Vec::new(),
    };
    change(&mut items);
    *value = Value::Array(items);
}

/// An entry of `ignoreDifferences` that takes the field out already.
fn covers(entry: &Value, workload: &Workload) -> bool {
    let (group, kind) = workload.kind.group_kind();
    let is = |key: &str, value: &str| {
        let said = entry[key].as_str().unwrap_or_default();
        said == value || said == "*"
    };
    let open = |key: &str, value: &str| entry[key].as_str().is_none_or(|said| said.is_empty() || said == value);
    let pointers = entry["jsonPointers"].as_array().into_iter().flatten();
    let field = workload.kind.pointer();
    is("group", group)
        && is("kind", kind)
        && open("name", &workload.name)
        && open("namespace", &workload.namespace)
        && pointers.into_iter().any(|pointer| pointer == field)
}

/// An entry that takes the field out, of this workload and no other.
fn left_alone(workload: &Workload) -> Value {
    let (group, kind) = workload.kind.group_kind();
    json!({
        "group": group,
        "kind": kind,
        "name": workload.name,
        "namespace": workload.namespace,
        "jsonPointers": [workload.kind.pointer()],
    })
}

fn is_synced(application: &Value, workload: &Workload) -> bool {
    let (group, kind) = workload.kind.group_kind();
    let resources = application["status"]["resources"].as_array();
    let own = |one: &&Value| one["group"] == group && one["kind"] == kind && one["name"] == workload.name.as_str();
    resources.into_iter().flatten().find(own).is_some_and(|one| one["status"] == "Synced")
}

/// Sync, health, and what stands in the way.
fn state(application: &Value) -> String {
    let status = &application["status"];
    let word = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let mut said = format!("{}, {}", word(&status["sync"]["status"]), word(&status["health"]["status"]));
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut errors = conditions.filter(|one| one["type"].as_str().is_some_and(|kind| kind.ends_with("Error")));
    if let Some(error) = errors.next() {
        said.push_str(&format!(", {}: {}", word(&error["type"]), word(&error["message"])));
    }
    said
}

/// Who makes the Application, and may put it back.
fn generated(application: &DynamicObject) -> Option<String> {
    let owners = application.metadata.owner_references.iter().flatten();
    let owner = owners.map(|owner| format!("{} {}", owner.kind, owner.name)).next();
    let tracked = || {
        let mark = application.metadata.annotations.as_ref()?.get("argocd.argoproj.io/tracking-id")?;
        Some(format!("the Application {}", mark.split(':').next()?))
    };
    owner.or_else(tracked)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::driver::kubernetes::workload::WorkloadKind;

    fn workload() -> Workload {
        Workload {
            kind: WorkloadKind::Deployment,
            name: "checkout".into(),
            namespace: "shop".into(),
            replicas: Some(2),
            at_rest: 0,
        }
    }

    fn argo(by: ArgoWay) -> Argo {
        let helm = by == ArgoWay::Helm;
        let values = |value: &str| -> BTreeMap<String, String> {
            helm.then(|| ("replicaCount".to_owned(), value.to_owned())).into_iter().collect()
        };
        Argo::new(ArgoOptions {
            namespace: "argocd".into(),
            application: "shop".into(),
            by,
            source: None,
            active: values("2"),
            at_rest: values("0"),
            kubeconfig: None,
            context: None,
        })
    }

    #[test]
    fn an_entry_that_takes_the_field_out_already_is_enough() {
        let entry = |more: Value| {
            let mut entry = json!({ "group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"] });
            more.as_object().into_iter().flatten().for_each(|(key, value)| entry[key] = value.clone());
            entry
        };
        for (more, enough) in [
            (json!({}), true),
            (json!({ "name": "checkout", "namespace": "shop" }), true),
            (json!({ "group": "*", "kind": "*" }), true),
            (json!({ "name": "other" }), false),
            (json!({ "namespace": "other" }), false),
            (json!({ "kind": "StatefulSet" }), false),
            (json!({ "jsonPointers": ["/spec/template"] }), false),
            // Whether an expression covers it is not judged: one entry too many does no harm.
            (json!({ "jsonPointers": null, "jqPathExpressions": [".spec.replicas"] }), false),
        ] {
            assert_eq!(covers(&entry(more.clone()), &workload()), enough, "{more}");
        }
    }

    #[test]
    fn only_what_differs_is_sent_and_what_holds_is_left() -> Result<(), DriverError> {
        let spec = json!({
            "project": "default",
            "source": { "path": "shop", "helm": { "parameters": [{ "name": "image", "value": "a:1" }] } },
            "syncPolicy": { "automated": { "selfHeal": true } },
        });
        for by in [ArgoWay::Helm, ArgoWay::Kustomize, ArgoWay::IgnoreDifferences] {
            let mut edited = spec.clone();
            argo(by).edit(&mut edited, &[workload()], Aim::Active)?;
            let sent = differing(&spec, &edited);
            let mut keys: Vec<&str> = sent.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            keys.sort_unstable();
            let expected: &[&str] = match by {
                ArgoWay::Helm | ArgoWay::Kustomize => &["source"],
                ArgoWay::IgnoreDifferences => &["ignoreDifferences", "syncPolicy"],
            };
            assert_eq!(keys, expected, "{by:?}");
            let before = edited.clone();
            argo(by).edit(&mut edited, &[workload()], Aim::Active)?;
            assert_eq!(edited, before, "{by:?} does not hold what it has set");
        }
        Ok(())
    }

    #[test]
    fn a_number_that_is_written_as_a_text_holds() -> Result<(), DriverError> {
        let mut spec = json!({ "source": { "kustomize": { "replicas": [{ "name": "checkout", "count": "2" }] } } });
        let before = spec.clone();
        argo(ArgoWay::Kustomize).edit(&mut spec, &[workload()], Aim::Active)?;
        assert_eq!(spec, before);
        Ok(())
    }
}
