//! What makes the objects real: pods for workloads, and an end for Jobs.
//!
//! Deployments own their pods without a ReplicaSet between them, and there are no rollouts of changed templates: drivers
//! here only scale. A pod runs some time after it was made, unless its image is `missing…`, and is gone some time after
//! it was told to go. Where a hook is set, a pod is ready only once the hook has started the real thing, and gone only
//! once it has stopped it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Server;
use super::store::{Kind, Writer, now};

/// Between two looks when nothing happens.
const BEAT: Duration = Duration::from_millis(25);
const CONTROLLER: Writer<'_> = Writer { manager: "kube-controller-manager", subresource: Some("status") };
const KUBELET: Writer<'_> = Writer { manager: "kubelet", subresource: Some("status") };

/// What this process remembers of pods.
#[derive(Default)]
pub(super) struct Machines {
    /// Since when each was seen, and told to go.
    seen: BTreeMap<String, Instant>,
    leaving: BTreeMap<String, Instant>,
    /// Since when each Job was seen.
    begun: BTreeMap<String, Instant>,
    /// The real thing behind a workload, by namespace and name.
    real: BTreeMap<(String, String), Real>,
}

/// The real thing.
enum Real {
    Down,
    Up,
    Changing(JoinHandle<anyhow::Result<()>>, bool),
}

pub(super) async fn run(server: Arc<Server>) {
    let mut machines = Machines::default();
    let mut news = server.store.news();
    restart(&server);
    loop {
        news.borrow_and_update();
        workloads(&server, &mut machines);
        pods(&server, &mut machines).await;
        jobs(&server, &mut machines);
        let _ = tokio::time::timeout(BEAT, news.changed()).await;
        // Changes come in bursts, of this loop itself, too.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The machines come up: whatever ran before is started again.
fn restart(server: &Server) {
    let Some(kind) = Kind::named("Pod") else { return };
    for pod in server.store.list(kind, "").0 {
        let key = kind.key(text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        let _ = server.store.update(kind, &key, KUBELET, |pod| {
            pod["status"] = json!({ "phase": "Pending" });
            Ok(())
        });
    }
}

fn workloads(server: &Server, machines: &mut Machines) {
    let Some(of_pods) = Kind::named("Pod") else { return };
    for kind in ["Deployment", "StatefulSet"].into_iter().filter_map(Kind::named) {
        for workload in server.store.list(kind, "").0 {
            let metadata = &workload["metadata"];
            let namespace = text(&metadata["namespace"]);
            let asked = workload["spec"]["replicas"].as_i64().unwrap_or(1);
            let asked = usize::try_from(asked).unwrap_or(0);
            let own: Vec<Value> =
                server.store.list(of_pods, namespace).0.into_iter().filter(|pod| owns(metadata, pod)).collect();
            let staying: Vec<&Value> =
                own.iter().filter(|pod| !machines.leaving.contains_key(text(&pod["metadata"]["uid"]))).collect();
            for pod in staying.iter().skip(asked) {
                machines.leaving.insert(text(&pod["metadata"]["uid"]).to_owned(), Instant::now());
            }
            for index in staying.len()..asked {
                let name = text(&metadata["name"]);
                let mut pod = json!({
                    "metadata": {
                        "labels": workload["spec"]["template"]["metadata"]["labels"],
                        "ownerReferences": [{
                            "apiVersion": kind.api_version(), "kind": kind.kind, "name": name, "uid": metadata["uid"], "controller": true,
                        }],
                    },
                    "spec": workload["spec"]["template"]["spec"],
                });
                if kind.kind == "StatefulSet" {
                    pod["metadata"]["name"] = json!(format!("{name}-{index}"));
                } else {
                    pod["metadata"]["generateName"] = json!(format!("{name}-"));
                }
                // A pod of a StatefulSet that is still leaving keeps its name: the next look makes it.
                let _ = server.store.create(of_pods, namespace, pod, Writer { subresource: None, ..CONTROLLER });
            }
            let ready = staying.iter().filter(|pod| is_ready(pod)).take(asked).count();
            let count = staying.len().min(asked);
            let key = kind.key(namespace, text(&metadata["name"]));
            let _ = server.store.update(kind, &key, CONTROLLER, |object| {
                let mut status = object["status"].clone();
                status["observedGeneration"] = metadata["generation"].clone();
                for field in ["replicas", "updatedReplicas"] {
                    status[field] = json!(count);
                }
                for field in ["readyReplicas", "availableReplicas"] {
                    status[field] = json!(ready);
                }
                object["status"] = status;
                Ok(())
            });
        }
    }
}

async fn pods(server: &Server, machines: &mut Machines) {
    let Some(kind) = Kind::named("Pod") else { return };
    let pace = server.pace();
    let all = server.store.list(kind, "").0;
    let uids: Vec<&str> = all.iter().map(|pod| text(&pod["metadata"]["uid"])).collect();
    machines.seen.retain(|uid, _| uids.contains(&uid.as_str()));
    machines.leaving.retain(|uid, _| uids.contains(&uid.as_str()));
    for uid in &uids {
        machines.seen.entry((*uid).to_owned()).or_insert_with(Instant::now);
    }
    hooks(server, machines, &all).await;
    for pod in &all {
        let metadata = &pod["metadata"];
        let uid = text(&metadata["uid"]);
        let key = kind.key(text(&metadata["namespace"]), text(&metadata["name"]));
        if let Some(since) = machines.leaving.get(uid) {
            let last = !all
                .iter()
                .any(|other| same_owner(other, pod) && !machines.leaving.contains_key(text(&other["metadata"]["uid"])));
            let held = last && machines.real.get(&owner(pod)).is_some_and(|real| !matches!(real, Real::Down));
            if since.elapsed() >= pace.stops && !held {
                server.store.delete(&key);
            }
            continue;
        }
        let image = text(&pod["spec"]["containers"][0]["image"]);
        let old_enough = machines.seen.get(uid).is_some_and(|since| since.elapsed() >= pace.starts);
        let real = machines.real.get(&owner(pod)).is_none_or(|real| matches!(real, Real::Up));
        let status = if image.starts_with("missing") {
            let waiting = json!({ "reason": "ImagePullBackOff", "message": format!("there is no image {image}") });
            json!({ "phase": "Pending", "containerStatuses": [{ "name": "main", "ready": false, "state": { "waiting": waiting } }] })
        } else if old_enough && real {
            json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] })
        } else {
            json!({ "phase": "Pending" })
        };
        if text(&owner_kind(pod)) != "Job" {
            let _ = server.store.update(kind, &key, KUBELET, |object| {
                object["status"] = status;
                Ok(())
            });
        }
    }
}

/// Starts and stops what is behind the pods.
async fn hooks(server: &Server, machines: &mut Machines, pods: &[Value]) {
    let pace = server.pace();
    let Some(hook) = server.hook() else { return };
    let workloads: std::collections::BTreeSet<(String, String)> =
        pods.iter().map(owner).chain(machines.real.keys().cloned()).collect();
    for workload in workloads {
        let own = || pods.iter().filter(|pod| owner(pod) == workload);
        let due = |pod: &Value| {
            machines.seen.get(text(&pod["metadata"]["uid"])).is_some_and(|since| since.elapsed() >= pace.starts)
        };
        let wanted = own().any(|pod| due(pod) && !machines.leaving.contains_key(text(&pod["metadata"]["uid"])));
        let real = machines.real.entry(workload.clone()).or_insert(Real::Down);
        *real = match std::mem::replace(real, Real::Down) {
            Real::Down if wanted => Real::Changing(tokio::spawn(hook(workload.1.clone(), true)), true),
            Real::Up if !wanted => Real::Changing(tokio::spawn(hook(workload.1.clone(), false)), false),
            Real::Changing(task, up) if task.is_finished() => match (task.await, up) {
                (Ok(Ok(())), true) => Real::Up,
                (Ok(Ok(())), false) => Real::Down,
                // Tried again, as a kubelet would.
                (_, up) => {
                    if up {
                        Real::Down
                    } else {
                        Real::Up
                    }
                }
            },
            other => other,
        };
    }
}

fn jobs(server: &Server, machines: &mut Machines) {
    let (Some(kind), Some(of_cron)) = (Kind::named("Job"), Kind::named("CronJob")) else { return };
    let pace = server.pace();
    let all = server.store.list(kind, "").0;
    for job in &all {
        let metadata = &job["metadata"];
        let uid = text(&metadata["uid"]).to_owned();
        let since = *machines.begun.entry(uid).or_insert_with(Instant::now);
        if is_ended(job) || since.elapsed() < pace.starts || metadata["annotations"]["stays"].is_string() {
            continue;
        }
        let fails = job["spec"]["template"]["spec"]["containers"][0]["command"][0] == "false";
        let condition = if fails {
            json!({ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
                    "message": "Job has reached the specified backoff limit", "lastTransitionTime": now() })
        } else {
            json!({ "type": "Complete", "status": "True", "lastTransitionTime": now() })
        };
        let key = kind.key(text(&metadata["namespace"]), text(&metadata["name"]));
        let _ = server.store.update(kind, &key, CONTROLLER, |object| {
            object["status"] = json!({ "conditions": [condition] });
            Ok(())
        });
    }
    for cron in server.store.list(of_cron, "").0 {
        let metadata = &cron["metadata"];
        let active: Vec<Value> = all
            .iter()
            .filter(|job| owns(metadata, job) && !is_ended(job))
            .map(|job| json!({ "kind": "Job", "name": job["metadata"]["name"], "namespace": metadata["namespace"] }))
            .collect();
        let key = of_cron.key(text(&metadata["namespace"]), text(&metadata["name"]));
        let _ = server.store.update(of_cron, &key, CONTROLLER, |object| {
            object["status"] = json!({ "active": active });
            Ok(())
        });
    }
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn is_ended(job: &Value) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| matches!(text(&one["type"]), "Complete" | "Failed"))
}

fn owns(metadata: &Value, object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.into_iter().any(|owner| owner["uid"] == metadata["uid"])
}

fn owner(pod: &Value) -> (String, String) {
    let name = &pod["metadata"]["ownerReferences"][0]["name"];
    (text(&pod["metadata"]["namespace"]).to_owned(), text(name).to_owned())
}

fn owner_kind(pod: &Value) -> Value {
    pod["metadata"]["ownerReferences"][0]["kind"].clone()
}

fn same_owner(one: &Value, other: &Value) -> bool {
    one["metadata"]["ownerReferences"][0]["uid"] == other["metadata"]["ownerReferences"][0]["uid"]
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
