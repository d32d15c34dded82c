//! The objects, with versions that only rise, and the events from which watches go on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::failure::Failure;
use super::fields::{self, Manager};

/// A kind of object that the server knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    /// Its status is a subresource: other writes leave it as it is.
    pub(super) status: bool,
    pub(super) scale: bool,
}

const fn kind(group: &'static str, plural: &'static str, kind: &'static str, status: bool, scale: bool) -> Kind {
    Kind { group, version: "v1", plural, kind, status, scale }
}

/// All of them.
pub(super) const KINDS: [Kind; 9] = [
    kind("", "namespaces", "Namespace", true, false),
    kind("", "pods", "Pod", true, false),
    kind("", "resourcequotas", "ResourceQuota", true, false),
    kind("apps", "deployments", "Deployment", true, true),
    kind("apps", "statefulsets", "StatefulSet", true, true),
    kind("batch", "cronjobs", "CronJob", true, false),
    kind("batch", "jobs", "Job", true, false),
    // Its CRD has no subresources.
    Kind { version: "v1alpha1", ..kind("argoproj.io", "applications", "Application", false, false) },
    // Nothing is scheduled to them: a pod is on one if its spec says so.
    kind("", "nodes", "Node", true, false),
];

impl Kind {
    /// By its plural.
    pub(super) fn of(group: &str, plural: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.group == group && kind.plural == plural)
    }

    /// By its name in a manifest.
    pub(super) fn named(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.kind == name)
    }

    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// As messages and RBAC name it.
    pub(super) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(super) fn key(&self, namespace: &str, name: &str) -> Key {
        Key { plural: self.plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) plural: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) manager: &'a str,
    pub(super) subresource: Option<&'static str>,
}

/// What happened to an object.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) version: u64,
    pub(super) word: &'static str,
    pub(super) key: Key,
    pub(super) object: Value,
}

#[derive(Clone)]
struct Object {
    value: Value,
    managers: Vec<Manager>,
}

#[derive(Clone, Default)]
struct Inner {
    version: u64,
    /// Events up to this version are gone.
    compacted: u64,
    objects: BTreeMap<Key, Object>,
    events: VecDeque<Event>,
}

/// See the module.
pub(super) struct Store {
    inner: Mutex<Inner>,
    news: watch::Sender<u64>,
}

impl Store {
    pub(super) fn new() -> Self {
        // Real versions do not begin at 1.
        let inner = Inner { version: 1000, compacted: 1000, ..Inner::default() };
        Self { inner: Mutex::new(inner), news: watch::Sender::new(1000) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same objects, which nobody watches: for what is tried, and not kept.
    pub(super) fn copy(&self) -> Self {
        let inner = self.inner().clone();
        let version = inner.version;
        Self { inner: Mutex::new(inner), news: watch::Sender::new(version) }
    }

    /// Hears of every change.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Forgets all events: watches that lag must list anew.
    pub(super) fn compact(&self) {
        let mut inner = self.inner();
        // A version that nobody has seen: every watch that is open lags by it.
        inner.version += 1;
        inner.compacted = inner.version;
        inner.events.clear();
        let version = inner.version;
        drop(inner);
        self.news.send_replace(version);
    }

    pub(super) fn get(&self, key: &Key) -> Option<Value> {
        self.inner().objects.get(key).map(|object| object.value.clone())
    }

    /// Of a kind, in a namespace or everywhere; and the version at which that is so.
    pub(super) fn list(&self, kind: Kind, namespace: &str) -> (Vec<Value>, u64) {
        let inner = self.inner();
        let of = |key: &Key| key.plural == kind.plural && (namespace.is_empty() || key.namespace == namespace);
        let found = inner.objects.iter().filter(|(key, _)| of(key)).map(|(_, object)| object.value.clone());
        (found.collect(), inner.version)
    }

    /// What happened since a version, and up to which.
    pub(super) fn since(&self, version: u64) -> Result<(Vec<Event>, u64), Failure> {
        let inner = self.inner();
        if version < inner.compacted {
            return Err(Failure::expired());
        }
        let new = inner.events.iter().filter(|event| event.version > version).cloned().collect();
        Ok((new, inner.version))
    }

    pub(super) fn create(
        &self,
        kind: Kind,
        namespace: &str,
        mut value: Value,
        writer: Writer<'_>,
    ) -> Result<Value, Failure> {
        let stem = value["metadata"]["generateName"].as_str().map(|stem| {
            let unique = uuid::Uuid::new_v4().simple().to_string();
            format!("{stem}{}", unique.get(..5).unwrap_or_default())
        });
        let name = value["metadata"]["name"].as_str().map(str::to_owned).or(stem);
        let Some(name) = name else {
            return Err(Failure::new(
                422,
                "Invalid",
                "metadata.name: Required value: name or generateName is required",
            ));
        };
        check(kind, &name, &value)?;
        let key = kind.key(namespace, &name);
        let mut inner = self.inner();
        if inner.objects.contains_key(&key) {
            let message = format!("{} \"{name}\" already exists", kind.resource());
            return Err(Failure::new(409, "AlreadyExists", message));
        }
        value["apiVersion"] = json!(kind.api_version());
        value["kind"] = json!(kind.kind);
        let metadata = &mut value["metadata"];
        metadata["name"] = json!(name);
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!(now());
        if kind.status
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("status");
        }
        let mut managers = Vec::new();
        fields::updated(&mut managers, &json!({}), &value, writer.manager, writer.subresource);
        Ok(self.keep(&mut inner, kind, key, value, managers, "ADDED"))
    }

    /// Changes an object by the rules: the version that is given must be the present one, what is not the writer's to
    /// change stays, a change of the spec is a new generation, and no change makes no version.
    pub(super) fn update(
        &self,
        kind: Kind,
        key: &Key,
        writer: Writer<'_>,
        change: impl FnOnce(&mut Value) -> Result<(), Failure>,
    ) -> Result<Value, Failure> {
        let mut inner = self.inner();
        let Some(object) = inner.objects.get(key) else { return Err(Failure::missing(&kind.resource(), &key.name)) };
        let (old, mut managers) = (object.value.clone(), object.managers.clone());
        let mut new = old.clone();
        change(&mut new)?;
        settle(kind, &old, &mut new, writer.subresource)?;
        if same(&old, &new) {
            return Ok(old);
        }
        fields::updated(&mut managers, &old, &new, writer.manager, writer.subresource);
        Ok(self.keep(&mut inner, kind, key.clone(), new, managers, "MODIFIED"))
    }

    /// Server-side apply: what is applied is owned by the manager; what another owns and has otherwise is a conflict,
    /// unless forced; what the manager applied before and does not any more is removed.
    pub(super) fn apply(
        &self,
        kind: Kind,
        key: &Key,
        manager: &str,
        force: bool,
        applied: &Value,
    ) -> Result<Value, Failure> {
        let mut inner = self.inner();
        let Some(object) = inner.objects.get(key) else {
            drop(inner);
            if applied["metadata"]["resourceVersion"].is_string() || applied["metadata"]["uid"].is_string() {
                return Err(Failure::changed(&kind.resource(), &key.name));
            }
            return self.create(kind, &key.namespace, applied.clone(), Writer { manager, subresource: None });
        };
        let (old, mut managers) = (object.value.clone(), object.managers.clone());
        let wanted = fields::leaves(applied);
        let is_own = |one: &Manager| one.name == manager && one.applies && one.subresource.is_none();
        let mut conflicts = Vec::new();
        for (path, value) in &wanted {
            if fields::at(&old, path) == Some(*value) {
                continue;
            }
            let others = managers.iter().filter(|one| !is_own(one) && one.fields.contains(path));
            conflicts.extend(others.map(|one| (one.shown(&kind.api_version()), format!(".{}", path.join(".")))));
        }
        if !force && !conflicts.is_empty() {
            return Err(Failure::owned(&conflicts));
        }
        let mut new = old.clone();
        let before = fields::own(&mut managers, manager, true, None).fields.clone();
        for path in before.iter().filter(|path| !wanted.contains_key(*path)) {
            if !managers.iter().any(|one| !is_own(one) && one.fields.contains(path)) {
                fields::remove(&mut new, path);
            }
        }
        for (path, value) in &wanted {
            if fields::at(&old, path) != Some(*value) {
                managers.iter_mut().for_each(|one| one.fields.retain(|own| own != path));
            }
            fields::put(&mut new, path, (*value).clone());
        }
        if let Some(version) = applied["metadata"]["resourceVersion"].as_str() {
            new["metadata"]["resourceVersion"] = json!(version);
        }
        settle(kind, &old, &mut new, None)?;
        let own = fields::own(&mut managers, manager, true, None);
        let fields: std::collections::BTreeSet<fields::Path> = wanted.into_keys().collect();
        if same(&old, &new) && own.fields == fields {
            return Ok(old);
        }
        own.fields = fields;
        Ok(self.keep(&mut inner, kind, key.clone(), new, managers, "MODIFIED"))
    }

    pub(super) fn delete(&self, key: &Key) -> Option<Value> {
        let mut inner = self.inner();
        let mut value = inner.objects.remove(key)?.value;
        inner.version += 1;
        let version = inner.version;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        inner.events.push_back(Event { version, word: "DELETED", key: key.clone(), object: value.clone() });
        drop(inner);
        self.news.send_replace(version);
        Some(value)
    }

    fn keep(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        kind: Kind,
        key: Key,
        mut value: Value,
        managers: Vec<Manager>,
        word: &'static str,
    ) -> Value {
        inner.version += 1;
        let version = inner.version;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        value["metadata"]["managedFields"] = fields::shown(&managers, &kind.api_version());
        inner.events.push_back(Event { version, word, key: key.clone(), object: value.clone() });
        inner.objects.insert(key, Object { value: value.clone(), managers });
        self.news.send_replace(version);
        value
    }
}

/// What every write is held to.
fn settle(kind: Kind, old: &Value, new: &mut Value, subresource: Option<&'static str>) -> Result<(), Failure> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let given = new["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if !given.is_empty() && old["metadata"]["resourceVersion"] != given {
        return Err(Failure::changed(&kind.resource(), name));
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "generation", "managedFields", "resourceVersion"] {
        match (old["metadata"].get(field), new["metadata"].as_object_mut()) {
            (Some(value), _) => new["metadata"][field] = value.clone(),
            (None, Some(fields)) => drop(fields.remove(field)),
            (None, None) => {}
        }
    }
    match subresource {
        Some("status") => {
            let status = new["status"].take();
            *new = old.clone();
            new["status"] = status;
        }
        Some(_) | None if kind.status => match (old.get("status"), new.as_object_mut()) {
            (Some(status), _) => new["status"] = status.clone(),
            (None, Some(fields)) => drop(fields.remove("status")),
            (None, None) => {}
        },
        Some(_) | None => {}
    }
    if old.get("spec") != new.get("spec") {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = json!(generation + 1);
        check(kind, name, new)?;
    }
    Ok(())
}

fn same(old: &Value, new: &Value) -> bool {
    let bare = |value: &Value| {
        let mut value = value.clone();
        value["metadata"]["managedFields"] = Value::Null;
        value["metadata"]["resourceVersion"] = Value::Null;
        value
    };
    bare(old) == bare(new)
}

/// What a real server refuses, as far as a driver could get it wrong.
fn check(kind: Kind, name: &str, value: &Value) -> Result<(), Failure> {
    let spec = &value["spec"];
    let wrong = match kind.plural {
        "deployments" | "statefulsets" if !spec["selector"]["matchLabels"].is_object() => {
            Some("spec.selector: Required value")
        }
        "deployments" | "statefulsets" if !spec["template"]["spec"]["containers"].is_array() => {
            Some("spec.template.spec.containers: Required value")
        }
        "deployments" | "statefulsets" if spec["replicas"].as_i64().is_some_and(|replicas| replicas < 0) => {
            Some("spec.replicas: Invalid value: must be greater than or equal to 0")
        }
        "cronjobs" if !spec["schedule"].is_string() => Some("spec.schedule: Required value"),
        "jobs" if !spec["template"]["spec"]["containers"].is_array() => {
            Some("spec.template.spec.containers: Required value")
        }
        "applications" if !spec["destination"].is_object() => Some("spec.destination: Required value"),
        _ => None,
    };
    wrong.map_or(Ok(()), |wrong| {
        Err(Failure::new(422, "Invalid", format!("{} \"{name}\" is invalid: {wrong}", kind.kind)))
    })
}

/// As timestamps of objects are written.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
