//! What goes wrong on the way, chosen at a server of our own.

use std::time::Duration;

use regent_agent::driver::Health;
use regent_deploy::kubernetes::{AGENT, Credential, Pace, deployment};
use serde_json::json;

use crate::cluster::{Cluster, cron_job};
use crate::support::until;

const CHECKOUT: &str = "workloads: [{ deployment: checkout, replicas: 2 }]";

async fn cluster() -> Cluster {
    let cluster = Cluster::own().await;
    cluster.create(&deployment("checkout", json!(0))).await;
    cluster
}

#[tokio::test]
async fn a_change_by_somebody_else_is_read_and_tried_again() {
    let cluster = cluster().await;
    cluster.server().interfere("deployments", 3);
    cluster.driver(CHECKOUT).activate().await.unwrap();
    let object = cluster.get("Deployment", "checkout").await;
    assert_eq!(object["spec"]["replicas"], 2);
    assert!(object["metadata"]["annotations"]["somebody/was-here"].is_string(), "nobody was in between");

    cluster.server().interfere("deployments", 1000);
    let error = cluster.driver(CHECKOUT).deactivate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-conflict", true));
}

#[tokio::test]
async fn a_field_that_another_owns_is_not_taken_by_force() {
    let cluster = cluster().await;
    let object = ("Deployment", cluster.namespace.as_str(), "checkout");
    cluster
        .server()
        .change(object, "somebody", |object| {
            object["metadata"]["annotations"]["regent/replicas"] = json!("7");
            object["spec"]["replicas"] = json!(1);
        })
        .unwrap();
    let driver = cluster.driver("workloads: [{ deployment: checkout }]");
    driver.activate().await.unwrap();
    let error = driver.deactivate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-conflict", false));
    assert!(error.message.contains("somebody") && error.message.contains("regent/replicas"), "{error}");
    assert_eq!(cluster.replicas("checkout").await, 1);
}

#[tokio::test]
async fn a_watch_goes_on_over_bookmarks_ends_and_forgotten_versions() {
    let cluster = cluster().await;
    cluster.server().pace(Pace { starts: Duration::from_secs(4), stops: Duration::from_millis(50) });
    let driver = cluster.driver(CHECKOUT);
    let activation = tokio::spawn(async move { driver.activate().await });
    until("the scaling", async || cluster.replicas("checkout").await == 2).await;
    for _ in 0..4 {
        // Longer than a bookmark takes, so that one may lie between.
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.server().compact();
    }
    let done = activation.await.unwrap().unwrap();
    assert!(done.message.contains("2 of 2 available"), "{done:?}");
}

#[tokio::test]
async fn what_is_forbidden_is_named_before_and_when_it_is_done() {
    let cluster = cluster().await;
    cluster.server().forbid(AGENT, "patch", "deployments.apps/scale");
    let driver = cluster.driver(CHECKOUT);
    let probe = driver.probe().await;
    assert_eq!(probe.health, Health::Unknown);
    assert!(probe.detail.contains("patch deployments.apps/scale in namespace"), "{}", probe.detail);
    let error = driver.activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-forbidden", false));
    assert!(error.message.contains("may not patch deployments.apps/scale in namespace"), "{error}");
    assert_eq!(cluster.replicas("checkout").await, 0);

    // What was missing is asked for again at once, and not only after a minute.
    cluster.server().allow_all(AGENT);
    let probe = driver.probe().await;
    assert_eq!(probe.health, Health::Failed, "{}", probe.detail);
    driver.activate().await.unwrap();
}

#[tokio::test]
async fn credentials_that_are_taken_no_more_are_read_anew() {
    let cluster = Cluster::own_by(Credential::Token).await;
    cluster.create(&deployment("checkout", json!(0))).await;
    let driver = cluster.driver(CHECKOUT);
    driver.activate().await.unwrap();
    cluster.server().revoke(AGENT);
    let error = driver.deactivate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-unauthenticated", true));
    assert_eq!(driver.probe().await.health, Health::Unknown);
    cluster.server().allow_all(AGENT);
    driver.deactivate().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_is_unknown_and_waited_for_while_it_rolls_out() {
    let cluster = cluster().await;
    let driver = cluster.driver(CHECKOUT);
    cluster.server().stop();
    assert_eq!(driver.probe().await.health, Health::Unknown);
    let error = driver.activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-unreachable", true));

    cluster.server().start_again().await.unwrap();
    cluster.server().pace(Pace { starts: Duration::from_secs(2), stops: Duration::from_millis(50) });
    let activation = tokio::spawn(async move { driver.activate().await });
    until("the scaling", async || cluster.replicas("checkout").await == 2).await;
    cluster.server().stop();
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.server().start_again().await.unwrap();
    activation.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_of_a_cron_job_is_waited_for() {
    let cluster = cluster().await;
    cluster.create(&cron_job("reports")).await;
    let uid = cluster.get("CronJob", "reports").await["metadata"]["uid"].clone();
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "busybox:1", "command": ["true"] }] });
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": "reports-1", "annotations": { "stays": "yes" },
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "reports", "uid": uid }],
        },
        "spec": { "template": { "spec": pod } },
    });
    cluster.create(&job).await;
    until("the Job", async || cluster.get("CronJob", "reports").await["status"]["active"][0]["name"] == "reports-1")
        .await;
    let driver = cluster.driver("workloads: [{ cronJob: reports }]\ntimeout: 1s");
    let error = driver.quiesce().await.unwrap_err();
    assert_eq!(error.code, "kubernetes-still-running");
    assert!(error.message.contains("reports-1"), "{error}");
    let object = ("Job", cluster.namespace.as_str(), "reports-1");
    cluster.server().change(object, "somebody", |job| job["metadata"]["annotations"] = json!({})).unwrap();
    until("its end", async || driver.quiesce().await.is_ok()).await;
}

#[tokio::test]
async fn a_pod_that_does_not_go_is_named() {
    let cluster = cluster().await;
    let driver = cluster.driver("workloads: [{ deployment: checkout, replicas: 1 }]\ntimeout: 2s");
    driver.activate().await.unwrap();
    cluster.server().pace(Pace { starts: Duration::from_millis(50), stops: Duration::from_secs(600) });
    let error = driver.deactivate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-still-running", true));
    assert!(error.message.contains("checkout-"), "{error}");
    cluster.server().pace(Pace::default());
    driver.deactivate().await.unwrap();
}
