//! What an object says of itself, in the same terms for each kind of workload.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Resource;
use kube::core::Selector;
use serde::de::DeserializeOwned;

/// Where the number of replicas is kept that a workload had before it was put to rest.
pub(super) const REMEMBERED: &str = "regent/replicas";
/// How Argo CD marks what it manages.
const TRACKING: &str = "argocd.argoproj.io/tracking-id";

/// What a workload says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) version: String,
    /// How many replicas are asked for; for a CronJob 1, and 0 while it is suspended.
    pub(super) asked: i32,
    /// How many are up to date and available.
    pub(super) available: i32,
    /// The controller has seen what is asked for, and nothing old is left.
    pub(super) settled: bool,
    /// The controller has given up waiting for progress: since when.
    pub(super) stalled: Option<String>,
    /// Selects its pods; empty for a CronJob.
    pub(super) pods: String,
    /// Jobs that a CronJob has under way.
    pub(super) jobs: Vec<String>,
    /// Before it was put to rest.
    pub(super) remembered: Option<i32>,
    /// The Argo CD Application that manages it, by its own mark.
    pub(super) tracked: Option<String>,
    /// Who set `asked` last.
    pub(super) owner: Option<String>,
}

/// A kind of workload.
pub(super) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// As RBAC names it.
    const RESOURCE: &'static str;
    /// Its subresource by which it is scaled, as RBAC names it; for a CronJob the resource itself.
    const SCALE: &'static str;
    /// As messages name it.
    const WORD: &'static str;

    /// What it says of itself.
    fn state(&self) -> State;

    /// What each of its replicas is; none for a CronJob, which has none.
    fn pod(&self) -> Option<PodSpec>;
}

impl Kind for Deployment {
    const RESOURCE: &'static str = "deployments.apps";
    const SCALE: &'static str = "deployments.apps/scale";
    const WORD: &'static str = "Deployment";

    fn state(&self) -> State {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let asked = spec.replicas.unwrap_or(1);
        let (all, updated) = (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
        let conditions = status.conditions.unwrap_or_default();
        let stalled = conditions.iter().find(|condition| {
            condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        State {
            available: status.available_replicas.unwrap_or(0).min(updated),
            settled: seen(&self.metadata, status.observed_generation) && updated >= asked && all <= updated,
            stalled: stalled.map(|condition| format!("{:?}", condition.last_update_time)),
            pods: selector(spec.selector),
            ..of(&self.metadata, asked, "f:replicas")
        }
    }

    fn pod(&self) -> Option<PodSpec> {
        self.spec.as_ref()?.template.spec.clone()
    }
}

impl Kind for StatefulSet {
    const RESOURCE: &'static str = "statefulsets.apps";
    const SCALE: &'static str = "statefulsets.apps/scale";
    const WORD: &'static str = "StatefulSet";

    fn state(&self) -> State {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let asked = spec.replicas.unwrap_or(1);
        let rolling = spec.update_strategy.and_then(|strategy| strategy.rolling_update);
        let kept = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let updated = status.updated_replicas.unwrap_or(0);
        State {
            available: status.available_replicas.or(status.ready_replicas).unwrap_or(0),
            settled: seen(&self.metadata, status.observed_generation)
                && updated >= (asked - kept).max(0)
                && status.replicas <= asked,
            pods: selector(spec.selector),
            ..of(&self.metadata, asked, "f:replicas")
        }
    }

    fn pod(&self) -> Option<PodSpec> {
        self.spec.as_ref()?.template.spec.clone()
    }
}

impl Kind for CronJob {
    const RESOURCE: &'static str = "cronjobs.batch";
    const SCALE: &'static str = "cronjobs.batch";
    const WORD: &'static str = "CronJob";

    fn state(&self) -> State {
        let suspended = self.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
        let asked = i32::from(!suspended);
        let active = self.status.clone().unwrap_or_default().active.unwrap_or_default();
        State {
            // It runs by the clock: there is nothing to be awaited.
            available: asked,
            settled: true,
            jobs: active.into_iter().filter_map(|job| job.name).collect(),
            ..of(&self.metadata, asked, "f:suspend")
        }
    }

    fn pod(&self) -> Option<PodSpec> {
        None
    }
}

impl State {
    /// What is still awaited before it serves; none once it does.
    pub(super) fn awaited(&self) -> Option<String> {
        if self.settled && self.available >= self.asked {
            return None;
        }
        let unsettled = if self.settled { "" } else { ", and the last change is not rolled out" };
        Some(format!("{} of {} available{unsettled}", self.available, self.asked))
    }
}

fn of(metadata: &ObjectMeta, asked: i32, field: &str) -> State {
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned();
    State {
        version: metadata.resource_version.clone().unwrap_or_default(),
        asked,
        available: 0,
        settled: false,
        stalled: None,
        pods: String::new(),
        jobs: Vec::new(),
        remembered: annotation(REMEMBERED).and_then(|text| text.parse().ok()),
        tracked: annotation(TRACKING).and_then(|text| text.split(':').next().map(str::to_owned)),
        owner: owner(metadata, field),
    }
}

fn seen(metadata: &ObjectMeta, observed: Option<i64>) -> bool {
    observed.unwrap_or(0) >= metadata.generation.unwrap_or(0)
}

/// Who owns a field of the spec, by the server's own record.
fn owner(metadata: &ObjectMeta, field: &str) -> Option<String> {
    let entries = metadata.managed_fields.iter().flatten();
    let mut owns = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.and_then(|fields| fields.get("f:spec")).is_some_and(|spec| spec.get(field).is_some())
    });
    owns.next_back().and_then(|entry| entry.manager.clone())
}

fn selector(labels: LabelSelector) -> String {
    // One that cannot be understood selects nothing: then only the controller's own count is gone by.
    Selector::try_from(labels).map(|selector| selector.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn state<K: Kind>(generation: i64, spec: &Value, status: &Value) -> State {
        let metadata = json!({ "name": "a", "generation": generation });
        serde_json::from_value::<K>(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap().state()
    }

    fn deployment(asked: i32, observed: i64, [all, updated, available]: [i32; 3]) -> State {
        let spec = json!({ "replicas": asked, "selector": { "matchLabels": { "app": "a" } }, "template": {} });
        let status = json!({
            "observedGeneration": observed, "replicas": all, "updatedReplicas": updated, "availableReplicas": available,
        });
        state::<Deployment>(2, &spec, &status)
    }

    #[test]
    fn a_deployment_serves_once_its_last_change_is_rolled_out_and_available() {
        for (state, awaited) in [
            (deployment(2, 2, [2, 2, 2]), None),
            (deployment(2, 2, [2, 2, 1]), Some("1 of 2 available")),
            // The counts are those of before the change.
            (deployment(2, 1, [2, 2, 2]), Some("2 of 2 available, and the last change is not rolled out")),
            // One that is old still runs.
            (deployment(2, 2, [3, 2, 3]), Some("2 of 2 available, and the last change is not rolled out")),
            (deployment(2, 2, [2, 1, 2]), Some("1 of 2 available, and the last change is not rolled out")),
            (deployment(0, 2, [0, 0, 0]), None),
        ] {
            assert_eq!(state.awaited().as_deref(), awaited, "{state:?}");
        }
        assert_eq!(deployment(2, 2, [2, 2, 2]).pods, "app=a");
    }

    #[test]
    fn a_partition_of_a_stateful_set_is_not_waited_for() {
        let of = |partition: i32| {
            let spec = json!({
                "replicas": 3, "serviceName": "a", "selector": { "matchLabels": { "app": "a" } }, "template": {},
                "updateStrategy": { "rollingUpdate": { "partition": partition } },
            });
            let status =
                json!({ "observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 3 });
            state::<StatefulSet>(2, &spec, &status)
        };
        assert!(of(2).awaited().is_none());
        assert!(of(0).awaited().is_some());
    }

    #[test]
    fn a_suspended_cron_job_is_asked_for_nothing() {
        let of = |suspend: bool| {
            let spec = json!({ "schedule": "0 0 * * *", "suspend": suspend, "jobTemplate": {} });
            state::<CronJob>(1, &spec, &json!({ "active": [{ "name": "a-1" }] }))
        };
        assert_eq!((of(true).asked, of(false).asked), (0, 1));
        assert_eq!(of(true).jobs, ["a-1"]);
    }

    #[test]
    fn who_set_the_number_last_is_read_from_the_server_s_own_record() {
        let entry = |manager: &str, fields: Value| json!({ "manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields });
        let managed = json!([
            entry("kubectl-create", json!({ "f:spec": { "f:template": {} } })),
            entry("argocd-controller", json!({ "f:spec": { "f:replicas": {} } })),
            entry("kube-controller-manager", json!({ "f:status": { "f:replicas": {} } })),
        ]);
        let metadata = json!({
            "name": "a", "managedFields": managed,
            "annotations": { REMEMBERED: "3", TRACKING: "shop:apps/Deployment:shop/a" },
        });
        let state = serde_json::from_value::<Deployment>(json!({ "metadata": metadata })).unwrap().state();
        assert_eq!(state.owner.as_deref(), Some("argocd-controller"));
        assert_eq!(state.tracked.as_deref(), Some("shop"));
        assert_eq!((state.remembered, state.asked), (Some(3), 1));
    }
}
