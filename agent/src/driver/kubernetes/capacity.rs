//! Whether the workloads would find room here, asked before they need it: the scaling as a dry run, the namespace's quotas, and
//! the [nodes](super::room).
//!
//! Not looked at: defaults that a `LimitRange` sets, quotas with scopes, and what a CronJob's pods need.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::failure::{Refusal, Request};
use super::quantity::{ONE, parse, shown};
use super::room::{self, Wanted};
use super::state::Kind;
use super::workload::{self, Workload, WorkloadKind};
use crate::config::KubernetesOptions;
use crate::driver::DriverError;

/// By the names that quotas use, in billionths.
type Amounts = BTreeMap<String, i128>;
/// What a container says of itself.
type Says = fn(&Container) -> BTreeMap<String, Quantity>;

/// What one workload would take beyond what it has.
#[derive(Default)]
struct More {
    amounts: Amounts,
    /// The pods that would come.
    pods: Option<Wanted>,
    /// Why it would not be scaled at all.
    refused: Option<String>,
}

/// What there is too little of, in words. What cannot be asked is not known, and not told here.
pub(super) async fn short(client: &Client, options: &KubernetesOptions, by_argo: bool) -> Vec<String> {
    let Ok(workloads) = workload::all(client, options).await else { return Vec::new() };
    let mut short = Vec::new();
    let (mut total, mut wanted) = (Amounts::new(), Vec::new());
    for workload in &workloads {
        let more = match workload.kind {
            WorkloadKind::Deployment => more::<Deployment>(workload, client, by_argo).await,
            WorkloadKind::StatefulSet => more::<StatefulSet>(workload, client, by_argo).await,
            WorkloadKind::CronJob => more::<CronJob>(workload, client, by_argo).await,
        };
        let Ok(more) = more else { continue };
        short.extend(more.refused);
        wanted.extend(more.pods);
        for (name, amount) in more.amounts {
            *total.entry(name).or_default() += amount;
        }
    }
    if total.is_empty() {
        return short;
    }
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), &options.namespace);
    let request = Request { verb: "list", resource: "resourcequotas", name: "", namespace: &options.namespace };
    if let Ok(quotas) = request.send(quotas.list(&ListParams::default())).await {
        short.extend(quotas.items.iter().flat_map(|quota| exceeded(quota, &total)));
    }
    short.extend(room::short(client, &wanted).await);
    short
}

async fn more<K: Kind>(workload: &Workload, client: &Client, by_argo: bool) -> Result<More, DriverError> {
    let api: Api<K> = Api::namespaced(client.clone(), &workload.namespace);
    let Some(object) = workload.request::<K>("get").send(api.get_opt(&workload.name)).await? else {
        return Ok(More::default());
    };
    let state = object.state();
    let Some(wanted) = workload.wanted(&state) else {
        let unknown =
            format!("nobody knows how many replicas {} should have; say that under replicas", workload.shown());
        return Ok(More { refused: (!by_argo).then_some(unknown), ..More::default() });
    };
    if state.asked >= wanted {
        return Ok(More::default());
    }
    let count = wanted - state.asked;
    let pods = object.pod().map(|pod| Wanted { shown: workload.shown(), pod, count });
    let amounts = pods.as_ref().map(|pods| needs(&pods.pod, pods.count)).unwrap_or_default();
    let refused = workload.scale(&api, &state, wanted, true).await.err().and_then(for_good);
    let refused = refused.map(|why| format!("{} would not be scaled to {wanted}: {why}", workload.shown()));
    Ok(More { amounts, pods, refused })
}

/// What was said against the scaling itself. A server that is slow, overloaded or out of order says nothing of what is there: that
/// is not known, and the next look is in a minute.
fn for_good(refusal: Refusal) -> Option<String> {
    match refusal {
        // Somebody was at work just now.
        Refusal::Changed(_) | Refusal::Missing(_) | Refusal::Expired => None,
        // Who is not reached or not let in is told of as what the agent lacks, and by the probe.
        Refusal::Other(error) => (!error.retryable).then_some(error.message),
    }
}

/// What so many of these pods count for in a quota.
pub(super) fn needs(pod: &PodSpec, count: i32) -> Amounts {
    let mut one = Amounts::from([("pods".to_owned(), ONE)]);
    let kinds: [(&str, Says); 2] = [("requests", requests), ("limits", limits)];
    for (prefix, of) in kinds {
        let mut together = Amounts::new();
        for container in &pod.containers {
            for (name, amount) in amounts(of(container)) {
                *together.entry(name).or_default() += amount;
            }
        }
        // Those that come first run one by one: the largest counts, if it is more than all of the others.
        for (name, amount) in pod.init_containers.iter().flatten().flat_map(|first| amounts(of(first))) {
            let least = together.entry(name).or_default();
            *least = amount.max(*least);
        }
        one.extend(together.into_iter().map(|(name, amount)| (format!("{prefix}.{name}"), amount)));
    }
    one.into_iter().map(|(name, amount)| (name, amount * i128::from(count))).collect()
}

/// What a container asks for; where it does not say, its limit counts.
fn requests(container: &Container) -> BTreeMap<String, Quantity> {
    let mut all = limits(container);
    all.extend(container.resources.clone().and_then(|resources| resources.requests).unwrap_or_default());
    all
}

fn limits(container: &Container) -> BTreeMap<String, Quantity> {
    container.resources.clone().and_then(|resources| resources.limits).unwrap_or_default()
}

fn amounts(quantities: BTreeMap<String, Quantity>) -> impl Iterator<Item = (String, i128)> {
    quantities.into_iter().filter_map(|(name, quantity)| Some((name, parse(&quantity.0)?)))
}

/// What of a quota would be exceeded, in words.
fn exceeded(quota: &ResourceQuota, more: &Amounts) -> Vec<String> {
    let spec = quota.spec.clone().unwrap_or_default();
    if spec.scopes.is_some_and(|scopes| !scopes.is_empty()) || spec.scope_selector.is_some() {
        return Vec::new();
    }
    let status = quota.status.clone().unwrap_or_default();
    // Until its controller has counted there is no status.
    let hard = status.hard.or(spec.hard).unwrap_or_default();
    let used = status.used.unwrap_or_default();
    let over = hard.iter().filter_map(|(name, hard)| {
        let more = *more.get(canonical(name))?;
        let used = used.get(name).and_then(|used| parse(&used.0)).unwrap_or_default();
        let hard = parse(&hard.0)?;
        (more > 0 && used + more > hard).then(|| {
            format!(
                "the quota {} has {} of {} {name} in use, and starting takes {} more",
                quota.name_any(),
                shown(used),
                shown(hard),
                shown(more)
            )
        })
    });
    over.collect()
}

/// Quotas have two names for some.
fn canonical(name: &str) -> &str {
    match name {
        "cpu" => "requests.cpu",
        "memory" => "requests.memory",
        "ephemeral-storage" => "requests.ephemeral-storage",
        "count/pods" => "pods",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_server_out_of_order_says_is_no_word_on_the_room_there() {
        let request = Request { verb: "patch", resource: "deployments.apps/scale", name: "shop", namespace: "default" };
        let word = |code: u16| {
            let status = json!({ "status": "Failure", "code": code, "message": "so it is" });
            for_good(request.of_status(&serde_json::from_value(status).unwrap()))
        };
        for code in [401, 404, 408, 409, 410, 429, 500, 502, 503, 504] {
            assert_eq!(word(code), None, "{code}");
        }
        for code in [403, 422] {
            assert!(word(code).is_some_and(|why| why.contains("so it is")), "{code}");
        }
    }

    fn quota(spec: &Value, status: &Value) -> ResourceQuota {
        let text = json!({ "metadata": { "name": "all" }, "spec": spec, "status": status });
        serde_json::from_value(text).unwrap()
    }

    fn pod(spec: Value) -> PodSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn pods_count_for_what_their_containers_ask_for() {
        let pod = pod(json!({
            "initContainers": [{ "name": "first", "resources": { "requests": { "cpu": "2", "memory": "1Mi" } } }],
            "containers": [
                { "name": "a", "resources": { "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "cpu": "1" } } },
                // Its limit counts as what it asks for.
                { "name": "b", "resources": { "limits": { "cpu": "250m" } } },
            ],
        }));
        let needs = needs(&pod, 2);
        let of = |name: &str| needs.get(name).copied().map(shown);
        assert_eq!(of("pods").as_deref(), Some("2"));
        // The first one alone asks for more than both of the others.
        assert_eq!(of("requests.cpu").as_deref(), Some("4"));
        assert_eq!(of("limits.cpu").as_deref(), Some("2.5"));
        assert_eq!(of("requests.memory"), parse("2Gi").map(shown));
        assert_eq!(of("limits.memory"), None);
    }

    #[test]
    fn a_quota_is_exceeded_by_what_is_in_use_and_what_comes() {
        let more =
            needs(&pod(json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1" } } }] })), 2);
        let hard = json!({ "hard": { "cpu": "3", "pods": "9", "limits.memory": "1", "services": "0" } });
        let status = |cpu: &str| json!({ "hard": hard["hard"], "used": { "cpu": cpu, "pods": "7" } });
        assert_eq!(exceeded(&quota(&hard, &status("1")), &more), Vec::<String>::new());
        let told = exceeded(&quota(&hard, &status("1001m")), &more);
        assert_eq!(told, ["the quota all has 1.001 of 3 cpu in use, and starting takes 2 more"]);
        // Nothing was counted yet.
        assert_eq!(exceeded(&quota(&json!({ "hard": { "count/pods": "1" } }), &json!({})), &more).len(), 1);
        let scoped = json!({ "hard": { "pods": "1" }, "scopes": ["BestEffort"] });
        assert_eq!(exceeded(&quota(&scoped, &json!({})), &more), Vec::<String>::new());
    }
}
