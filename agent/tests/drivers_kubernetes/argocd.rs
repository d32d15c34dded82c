//! Beside an Argo CD that heals itself. Not on a real cluster: it would need an Argo CD with a repository of these charts.

use std::time::Duration;

use regent_agent::driver::Health;
use regent_deploy::kubernetes::{Chart, Rounds, application, deployment};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::until;

const HELM: &str = "workloads: [{ deployment: checkout, replicas: 2 }]
argocd: { application: shop, by: helm, active: { replicaCount: \"2\" }, atRest: { replicaCount: \"0\" } }
timeout: 20s";
const KUSTOMIZE: &str = "workloads: [{ deployment: checkout, replicas: 2 }]
argocd: { application: shop, by: kustomize }
timeout: 20s";
const IGNORED: &str = "workloads: [{ deployment: checkout, replicas: 2 }]
argocd: { application: shop, by: ignoreDifferences }
timeout: 20s";

/// A chart whose replicas are a parameter, 0 by default.
fn helm(label: &str) -> Chart {
    let mut manifest = deployment("checkout", json!("{{replicaCount}}"));
    manifest["metadata"]["labels"]["release"] = json!(label);
    Chart { manifests: vec![manifest], values: [("replicaCount".to_owned(), "0".to_owned())].into() }
}

/// Manifests with a fixed number of replicas: 0.
fn plain(label: &str) -> Chart {
    let mut manifest = deployment("checkout", json!(0));
    manifest["metadata"]["labels"]["release"] = json!(label);
    Chart { manifests: vec![manifest], ..Chart::default() }
}

async fn managed(chart: Chart) -> Cluster {
    let cluster = Cluster::own().await;
    cluster.server().push("shop", chart);
    cluster.server().create("argocd", &application("shop", "shop", &cluster.namespace, &json!({}))).unwrap();
    until("the first sync", async || cluster.server().get("Deployment", &cluster.namespace, "checkout").is_ok()).await;
    cluster
}

fn spec(cluster: &Cluster) -> Value {
    cluster.server().get("Application", "argocd", "shop").unwrap()["spec"].clone()
}

/// Compares again and again, and what was reached stays.
async fn stays(cluster: &Cluster, replicas: i64) {
    let from = cluster.server().rounds("shop");
    until("twenty rounds of Argo CD", async || {
        assert_eq!(cluster.replicas("checkout").await, replicas, "it was put back");
        cluster.server().rounds("shop").compared >= from.compared + 20
    })
    .await;
    let Rounds { healed, .. } = cluster.server().rounds("shop");
    assert_eq!(healed, from.healed, "there was something to heal");
}

#[tokio::test]
async fn without_a_word_to_argo_cd_it_is_reverted_and_by_whom_is_said() {
    let cluster = managed(helm("one")).await;
    let driver = cluster.driver("workloads: [{ deployment: checkout, replicas: 2 }]\ntimeout: 20s");
    let probe = driver.probe().await;
    assert!(probe.detail.contains("Argo CD manages it by the Application shop"), "{}", probe.detail);
    // Long enough for self-heal to be there first.
    cluster.server().pace(regent_deploy::kubernetes::Pace { starts: Duration::from_secs(5), stops: Duration::ZERO });
    let error = driver.activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-reverted", true));
    assert!(error.message.contains("argocd-controller"), "{error}");
    assert!(cluster.server().rounds("shop").healed >= 3);
}

#[tokio::test]
async fn parameters_of_helm_change_what_self_heal_restores() {
    let cluster = managed(helm("one")).await;
    let driver = cluster.driver(HELM);
    let done = driver.activate().await.unwrap();
    assert!(!done.already && done.message.contains("Argo CD agrees"), "{done:?}");
    stays(&cluster, 2).await;
    assert!(driver.activate().await.unwrap().already);
    // A new commit is synced, and changes nothing of it.
    cluster.server().push("shop", helm("two"));
    until("the new commit", async || {
        cluster.get("Deployment", "checkout").await["metadata"]["labels"]["release"] == "two"
    })
    .await;
    stays(&cluster, 2).await;
    // Self-heal works for it now: whoever scales it down is reverted.
    let object = ("Deployment", cluster.namespace.as_str(), "checkout");
    cluster.server().change(object, "somebody", |object| object["spec"]["replicas"] = json!(0)).unwrap();
    until("self-heal", async || cluster.replicas("checkout").await == 2).await;

    driver.deactivate().await.unwrap();
    stays(&cluster, 0).await;
    assert_eq!(spec(&cluster)["source"]["helm"]["parameters"], json!([{ "name": "replicaCount", "value": "0" }]));
    assert_eq!(driver.probe().await.health, Health::Failed);
}

#[tokio::test]
async fn parameters_of_others_are_kept_and_a_change_in_between_is_read_again() {
    let cluster = managed(helm("one")).await;
    let others = json!([{ "name": "image", "value": "busybox:1" }]);
    let object = ("Application", "argocd", "shop");
    let server = cluster.server();
    server.change(object, "somebody", |object| object["spec"]["source"]["helm"]["parameters"] = others).unwrap();
    server.interfere("applications", 3);
    cluster.driver(HELM).activate().await.unwrap();
    let wanted = json!([{ "name": "image", "value": "busybox:1" }, { "name": "replicaCount", "value": "2" }]);
    assert_eq!(spec(&cluster)["source"]["helm"]["parameters"], wanted);
}

#[tokio::test]
async fn replicas_of_kustomize_change_what_self_heal_restores() {
    let cluster = managed(plain("one")).await;
    let driver = cluster.driver(KUSTOMIZE);
    driver.activate().await.unwrap();
    assert_eq!(spec(&cluster)["source"]["kustomize"]["replicas"], json!([{ "name": "checkout", "count": 2 }]));
    stays(&cluster, 2).await;
    driver.deactivate().await.unwrap();
    stays(&cluster, 0).await;
}

#[tokio::test]
async fn an_ignored_field_survives_self_heal_and_a_new_commit() {
    let cluster = managed(plain("one")).await;
    let driver = cluster.driver(IGNORED);
    let probe = driver.probe().await;
    assert!(probe.detail.contains("not left to Regent yet"), "{}", probe.detail);
    driver.activate().await.unwrap();
    stays(&cluster, 2).await;
    // Without RespectIgnoreDifferences this is what would write 0.
    cluster.server().push("shop", plain("two"));
    until("the new commit", async || {
        cluster.get("Deployment", "checkout").await["metadata"]["labels"]["release"] == "two"
    })
    .await;
    stays(&cluster, 2).await;
    assert!(driver.activate().await.unwrap().already);
}

/// The server is no easier than Argo CD: this is the trap that the option is for.
#[tokio::test]
async fn an_ignored_field_alone_is_written_by_the_next_sync() {
    let cluster = managed(plain("one")).await;
    let object = ("Application", "argocd", "shop");
    let ignored = json!([{ "group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"] }]);
    let server = cluster.server();
    server.change(object, "somebody", |object| object["spec"]["ignoreDifferences"] = ignored).unwrap();
    until("the new comparison", async || {
        let application = server.get("Application", "argocd", "shop").unwrap();
        application["status"]["sync"]["comparedTo"]["ignoreDifferences"].is_array()
    })
    .await;
    let driver = cluster.driver("workloads: [{ deployment: checkout, replicas: 2 }]\ntimeout: 20s");
    driver.activate().await.unwrap();
    stays(&cluster, 2).await;
    server.push("shop", plain("two"));
    until("the reversal", async || cluster.replicas("checkout").await == 0).await;
}

#[tokio::test]
async fn argo_cd_and_git_may_be_away() {
    let cluster = managed(helm("one")).await;
    cluster.server().git_is_away(true);
    let driver = cluster.driver(HELM);
    let done = driver.activate().await.unwrap();
    assert!(done.message.contains("has not compared by it yet"), "{done:?}");
    assert!(done.message.contains("repository cannot be reached"), "{done:?}");
    assert_eq!(cluster.replicas("checkout").await, 2);
    cluster.server().git_is_away(false);
    until("its word", async || {
        let application = cluster.server().get("Application", "argocd", "shop").unwrap();
        application["status"]["sync"]["status"] == "Synced"
    })
    .await;
    stays(&cluster, 2).await;
}

#[tokio::test]
async fn who_generates_the_application_and_puts_it_back_is_named() {
    let cluster = managed(helm("one")).await;
    cluster.server().generated("argocd", "shop").unwrap();
    let driver = cluster.driver(HELM);
    let probe = driver.probe().await;
    assert!(probe.detail.contains("generated by ApplicationSet all"), "{}", probe.detail);
    let error = driver.activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("argocd-reverted", true));
    assert!(error.message.contains("ApplicationSet all"), "{error}");
}

#[tokio::test]
async fn what_is_not_as_agent_yaml_says_is_named() {
    let cluster = managed(helm("one")).await;
    let missing = HELM.replace("application: shop", "application: other");
    assert_eq!(cluster.driver(&missing).activate().await.unwrap_err().code, "argocd-missing");
    let source = HELM.replace("by: helm", "by: helm, source: 1");
    let error = cluster.driver(&source).activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("argocd-source", false));
    assert_eq!(cluster.replicas("checkout").await, 0);
}

#[tokio::test]
async fn replicas_that_only_the_chart_knows_come_by_a_sync() {
    let cluster = managed(helm("one")).await;
    // Not automated: the sync is asked for.
    let object = ("Application", "argocd", "shop");
    cluster.server().change(object, "somebody", |object| object["spec"]["syncPolicy"] = json!({})).unwrap();
    let driver = cluster.driver(&HELM.replace(", replicas: 2", ""));
    let done = driver.activate().await.unwrap();
    assert!(done.message.contains("2 of 2 available"), "{done:?}");
    let operation = cluster.server().get("Application", "argocd", "shop").unwrap();
    assert_eq!(operation["status"]["operationState"]["phase"], "Succeeded");
}
