//! A small Kubernetes API server with the controllers that matter, for tests where there is no cluster to be had.
//!
//! Faithful in what drivers depend on: versions that only rise and are checked (409), watches that go on from a version,
//! with bookmarks and 410, the scale subresource, merge patches, server-side apply with conflicts by field manager, a
//! status that only its owner writes, SelfSubjectAccessReview, 401 and 403 in real words, TLS with client certificates or
//! bearer tokens. Deployments, StatefulSets, CronJobs and Jobs have [controllers](controllers), and [Argo CD](argocd)
//! heals what it manages.
//!
//! It is no Kubernetes: what it takes for right was read from documentation and source, not seen on a real server. So the
//! same tests run on a real one when `REGENT_TEST_KUBECONFIG` names it.

mod access;
mod argocd;
mod controllers;
mod failure;
mod fields;
mod http;
mod store;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use self::access::Access;
pub use self::argocd::{Chart, Rounds};
use self::failure::Failure;
use self::store::{Key, Kind, Store, Writer};
use self::tls::{Authority, Client};
use crate::place;

/// The user that agents are.
pub const AGENT: &str = "regent-agent";
/// The user that tests are.
pub const ADMIN: &str = "admin";

/// How fast the machines are.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From a pod to its readiness.
    pub starts: Duration,
    /// From its end to its disappearance.
    pub stops: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { starts: Duration::from_millis(100), stops: Duration::from_millis(100) }
    }
}

/// Starts (true) or stops the real thing behind a workload of this name.
pub type Hook = Arc<dyn Fn(String, bool) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// By a certificate.
    Certificate,
    /// By a bearer token.
    Token,
}

/// What the parts of the server share.
struct Server {
    store: Store,
    access: Access,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pace: Pace,
    hook: Option<Hook>,
    /// By path: revision, chart.
    git: BTreeMap<String, (u64, Chart)>,
    git_is_away: bool,
    argo_is_away: bool,
    rounds: BTreeMap<String, Rounds>,
    /// Applications that somebody generates, with the spec that is put back.
    generated: BTreeMap<String, Value>,
    /// Writes that others get in before, by plural.
    interference: BTreeMap<String, u32>,
}

/// See the module.
pub struct ApiServer {
    server: Arc<Server>,
    authority: Authority,
    address: SocketAddr,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl ApiServer {
    /// One that listens at an address; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start(address: SocketAddr) -> Result<Self> {
        let authority = Authority::new(address.ip(), &[ADMIN, AGENT])?;
        let server = Server { store: Store::new(), access: Access::default(), inner: Mutex::default() };
        let mut server = Self { server: Arc::new(server), authority, address, tasks: Mutex::default() };
        server.address = server.open().await?;
        Ok(server)
    }

    async fn open(&self) -> Result<SocketAddr> {
        let doorway = self.authority.listen(self.address).await?;
        let address = doorway.address;
        let router: Router = Router::new().fallback(http::answer).with_state(Arc::clone(&self.server));
        let service = router.into_make_service_with_connect_info::<Client>();
        let serving = tokio::spawn(async move { drop(axum::serve(doorway, service).await) });
        let controllers = tokio::spawn(controllers::run(Arc::clone(&self.server)));
        let argo = tokio::spawn(argocd::run(Arc::clone(&self.server)));
        *self.tasks() = vec![serving, controllers, argo];
        Ok(address)
    }

    /// Ends it with all connections and controllers. What it has stored stays.
    pub fn stop(&self) {
        self.tasks().drain(..).for_each(|task| task.abort());
        // Watches are streams of their own tasks: they end as their version is gone.
        self.server.store.compact();
    }

    /// Starts it again at the same address, with what it had stored; its machines start their pods again.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start_again(&self) -> Result<()> {
        self.open().await.map(drop)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a kubeconfig for a user.
    ///
    /// # Errors
    /// It cannot be written, or there is no such user.
    pub fn kubeconfig(&self, path: &Path, user: &str, by: Credential) -> Result<()> {
        let encode = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
        let own = match by {
            Credential::Certificate => {
                let pair = self.authority.users.get(user).with_context(|| format!("there is no user {user}"))?;
                json!({ "client-certificate-data": encode(&pair.certificate), "client-key-data": encode(&pair.key) })
            }
            Credential::Token => json!({ "token": self.server.access.token(user) }),
        };
        let cluster = json!({
            "server": format!("https://{}", self.address),
            "certificate-authority-data": encode(&self.authority.ca),
        });
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "own",
            "clusters": [{ "name": "own", "cluster": cluster }],
            "users": [{ "name": user, "user": own }],
            "contexts": [{ "name": "own", "context": { "cluster": "own", "user": user } }],
        });
        place::write_secret(path, &serde_saphyr::to_string(&file)?)
    }

    /// Makes an object of a manifest, as `kubectl create` would.
    ///
    /// # Errors
    /// It is refused.
    pub fn create(&self, namespace: &str, manifest: &Value) -> Result<()> {
        let kind = kind(manifest["kind"].as_str().unwrap_or_default())?;
        let writer = Writer { manager: "kubectl-create", subresource: None };
        self.server.store.create(kind, namespace, manifest.clone(), writer).map(drop).map_err(|one| refused(&one))
    }

    /// An object by its kind and name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, kind_name: &str, namespace: &str, name: &str) -> Result<Value> {
        let found = self.server.store.get(&kind(kind_name)?.key(namespace, name));
        found.with_context(|| format!("there is no {kind_name} {name}"))
    }

    /// Changes an object as somebody else would.
    ///
    /// # Errors
    /// There is none, or it is refused.
    pub fn change(
        &self,
        (kind_name, namespace, name): (&str, &str, &str),
        manager: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<()> {
        let kind = kind(kind_name)?;
        let writer = Writer { manager, subresource: None };
        let changed = self.server.store.update(kind, &kind.key(namespace, name), writer, |object| {
            change(object);
            Ok(())
        });
        changed.map(drop).map_err(|one| refused(&one))
    }

    /// Ready pods of a namespace.
    #[must_use]
    pub fn ready_pods(&self, namespace: &str) -> usize {
        let Some(pods) = Kind::named("Pod") else { return 0 };
        self.server.store.list(pods, namespace).0.iter().filter(|pod| controllers::is_ready(pod)).count()
    }

    /// Pods of a namespace, whatever their state.
    #[must_use]
    pub fn pods(&self, namespace: &str) -> usize {
        Kind::named("Pod").map_or(0, |pods| self.server.store.list(pods, namespace).0.len())
    }

    /// Sets how fast the machines are.
    pub fn pace(&self, pace: Pace) {
        self.server.inner().pace = pace;
    }

    /// Sets what starts and stops the real things behind workloads.
    pub fn hook(&self, hook: Hook) {
        self.server.inner().hook = Some(hook);
    }

    /// Ends it for good, and lets go of whatever its hook holds.
    pub async fn end(&self) {
        let tasks: Vec<_> = self.tasks().drain(..).collect();
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        self.server.store.compact();
        self.server.inner().hook = None;
    }

    /// Puts a chart into Git.
    pub fn push(&self, path: &str, chart: Chart) {
        let mut inner = self.server.inner();
        let revision = inner.git.get(path).map_or(0, |(revision, _)| *revision) + 1;
        inner.git.insert(path.to_owned(), (revision, chart));
    }

    /// Git cannot be reached.
    pub fn git_is_away(&self, away: bool) {
        self.server.inner().git_is_away = away;
    }

    /// Argo CD's controller does not run.
    pub fn argo_is_away(&self, away: bool) {
        self.server.inner().argo_is_away = away;
    }

    /// From now on somebody puts an Application's spec back to what it is now, as an ApplicationSet would.
    ///
    /// # Errors
    /// There is no such Application.
    pub fn generated(&self, namespace: &str, name: &str) -> Result<()> {
        let owner = json!([{
            "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", "name": "all", "uid": "0", "controller": true,
        }]);
        self.change(("Application", namespace, name), "argocd-applicationset-controller", |object| {
            object["metadata"]["ownerReferences"] = owner;
        })?;
        let spec = self.get("Application", namespace, name)?["spec"].clone();
        self.server.inner().generated.insert(name.to_owned(), spec);
        Ok(())
    }

    /// How often an Application was compared and synced.
    #[must_use]
    pub fn rounds(&self, name: &str) -> Rounds {
        self.server.inner().rounds.get(name).copied().unwrap_or_default()
    }

    /// All versions so far are forgotten: watches end with 410.
    pub fn compact(&self) {
        self.server.store.compact();
    }

    /// Before each of the next writes to this plural somebody else changes the object.
    pub fn interfere(&self, plural: &str, times: u32) {
        self.server.inner().interference.insert(plural.to_owned(), times);
    }

    /// Forbids a verb on a resource, as RBAC names them: `deployments.apps/scale`.
    pub fn forbid(&self, user: &str, verb: &str, resource: &str) {
        self.server.access.forbid(user, verb, resource);
    }

    /// From now on a user may only what the Roles and ClusterRoles of these manifests say; whom they are bound to is not looked
    /// at.
    ///
    /// # Errors
    /// They are no manifests.
    pub fn grant_only(&self, user: &str, manifests: &str) -> Result<()> {
        let manifests: Vec<Value> = serde_saphyr::from_multiple(manifests).context("these are no manifests")?;
        let is_role = |one: &Value| one["kind"] == "Role" || one["kind"] == "ClusterRole";
        let roles = manifests.into_iter().filter(is_role).collect();
        self.server.access.grant_only(user, roles);
        Ok(())
    }

    /// Knows a user no more (401).
    pub fn revoke(&self, user: &str) {
        self.server.access.revoke(user);
    }

    /// Everything is allowed to a user again.
    pub fn allow_all(&self, user: &str) {
        self.server.access.allow_all(user);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> Pace {
        self.inner().pace
    }

    fn hook(&self) -> Option<Hook> {
        self.inner().hook.clone()
    }

    fn argo_runs(&self) -> bool {
        !self.inner().argo_is_away
    }

    fn chart(&self, path: &str) -> Option<(String, Chart)> {
        let inner = self.inner();
        let found = inner.git.get(path).filter(|_| !inner.git_is_away);
        found.map(|(revision, chart)| (format!("{revision:040x}"), chart.clone()))
    }

    fn count(&self, application: &str, change: impl FnOnce(&mut Rounds)) {
        change(self.inner().rounds.entry(application.to_owned()).or_default());
    }

    /// True if whoever generates the Application had to put it back.
    fn put_back(&self, kind: Kind, key: &Key, application: &Value) -> bool {
        let wanted = self.inner().generated.get(&key.name).cloned();
        let Some(wanted) = wanted.filter(|wanted| application["spec"] != *wanted) else { return false };
        let writer = Writer { manager: "argocd-applicationset-controller", subresource: None };
        let put = self.store.update(kind, key, writer, |object| {
            object["spec"] = wanted;
            Ok(())
        });
        put.is_ok()
    }

    /// Lets somebody else be faster, if that was asked for.
    fn interfere(&self, kind: Kind, namespace: &str, name: &str) -> Result<(), Failure> {
        {
            let mut inner = self.inner();
            let Some(left) = inner.interference.get_mut(kind.plural).filter(|left| **left > 0) else { return Ok(()) };
            *left -= 1;
        }
        let writer = Writer { manager: "somebody", subresource: None };
        let key = kind.key(namespace, name);
        self.store.update(kind, &key, writer, |object| {
            object["metadata"]["annotations"]["somebody/was-here"] = json!(uuid::Uuid::new_v4().to_string());
            Ok(())
        })?;
        Ok(())
    }

    /// A namespace is gone, and all that was in it.
    fn empty(&self, namespace: &str) {
        for kind in store::KINDS {
            for object in self.store.list(kind, namespace).0 {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let _ = self.store.delete(&kind.key(namespace, name));
            }
        }
    }
}

fn kind(name: &str) -> Result<Kind> {
    Kind::named(name).with_context(|| format!("this server knows no {name}"))
}

fn refused(failure: &Failure) -> anyhow::Error {
    anyhow!("the API server refuses: {}", failure.status()["message"])
}

/// A Deployment of one container, for tests.
#[must_use]
pub fn deployment(name: &str, replicas: Value) -> Value {
    workload("Deployment", name, replicas)
}

/// A StatefulSet of one container, for tests.
#[must_use]
pub fn stateful_set(name: &str, replicas: Value) -> Value {
    workload("StatefulSet", name, replicas)
}

fn workload(kind: &str, name: &str, replicas: Value) -> Value {
    let pod = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": "busybox:1", "command": ["sleep", "3600"] }],
    });
    let mut spec = json!({
        "replicas": replicas,
        "selector": { "matchLabels": { "app": name } },
        "template": { "metadata": { "labels": { "app": name } }, "spec": pod },
    });
    if kind == "StatefulSet" {
        spec["serviceName"] = json!(name);
    }
    json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "labels": { "app": name } }, "spec": spec })
}

/// An Argo CD Application that heals itself, of a path in Git, for a namespace.
#[must_use]
pub fn application(name: &str, path: &str, namespace: &str, source: &Value) -> Value {
    let mut whole = json!({ "repoURL": "file:///git", "path": path, "targetRevision": "HEAD" });
    fields::merge(&mut whole, source);
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": { "name": name, "namespace": "argocd" },
        "spec": {
            "project": "default",
            "source": whole,
            "destination": { "server": "https://kubernetes.default.svc", "namespace": namespace },
            "syncPolicy": { "automated": { "selfHeal": true, "prune": true } },
        },
    })
}
