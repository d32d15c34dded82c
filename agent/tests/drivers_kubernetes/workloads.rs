//! What holds on every cluster.

use regent_agent::driver::Health;
use regent_deploy::kubernetes::{deployment, stateful_set};
use serde_json::json;

use crate::cluster::{Cluster, cron_job};

#[tokio::test]
async fn a_deployment_is_started_and_stopped_and_a_repeat_changes_nothing() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("checkout", json!(0))).await;
    let driver = cluster.driver("workloads: [{ deployment: checkout, replicas: 2 }]");
    let probe = driver.probe().await;
    assert_eq!(probe.health, Health::Failed, "{}", probe.detail);
    assert!(probe.detail.contains("Deployment checkout: at rest (0 of 0)"), "{}", probe.detail);
    assert_eq!(driver.verify().await.unwrap_err().code, "kubernetes-not-ready");

    let done = driver.activate().await.unwrap();
    assert!(!done.already && done.message.contains("2 of 2 available"), "{done:?}");
    assert!(driver.activate().await.unwrap().already);
    assert!(driver.verify().await.unwrap().already);
    assert_eq!(driver.probe().await.health, Health::Healthy);
    let version = cluster.get("Deployment", "checkout").await["metadata"]["generation"].clone();

    let done = driver.quiesce().await.unwrap();
    assert!(!done.already, "{done:?}");
    let pods = cluster.api("Pod").list(&kube::api::ListParams::default().labels("app=checkout")).await.unwrap();
    assert!(pods.items.is_empty(), "{:?} still run", pods.items.len());
    assert!(driver.deactivate().await.unwrap().already);
    assert_eq!(cluster.replicas("checkout").await, 0);
    let after = cluster.get("Deployment", "checkout").await["metadata"]["generation"].clone();
    assert_eq!(after.as_i64().unwrap(), version.as_i64().unwrap() + 1, "the repeat has changed the spec");
    cluster.end().await;
}

#[tokio::test]
async fn the_number_of_before_is_remembered_where_none_is_given() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("checkout", json!(2))).await;
    let driver = cluster.driver("workloads: [{ deployment: checkout }]");
    assert!(driver.activate().await.unwrap().already);
    driver.deactivate().await.unwrap();
    let rests = cluster.get("Deployment", "checkout").await;
    assert_eq!(rests["metadata"]["annotations"]["regent/replicas"], "2");
    // By another agent: what is remembered is in the cluster.
    let driver = cluster.driver("workloads: [{ deployment: checkout }]");
    driver.activate().await.unwrap();
    assert_eq!(cluster.replicas("checkout").await, 2);

    cluster.create(&deployment("fresh", json!(0))).await;
    let fresh = cluster.driver("workloads: [{ deployment: fresh }]");
    let error = fresh.activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-replicas-unknown", false));
    cluster.end().await;
}

#[tokio::test]
async fn more_than_asked_for_is_left_and_a_warm_standby_stays_warm() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("checkout", json!(3))).await;
    let driver = cluster.driver("workloads: [{ deployment: checkout, replicas: 2, atRest: 1 }]");
    assert!(driver.activate().await.unwrap().already);
    assert_eq!(cluster.replicas("checkout").await, 3);
    driver.deactivate().await.unwrap();
    assert_eq!(cluster.replicas("checkout").await, 1);
    let probe = driver.probe().await;
    assert!(probe.detail.contains("at rest"), "{}", probe.detail);
    driver.activate().await.unwrap();
    assert_eq!(cluster.replicas("checkout").await, 2);
    cluster.end().await;
}

#[tokio::test]
async fn labels_name_workloads_of_every_kind() {
    let cluster = Cluster::any().await;
    let labelled = |mut manifest: serde_json::Value| {
        manifest["metadata"]["labels"]["tier"] = json!("core");
        manifest
    };
    cluster.create(&labelled(deployment("checkout", json!(1)))).await;
    cluster.create(&labelled(stateful_set("queue", json!(1)))).await;
    cluster.create(&labelled(cron_job("reports"))).await;
    cluster.create(&deployment("other", json!(1))).await;
    let driver = cluster.driver("workloads: [{ selector: tier=core }]");
    driver.deactivate().await.unwrap();
    assert_eq!(cluster.replicas("checkout").await, 0);
    assert_eq!(cluster.get("StatefulSet", "queue").await["spec"]["replicas"], 0);
    assert_eq!(cluster.get("CronJob", "reports").await["spec"]["suspend"], true);
    assert_eq!(cluster.replicas("other").await, 1);
    let done = driver.activate().await.unwrap();
    for word in ["Deployment checkout", "StatefulSet queue", "CronJob reports"] {
        assert!(done.message.contains(word), "{done:?}");
    }
    assert_eq!(cluster.get("CronJob", "reports").await["spec"]["suspend"], false);
    let nothing = cluster.driver("workloads: [{ selector: tier=edge }]");
    assert_eq!(nothing.activate().await.unwrap_err().code, "kubernetes-missing");
    cluster.end().await;
}

#[tokio::test]
async fn what_is_not_there_or_not_ready_is_named() {
    let cluster = Cluster::any().await;
    let driver = cluster.driver("workloads: [{ deployment: nowhere, replicas: 1 }]");
    let error = driver.activate().await.unwrap_err();
    assert_eq!(error.code, "kubernetes-missing");
    assert!(error.message.contains("nowhere") && error.message.contains(&cluster.namespace), "{error}");
    assert_eq!(driver.probe().await.health, Health::Failed);

    let mut manifest = deployment("broken", json!(0));
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("missing-image:none");
    cluster.create(&manifest).await;
    let driver = cluster.driver("workloads: [{ deployment: broken, replicas: 1 }]\ntimeout: 5s");
    let error = driver.activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-not-ready", true));
    assert!(error.message.contains("0 of 1 available") && error.message.contains("broken-"), "{error}");
    // It is given up, and not undone: another attempt, or a human, goes on from there.
    assert_eq!(cluster.replicas("broken").await, 1);
    cluster.end().await;
}

/// One of two replicas has no room.
#[tokio::test]
async fn a_quota_that_leaves_too_little_room_is_known_before() {
    let cluster = Cluster::any().await;
    let mut manifest = deployment("checkout", json!(0));
    let asks = json!({ "requests": { "cpu": "300m", "memory": "32Mi" }, "limits": { "cpu": "1", "memory": "64Mi" } });
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = asks;
    cluster.create(&manifest).await;
    let driver = cluster.driver("workloads: [{ deployment: checkout, replicas: 2 }]");
    let version = cluster.get("Deployment", "checkout").await["metadata"]["generation"].clone();
    let found = driver.facts().await.unwrap().findings;
    assert_eq!((found.lacks, found.short), (vec![], vec![]));

    let hard = json!({ "requests.cpu": "500m", "pods": "2", "limits.memory": "1Gi" });
    let quota =
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "all" }, "spec": { "hard": hard } });
    cluster.create(&quota).await;
    let short = driver.facts().await.unwrap().findings.short;
    assert_eq!(short, ["the quota all has 0 of 0.5 requests.cpu in use, and starting takes 0.6 more"]);
    assert_eq!(cluster.replicas("checkout").await, 0);
    let after = cluster.get("Deployment", "checkout").await["metadata"]["generation"].clone();
    assert_eq!(after, version, "a dry run has changed something");

    // What serves needs nothing more.
    let one = cluster.driver("workloads: [{ deployment: checkout, replicas: 1 }]");
    assert_eq!(one.facts().await.unwrap().findings.short, Vec::<String>::new());
    one.activate().await.unwrap();
    assert_eq!(one.facts().await.unwrap().findings.short, Vec::<String>::new());
    cluster.end().await;
}

#[tokio::test]
async fn nobody_knowing_how_many_there_should_be_is_known_before() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("fresh", json!(0))).await;
    let short = cluster.driver("workloads: [{ deployment: fresh }]").facts().await.unwrap().findings.short;
    assert!(short.len() == 1 && short[0].contains("Deployment fresh") && short[0].contains("replicas"), "{short:?}");
    cluster.end().await;
}

#[tokio::test]
async fn a_listed_job_runs_to_its_end() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("checkout", json!(0))).await;
    let manifest = |name: &str, command: &str| {
        let path = cluster.folder().join(format!("{name}.yaml"));
        let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "busybox:1", "command": [command] }] });
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
            "spec": { "backoffLimit": 0, "template": { "spec": pod } },
        });
        std::fs::write(&path, job.to_string()).unwrap();
        path.display().to_string()
    };
    let driver = cluster.driver(&format!(
        "workloads: [{{ deployment: checkout, replicas: 1 }}]\njobs: {{ migrate: {}, broken: {} }}",
        manifest("migrate", "true"),
        manifest("broken", "false"),
    ));
    let done = driver.run("migrate").await.unwrap();
    assert!(done.message.contains("migrate-") && done.message.contains("complete"), "{done:?}");
    // Each step is a Job of its own.
    driver.run("migrate").await.unwrap();
    let jobs = cluster.api("Job").list(&kube::api::ListParams::default().labels("regent/job=migrate")).await.unwrap();
    assert_eq!(jobs.items.len(), 2);
    let error = driver.run("broken").await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-job-failed", true));
    assert_eq!(driver.run("unknown").await.unwrap_err().code, "kubernetes-job-not-listed");
    cluster.end().await;
}
