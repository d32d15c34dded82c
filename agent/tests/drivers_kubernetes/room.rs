//! Whether the nodes have room: on the server of our own, as no test may cordon the nodes of a real cluster.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use regent_deploy::kubernetes::{AGENT, deployment};
use serde_json::{Value, json};

use crate::cluster::{Cluster, object};

/// A deployment at rest, each of whose pods asks for so much CPU.
async fn at_rest(cluster: &Cluster, cpu: &str) {
    let mut manifest = deployment("checkout", json!(0));
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": cpu } });
    cluster.create(&manifest).await;
}

/// A node with so much CPU.
async fn node(cluster: &Cluster, name: &str, cpu: &str, ready: &str, spec: &Value) {
    let nodes = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
    let nodes: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &nodes);
    let manifest = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": spec });
    nodes.create(&PostParams::default(), &object(&manifest)).await.unwrap();
    let status = json!({ "status": {
        "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" },
        "conditions": [{ "type": "Ready", "status": ready }],
    } });
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn short(cluster: &Cluster, replicas: u32) -> Vec<String> {
    let driver = cluster.driver(&format!("workloads: [{{ deployment: checkout, replicas: {replicas} }}]"));
    driver.facts().await.unwrap().findings.short
}

#[tokio::test]
async fn pods_that_no_node_has_room_for_are_known_before() {
    let cluster = Cluster::own().await;
    at_rest(&cluster, "600m").await;
    assert_eq!(short(&cluster, 9).await, Vec::<String>::new(), "where there is no node they come when they are needed");
    node(&cluster, "cordoned", "64", "True", &json!({ "unschedulable": true })).await;
    node(&cluster, "down", "64", "False", &json!({})).await;
    node(&cluster, "one", "1", "True", &json!({})).await;
    node(&cluster, "two", "1", "True", &json!({})).await;
    assert_eq!(short(&cluster, 2).await, Vec::<String>::new());
    let three = short(&cluster, 3).await;
    assert!(three.len() == 1 && three[0].starts_with("1 of 3 pods of Deployment checkout find no node"), "{three:?}");
    assert_eq!(short(&cluster, 4).await, ["the nodes that are ready have 2 cpu free, and starting takes 2.4"]);

    // What runs there takes its part, whosever it is.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "other" },
        "spec": { "nodeName": "one", "containers": [{
            "name": "main", "image": "busybox:1", "resources": { "requests": { "cpu": "500m" } },
        }] },
    });
    cluster.server().create("elsewhere", &pod).unwrap();
    let two = short(&cluster, 2).await;
    assert!(two.len() == 1 && two[0].starts_with("1 of 2 pods of Deployment checkout find no node"), "{two:?}");
    assert_eq!(cluster.replicas("checkout").await, 0);
    cluster.end().await;
}

#[tokio::test]
async fn what_may_not_be_listed_is_not_known_and_not_lacked() {
    let cluster = Cluster::own().await;
    at_rest(&cluster, "2").await;
    node(&cluster, "one", "1", "True", &json!({})).await;
    assert_eq!(short(&cluster, 1).await.len(), 1);
    let server = cluster.server();
    let delivered = include_str!("../../../deploy/kubernetes/agent-rbac.yaml");
    let delivered = delivered.replace("namespace: shop", &format!("namespace: {}", cluster.namespace));
    server.grant_only(AGENT, &delivered).unwrap();
    let driver = cluster.driver("workloads: [{ deployment: checkout, replicas: 1 }]");
    let found = driver.facts().await.unwrap().findings;
    assert_eq!((found.lacks, found.short), (vec![], vec![]));

    // The part that is commented out is what it needs.
    let (roles, optional) = delivered.split_once("# ---\n").unwrap();
    let optional: Vec<&str> = optional.lines().map(|line| line.strip_prefix("# ").unwrap()).collect();
    server.grant_only(AGENT, &format!("{roles}---\n{}\n", optional.join("\n"))).unwrap();
    assert_eq!(short(&cluster, 1).await, ["the nodes that are ready have 1 cpu free, and starting takes 2"]);
    for resource in ["nodes", "pods"] {
        server.forbid(AGENT, "list", resource);
        assert_eq!(short(&cluster, 1).await, Vec::<String>::new(), "without {resource}");
        server.allow_all(AGENT);
    }
    cluster.end().await;
}
