//! What a server does that the driver rests on; on a real one, that our own does the same.

use kube::api::{Patch, PatchParams};
use regent_deploy::kubernetes::deployment;
use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test]
async fn after_a_scaling_an_apply_of_replicas_is_a_conflict() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("checkout", json!(1))).await;
    let api = cluster.api("Deployment");
    let by = PatchParams { field_manager: Some("kubectl".into()), ..PatchParams::default() };
    api.patch_scale("checkout", &by, &Patch::Merge(json!({ "spec": { "replicas": 0 } }))).await.unwrap();
    let applied = |replicas: i32| json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "checkout" }, "spec": { "replicas": replicas } });
    let error = api.patch("checkout", &PatchParams::apply("regent"), &Patch::Apply(applied(2))).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!(status.code, 409);
    let causes = status.details.unwrap().causes;
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].field, ".spec.replicas");
    assert!(causes[0].message.contains("kubectl"), "{causes:?}");
    // What is the same is shared, and what is forced is taken over.
    api.patch("checkout", &PatchParams::apply("regent"), &Patch::Apply(applied(0))).await.unwrap();
    api.patch("checkout", &PatchParams::apply("regent").force(), &Patch::Apply(applied(2))).await.unwrap();
    assert_eq!(cluster.replicas("checkout").await, 2);
    cluster.end().await;
}

#[tokio::test]
async fn a_version_that_is_old_is_refused_and_a_missing_object_is_not_made_by_an_apply_with_a_version() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("checkout", json!(0))).await;
    let api = cluster.api("Deployment");
    let old = cluster.get("Deployment", "checkout").await["metadata"]["resourceVersion"].clone();
    let by = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    let patch = json!({ "metadata": { "annotations": { "somebody/was-here": "yes" } } });
    api.patch("checkout", &by, &Patch::Merge(patch)).await.unwrap();
    let stale = json!({ "metadata": { "resourceVersion": old }, "spec": { "replicas": 1 } });
    let error = api.patch_scale("checkout", &by, &Patch::Merge(stale)).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error}");

    let absent = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "absent", "resourceVersion": old, "annotations": { "regent/replicas": "1" } },
    });
    let error = api.patch("absent", &PatchParams::apply("regent"), &Patch::Apply(absent)).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if [404, 409].contains(&status.code)), "{error}");
    assert!(api.get_opt("absent").await.unwrap().is_none());
    cluster.end().await;
}

#[tokio::test]
async fn a_dry_run_is_answered_as_if_it_were_done_and_changes_nothing() {
    let cluster = Cluster::any().await;
    cluster.create(&deployment("checkout", json!(0))).await;
    let api = cluster.api("Deployment");
    let before = cluster.get("Deployment", "checkout").await["spec"].clone();
    let dry = PatchParams { dry_run: true, field_manager: Some("regent".into()), ..PatchParams::default() };
    let scaled = api.patch_scale("checkout", &dry, &Patch::Merge(json!({ "spec": { "replicas": 3 } }))).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    let wrong = Patch::Merge(json!({ "spec": { "replicas": -1 } }));
    assert!(api.patch_scale("checkout", &dry, &wrong).await.is_err(), "it is checked all the same");
    assert_eq!(cluster.get("Deployment", "checkout").await["spec"], before);
    cluster.end().await;
}
