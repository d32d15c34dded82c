//! Argo CD, as far as it matters to whoever changes what it manages.
//!
//! As in its application controller: an Application is compared by its source, overrides of Helm or Kustomize included,
//! and without what `ignoreDifferences` takes out. What is out of sync is synced if that is automated: at once where
//! revision or source differ from those of the last sync, and else only with `selfHeal` and after a time-out. A sync
//! writes all that is rendered, ignored fields, too, unless it has `RespectIgnoreDifferences=true`.
//!
//! Git is a map from paths to charts. What is not here: hooks, waves, pruning, projects, retries, several clusters, and
//! any difference between client-side and server-side apply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Server;
use super::controllers::text;
use super::failure::Failure;
use super::fields::{self, Path};
use super::store::{Key, Kind, Writer};

/// Between two rounds when nothing happens.
const BEAT: Duration = Duration::from_millis(50);
/// From a sync to the next by self-heal; real ones take five seconds.
const SELF_HEAL: Duration = Duration::from_millis(200);
const OWN: Writer<'_> = Writer { manager: "argocd-application-controller", subresource: None };
const SYNC: Writer<'_> = Writer { manager: "argocd-controller", subresource: None };
const TRACKING: &str = "argocd.argoproj.io/tracking-id";

/// What is at one path of the repository.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Manifests. A text that is `{{name}}` as a whole is replaced by that value.
    pub manifests: Vec<Value>,
    /// Values, unless parameters say otherwise.
    pub values: BTreeMap<String, String>,
}

/// Of one Application.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rounds {
    /// How often it was compared.
    pub compared: u64,
    /// How often it was synced.
    pub synced: u64,
    /// How often by self-heal.
    pub healed: u64,
}

pub(super) async fn run(server: Arc<Server>) {
    let Some(kind) = Kind::named("Application") else { return };
    let mut synced: BTreeMap<Key, Instant> = BTreeMap::new();
    loop {
        if server.argo_runs() {
            for application in server.store.list(kind, "").0 {
                let metadata = &application["metadata"];
                let key = kind.key(text(&metadata["namespace"]), text(&metadata["name"]));
                if server.put_back(kind, &key, &application) {
                    continue;
                }
                round(&server, kind, &key, &application, &mut synced);
            }
        }
        tokio::time::sleep(BEAT).await;
    }
}

fn round(server: &Server, kind: Kind, key: &Key, application: &Value, synced: &mut BTreeMap<Key, Instant>) {
    let spec = &application["spec"];
    let source = &spec["source"];
    let rendered = server.chart(text(&source["path"])).map(|(revision, chart)| (revision, render(&chart, source)));
    let compared_to = json!({
        "source": source, "destination": spec["destination"], "ignoreDifferences": spec["ignoreDifferences"],
    });
    let Some((revision, targets)) = rendered else {
        // What it cannot render it neither compares nor syncs.
        let _ = server.store.update(kind, key, OWN, |object| {
            object["status"]["sync"] = json!({ "status": "Unknown", "comparedTo": compared_to });
            object["status"]["conditions"] =
                json!([{ "type": "ComparisonError", "message": "Failed to load target state: the repository cannot be reached" }]);
            Ok(())
        });
        return;
    };
    let found: Vec<Found> = targets.iter().map(|target| Found::look(server, spec, target)).collect();
    let resources: Vec<Value> = found.iter().map(Found::status).collect();
    let in_sync = found.iter().all(|one| one.differing.is_empty());
    let health = if found.iter().all(Found::is_healthy) { "Healthy" } else { "Progressing" };
    let word = if in_sync { "Synced" } else { "OutOfSync" };
    let _ = server.store.update(kind, key, OWN, |object| {
        let status = &mut object["status"];
        status["sync"] = json!({ "status": word, "comparedTo": compared_to, "revision": revision });
        status["health"] = json!({ "status": health });
        status["resources"] = json!(resources);
        status["conditions"] = json!([]);
        Ok(())
    });
    server.count(&key.name, |rounds| rounds.compared += 1);

    let operation = &application["operation"];
    if operation.is_object() {
        sync(server, kind, key, spec, &revision, &found.iter().collect::<Vec<_>>());
        synced.insert(key.clone(), Instant::now());
        return;
    }
    let automated = &spec["syncPolicy"]["automated"];
    if !automated.is_object() || automated["enabled"] == false || in_sync {
        return;
    }
    let last = &application["status"]["operationState"];
    let attempted = last["syncResult"]["revision"] == revision.as_str() && last["syncResult"]["source"] == *source;
    if !attempted {
        sync(server, kind, key, spec, &revision, &found.iter().collect::<Vec<_>>());
        synced.insert(key.clone(), Instant::now());
    } else if last["phase"] == "Succeeded" && automated["selfHeal"] == true {
        if synced.get(key).is_some_and(|at| at.elapsed() < SELF_HEAL) {
            return;
        }
        let differing: Vec<&Found> = found.iter().filter(|one| !one.differing.is_empty()).collect();
        sync(server, kind, key, spec, &revision, &differing);
        server.count(&key.name, |rounds| rounds.healed += 1);
        synced.insert(key.clone(), Instant::now());
    }
}

/// A target and what is live of it.
struct Found<'t> {
    kind: Kind,
    key: Key,
    target: &'t Value,
    live: Option<Value>,
    ignored: BTreeSet<Path>,
    differing: Vec<Path>,
}

impl<'t> Found<'t> {
    fn look(server: &Server, spec: &Value, target: &'t Value) -> Self {
        let kind = Kind::named(text(&target["kind"])).unwrap_or(super::store::KINDS[1]);
        let own = text(&target["metadata"]["namespace"]);
        let namespace = if own.is_empty() { text(&spec["destination"]["namespace"]) } else { own };
        let key = kind.key(namespace, text(&target["metadata"]["name"]));
        let live = server.store.get(&key);
        let ignored = ignored(spec, kind, &key);
        let leaves = fields::leaves(target);
        let differs = |path: &Path, value: &Value| match &live {
            None => true,
            Some(live) => fields::at(live, path) != Some(value) && !ignored.contains(path),
        };
        let differing =
            leaves.iter().filter(|(path, value)| differs(path, value)).map(|(path, _)| path.clone()).collect();
        Self { kind, key, target, live, ignored, differing }
    }

    fn status(&self) -> Value {
        json!({
            "group": self.kind.group,
            "version": self.kind.version,
            "kind": self.kind.kind,
            "namespace": self.key.namespace,
            "name": self.key.name,
            "status": if self.differing.is_empty() { "Synced" } else { "OutOfSync" },
        })
    }

    fn is_healthy(&self) -> bool {
        let Some(live) = &self.live else { return false };
        let asked = live["spec"]["replicas"].as_i64();
        asked.is_none_or(|asked| live["status"]["availableReplicas"].as_i64().unwrap_or(0) >= asked)
    }
}

fn sync(server: &Server, kind: Kind, key: &Key, spec: &Value, revision: &str, found: &[&Found<'_>]) {
    let options = spec["syncPolicy"]["syncOptions"].as_array().into_iter().flatten();
    let respects = options.into_iter().any(|option| option == "RespectIgnoreDifferences=true");
    let mut failed = None;
    for one in found {
        let (group, name) = (one.kind.group, one.kind.kind);
        let mark = format!("{}:{group}/{name}:{}/{}", key.name, one.key.namespace, one.key.name);
        let written = match one.live {
            None => {
                let mut target = one.target.clone();
                target["metadata"]["annotations"][TRACKING] = json!(mark);
                server.store.create(one.kind, &one.key.namespace, target, SYNC)
            }
            Some(_) => server.store.update(one.kind, &one.key, SYNC, |live| {
                for (path, value) in fields::leaves(one.target) {
                    if !(respects && one.ignored.contains(&path)) {
                        fields::put(live, &path, value.clone());
                    }
                }
                live["metadata"]["annotations"][TRACKING] = json!(mark);
                Ok(())
            }),
        };
        failed = failed.or(written.err());
    }
    server.count(&key.name, |rounds| rounds.synced += 1);
    let phase = if failed.is_none() { "Succeeded" } else { "Failed" };
    let message = failed.map(|failure: Failure| failure.status()["message"].clone()).unwrap_or_default();
    let _ = server.store.update(kind, key, OWN, |object| {
        object["status"]["operationState"] = json!({
            "phase": phase, "message": message, "syncResult": { "revision": revision, "source": spec["source"] },
        });
        if let Some(fields) = object.as_object_mut() {
            fields.remove("operation");
        }
        Ok(())
    });
}

/// What the source makes of a chart.
fn render(chart: &Chart, source: &Value) -> Vec<Value> {
    let mut values = chart.values.clone();
    for parameter in source["helm"]["parameters"].as_array().into_iter().flatten() {
        values.insert(text(&parameter["name"]).to_owned(), text(&parameter["value"]).to_owned());
    }
    let mut manifests = chart.manifests.clone();
    manifests.iter_mut().for_each(|manifest| fill(manifest, &values));
    for replica in source["kustomize"]["replicas"].as_array().into_iter().flatten() {
        let count = replica["count"].as_i64().or_else(|| text(&replica["count"]).parse().ok()).unwrap_or(0);
        let named = manifests.iter_mut().filter(|manifest| manifest["metadata"]["name"] == replica["name"]);
        named.for_each(|manifest| manifest["spec"]["replicas"] = json!(count));
    }
    manifests
}

fn fill(value: &mut Value, values: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            let name = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            if let Some(filled) = name.and_then(|name| values.get(name)) {
                *value = serde_json::from_str(filled).unwrap_or_else(|_| json!(filled));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, values)),
        Value::Object(fields) => fields.values_mut().for_each(|item| fill(item, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The paths that `ignoreDifferences` takes out of an object.
fn ignored(spec: &Value, kind: Kind, key: &Key) -> BTreeSet<Path> {
    let entries = spec["ignoreDifferences"].as_array().into_iter().flatten();
    let matches = |said: &Value, own: &str, open: bool| match text(said) {
        "*" => true,
        "" => open,
        said => said == own,
    };
    let own = entries.filter(|entry| {
        matches(&entry["group"], kind.group, kind.group.is_empty())
            && matches(&entry["kind"], kind.kind, false)
            && matches(&entry["name"], &key.name, true)
            && matches(&entry["namespace"], &key.namespace, true)
    });
    let pointers = own.flat_map(|entry| entry["jsonPointers"].as_array().into_iter().flatten());
    pointers
        .map(|pointer| {
            text(pointer).split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
        })
        .collect()
}
