//! What goes wrong on the way, chosen at a server of our own.

use std::time::Duration;

use regent_agent::driver::Health;
use regent_deploy::kubernetes::{AGENT, Chart, Credential, Pace, application, deployment, stateful_set};
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
async fn a_manifest_that_its_step_would_refuse_is_named_before() {
    let cluster = cluster().await;
    let path = cluster.folder().join("migrate.yaml");
    let driver = cluster.driver(&format!("{CHECKOUT}\njobs: {{ migrate: {} }}", path.display()));
    std::fs::write(&path, "apiVersion: batch/v1\nkind: Job\nmetadata: { labels: { shard: 5 } }\n").unwrap();
    let told = driver.facts().await.unwrap().findings.lacks;
    assert!(told.len() == 1 && told[0].contains("migrate.yaml is no manifest of one Job: line 3"), "{told:?}");
    let error = driver.run("migrate").await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("kubernetes-configuration", false), "{error}");
    std::fs::write(&path, "apiVersion: batch/v1\nkind: Job\nmetadata: { labels: { shard: '5' } }\n").unwrap();
    assert_eq!(driver.facts().await.unwrap().findings.lacks, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_forbidden_is_named_before_and_when_it_is_done() {
    let cluster = cluster().await;
    cluster.server().forbid(AGENT, "patch", "deployments.apps/scale");
    let driver = cluster.driver(CHECKOUT);
    let probe = driver.probe().await;
    assert_eq!(probe.health, Health::Unknown);
    assert!(probe.detail.contains("patch deployments.apps/scale checkout in namespace"), "{}", probe.detail);
    let told = driver.facts().await.unwrap().findings.lacks;
    assert!(
        told.len() == 1 && told[0].contains("may not patch deployments.apps/scale checkout in namespace"),
        "{told:?}"
    );
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
async fn what_a_quota_has_in_use_counts_and_what_may_not_be_read_is_named() {
    let cluster = cluster().await;
    let quota = |used: &str| json!({ "hard": { "pods": "5" }, "used": { "pods": used } });
    cluster
        .create(&json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "all" }, "spec": {} }))
        .await;
    let api = cluster.api("ResourceQuota");
    let by = kube::api::PatchParams::default();
    let driver = cluster.driver(CHECKOUT);
    for (used, short) in [("3", 0), ("4", 1)] {
        let status = kube::api::Patch::Merge(json!({ "status": quota(used) }));
        api.patch_status("all", &by, &status).await.unwrap();
        assert_eq!(driver.facts().await.unwrap().findings.short.len(), short, "{used} in use");
    }
    cluster.server().forbid(AGENT, "list", "resourcequotas");
    let found = driver.facts().await.unwrap().findings;
    assert_eq!(found.short, Vec::<String>::new(), "what cannot be read is not known");
    assert!(found.lacks.len() == 1 && found.lacks[0].contains("may not list resourcequotas"), "{found:?}");
    // The workloads need it for nothing.
    assert_eq!(driver.probe().await.health, Health::Failed);
    driver.activate().await.unwrap();
}

/// The example of README.md, by the permissions that go with it and no others.
#[tokio::test]
async fn the_permissions_that_are_delivered_are_enough_and_none_is_too_much() {
    let cluster = cluster().await;
    let server = cluster.server();
    cluster.create(&stateful_set("queue", json!(1))).await;
    cluster.create(&cron_job("reports")).await;
    let chart = Chart {
        manifests: vec![deployment("checkout", json!("{{replicaCount}}"))],
        values: [("replicaCount".to_owned(), "0".to_owned())].into(),
    };
    server.push("shop", chart);
    server.create("argocd", &application("shop", "shop", &cluster.namespace, &json!({}))).unwrap();
    let delivered = include_str!("../../../deploy/kubernetes/agent-rbac.yaml");
    let delivered = delivered.replace("namespace: shop", &format!("namespace: {}", cluster.namespace));
    server.grant_only(AGENT, &delivered).unwrap();
    let example = "workloads:
    - { deployment: checkout, replicas: 3 }
    - { statefulSet: queue, replicas: 2, atRest: 1 }
    - { cronJob: reports }
argocd: { application: shop, by: helm, active: { replicaCount: \"3\" }, atRest: { replicaCount: \"0\" } }";
    let driver = cluster.driver(example);
    driver.deactivate().await.unwrap();
    driver.activate().await.unwrap();
    let probe = driver.probe().await;
    assert_eq!(probe.health, Health::Healthy, "{}", probe.detail);

    // Each of its verbs is needed: without it the probe names it.
    for (verbs, rights) in delivered.match_indices("verbs: [").map(|(at, _)| (at, &delivered[at + 8..])) {
        if delivered[..verbs].ends_with("#   ") {
            continue;
        }
        let rights = &rights[..rights.find(']').unwrap()];
        for verb in rights.trim_start_matches('[').split(", ") {
            let fewer: Vec<&str> = rights.trim_start_matches('[').split(", ").filter(|one| *one != verb).collect();
            let fewer = format!("verbs: [{}]", fewer.join(", "));
            let less = format!("{}{fewer}{}", &delivered[..verbs], &delivered[verbs + 8 + rights.len() + 1..]);
            server.grant_only(AGENT, &less).unwrap();
            // Another driver: what was granted is not asked for again at once.
            let driver = cluster.driver(example);
            let said = if delivered[..verbs].trim_end().ends_with("[resourcequotas]") {
                // Nothing that a step does needs it.
                driver.facts().await.unwrap().findings.lacks.join("; ")
            } else {
                driver.probe().await.detail
            };
            assert!(said.contains(&format!("may not {verb} ")), "without {verb} at {verbs}: {said}");
        }
    }

    // The Application of somebody else is out of reach, and then nothing is touched.
    server.grant_only(AGENT, &delivered.replace("[shop]", "[other]")).unwrap();
    let error = cluster.driver(example).deactivate().await.unwrap_err();
    assert_eq!(error.code, "kubernetes-forbidden", "{error}");
    assert_eq!(cluster.replicas("checkout").await, 3, "Argo CD was not told, and would have reverted it");
}

/// The kubeconfig of the agent, changed.
fn rewritten(cluster: &Cluster, change: impl FnOnce(String) -> String) -> String {
    let path = cluster.folder().join("other.yaml");
    let text = std::fs::read_to_string(cluster.folder().join("agent.yaml")).unwrap();
    std::fs::write(&path, change(text)).unwrap();
    format!("kind: kubernetes\nkubeconfig: {}\nnamespace: {}\n{CHECKOUT}", path.display(), cluster.namespace)
}

#[tokio::test]
async fn no_credential_goes_to_whoever_answers_and_no_program_is_run_for_one() {
    let cluster = Cluster::own_by(Credential::Token).await;
    cluster.create(&deployment("checkout", json!(0))).await;
    let place = cluster.folder().join("ran");
    let touch =
        format!("exec: {{ apiVersion: client.authentication.k8s.io/v1, command: touch, args: [{}] }}", place.display());
    let skip = |text: String| text.replace("server:", "insecure-skip-tls-verify: true\n    server:");
    let plain = |text: String| text.replace("https://", "http://");
    let exec = |text: String| {
        let line = text.lines().find(|line| line.contains("token:")).unwrap().to_owned();
        let indent: String = line.chars().take_while(|one| *one == ' ').collect();
        text.replace(&line, &format!("{indent}{touch}"))
    };
    let unsafe_ones: [(&dyn Fn(String) -> String, &str); 3] =
        [(&skip, "insecure-skip-tls-verify"), (&plain, "https"), (&exec, "exec")];
    for (change, word) in unsafe_ones {
        let error = crate::support::driver(&rewritten(&cluster, change)).activate().await.unwrap_err();
        assert_eq!(error.code, "kubernetes-configuration", "{error}");
        assert!(error.message.contains("refused") && error.message.contains(word), "{error}");
    }
    assert!(!place.exists(), "a program was run");
    // Another authority than that of the server.
    let other = Cluster::own_by(Credential::Token).await;
    let authority = |of: &Cluster| -> serde_json::Value {
        let text = std::fs::read_to_string(of.folder().join("agent.yaml")).unwrap();
        let file: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        file["clusters"][0]["cluster"]["certificate-authority-data"].clone()
    };
    let foreign = authority(&other);
    assert!(foreign.is_string() && foreign != authority(&cluster));
    let resource = rewritten(&cluster, |text| {
        let mut file: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        file["clusters"][0]["cluster"]["certificate-authority-data"] = foreign;
        file.to_string()
    });
    let error = crate::support::driver(&resource).activate().await.unwrap_err();
    assert_eq!(error.code, "kubernetes-unreachable", "{error}");
    assert!(error.message.contains("certificate"), "{error}");
    assert_eq!(cluster.replicas("checkout").await, 0);
}

#[tokio::test]
async fn no_message_quotes_what_stands_in_a_kubeconfig() {
    let cluster = Cluster::own_by(Credential::Token).await;
    let text = std::fs::read_to_string(cluster.folder().join("agent.yaml")).unwrap();
    let token = text.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap().trim_matches('"').to_owned();
    let mistakes: [fn(String) -> String; 3] = [
        |text| text.replace("token: ", "token: [ "),
        |text| text.replace("token: ", "client-certificate-data: "),
        |text| text.replace("users:", "users: 7\nother:"),
    ];
    for mistake in mistakes {
        let driver = crate::support::driver(&rewritten(&cluster, mistake));
        let error = driver.activate().await.unwrap_err();
        let said = [error.message, format!("{:?}", driver.verify().await.unwrap_err()), driver.probe().await.detail];
        for said in said {
            assert!(!said.contains(&token) && !said.contains('\n'), "{said}");
            assert!(said.contains("kubeconfig"), "{said}");
        }
    }
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
