//! A namespace in a cluster: a real one, or a server of our own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::api::{ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use regent_agent::driver::Driver;
use regent_deploy::kubernetes::{ADMIN, AGENT, ApiServer, Credential};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::driver;

/// Names a real cluster.
const REAL: &str = "REGENT_TEST_KUBECONFIG";

pub(crate) struct Cluster {
    own: Option<ApiServer>,
    folder: TempDir,
    kubeconfig: PathBuf,
    pub(crate) namespace: String,
    pub(crate) client: Client,
}

impl Cluster {
    /// The real one, if one is named.
    pub(crate) async fn any() -> Self {
        match std::env::var_os(REAL) {
            Some(kubeconfig) => Self::within(None, kubeconfig.into()).await,
            None => Self::own().await,
        }
    }

    /// A server of our own, whose faults can be chosen.
    pub(crate) async fn own() -> Self {
        Self::own_by(Credential::Certificate).await
    }

    pub(crate) async fn own_by(credential: Credential) -> Self {
        let server = ApiServer::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let admin = folder.path().join("admin.yaml");
        server.kubeconfig(&admin, ADMIN, Credential::Certificate).unwrap();
        let mut cluster = Self::within(Some(server), admin).await;
        cluster.kubeconfig = cluster.folder.path().join("agent.yaml");
        cluster.server().kubeconfig(&cluster.kubeconfig, AGENT, credential).unwrap();
        // Kept until here: the first kubeconfig was in it.
        drop(folder);
        cluster
    }

    async fn within(own: Option<ApiServer>, kubeconfig: PathBuf) -> Self {
        let client = client(&kubeconfig).await;
        let namespace = format!("regent-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let folder = tempfile::tempdir().unwrap();
        let cluster = Self { own, folder, kubeconfig, namespace: namespace.clone(), client };
        let manifest = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        let api = Api::all_with(cluster.client.clone(), &resource("Namespace"));
        api.create(&PostParams::default(), &object(&manifest)).await.unwrap();
        cluster
    }

    /// Of our own server only.
    pub(crate) fn server(&self) -> &ApiServer {
        self.own.as_ref().unwrap()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn api(&self, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }

    pub(crate) async fn create(&self, manifest: &Value) {
        let api = self.api(manifest["kind"].as_str().unwrap());
        api.create(&PostParams::default(), &object(manifest)).await.unwrap();
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::to_value(self.api(kind).get(name).await.unwrap()).unwrap()
    }

    /// How many replicas are asked for.
    pub(crate) async fn replicas(&self, name: &str) -> i64 {
        self.get("Deployment", name).await["spec"]["replicas"].as_i64().unwrap()
    }

    /// A driver of the agent's user, by more lines of agent.yaml.
    pub(crate) fn driver(&self, more: &str) -> Arc<dyn Driver> {
        let (kubeconfig, namespace) = (self.kubeconfig.display(), &self.namespace);
        driver(&format!("kind: kubernetes\nkubeconfig: {kubeconfig}\nnamespace: {namespace}\n{more}"))
    }

    pub(crate) async fn end(self) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource("Namespace"));
        api.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

pub(crate) fn object(manifest: &Value) -> DynamicObject {
    serde_json::from_value(manifest.clone()).unwrap()
}

fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "Deployment" | "StatefulSet" => ("apps", "v1"),
        "CronJob" | "Job" => ("batch", "v1"),
        "Application" => ("argoproj.io", "v1alpha1"),
        _ => ("", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

pub(crate) fn cron_job(name: &str) -> Value {
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "busybox:1", "command": ["true"] }] });
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "schedule": "0 0 1 1 *", "jobTemplate": { "spec": { "template": { "spec": pod } } } },
    })
}
