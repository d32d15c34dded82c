//! Fields of objects: who owns them, and what merges do to them.
//!
//! Maps are entered, everything else is a leaf: lists are owned as a whole, which is coarser than a real server, where
//! containers and ports are owned one by one. Nothing here depends on those.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// From the root of the object.
pub(super) type Path = Vec<String>;

/// One who has written to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) name: String,
    /// It applied; else it updated.
    pub(super) applies: bool,
    pub(super) subresource: Option<&'static str>,
    pub(super) fields: BTreeSet<Path>,
}

impl Manager {
    /// As conflicts name it.
    pub(super) fn shown(&self, version: &str) -> String {
        let subresource = self.subresource.map(|name| format!(" with subresource {name:?}")).unwrap_or_default();
        let using = if self.applies { String::new() } else { format!(" using {version}") };
        format!("{:?}{subresource}{using}", self.name)
    }
}

/// What nobody owns.
const FREE: [&str; 7] =
    ["name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"];

/// Every leaf that can be owned.
pub(super) fn leaves(object: &Value) -> BTreeMap<Path, &Value> {
    let mut found = BTreeMap::new();
    let Some(fields) = object.as_object() else { return found };
    for (key, value) in fields.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")) {
        collect(vec![key.clone()], value, &mut found);
    }
    found.retain(|path, _| !(path[0] == "metadata" && path.get(1).is_some_and(|name| FREE.contains(&name.as_str()))));
    found
}

fn collect<'v>(path: Path, value: &'v Value, found: &mut BTreeMap<Path, &'v Value>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        None => {
            found.insert(path, value);
        }
        Some(fields) => {
            for (key, inner) in fields {
                let mut path = path.clone();
                path.push(key.clone());
                collect(path, inner, found);
            }
        }
    }
}

/// The value at a path.
pub(super) fn at<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// Puts a value at a path.
pub(super) fn put(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[key.as_str()];
    }
    *place = value;
}

/// Removes what is at a path.
pub(super) fn remove(object: &mut Value, path: &[String]) {
    let Some((last, folders)) = path.split_last() else { return };
    let place = folders.iter().try_fold(object, |value, key| value.get_mut(key));
    if let Some(fields) = place.and_then(Value::as_object_mut) {
        fields.remove(last);
    }
}

/// RFC 7386.
pub(super) fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (key, value) in fields {
        match (value, object.as_object_mut()) {
            (Value::Null, Some(own)) => drop(own.remove(key)),
            (value, Some(own)) => merge(own.entry(key.clone()).or_insert(Value::Null), value),
            (_, None) => {}
        }
    }
}

/// As `metadata.managedFields` shows them.
pub(super) fn shown(managers: &[Manager], version: &str) -> Value {
    let all = managers.iter().filter(|manager| !manager.fields.is_empty());
    all.map(|manager| {
        let mut fields = json!({});
        for path in &manager.fields {
            let names: Path = path.iter().map(|key| format!("f:{key}")).collect();
            put(&mut fields, &names, json!({}));
        }
        let mut entry = json!({
            "manager": manager.name,
            "operation": if manager.applies { "Apply" } else { "Update" },
            "apiVersion": version,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        });
        if let Some(subresource) = manager.subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    })
    .collect()
}

/// Takes note of an update: what was changed is the writer's, and no longer anybody else's.
pub(super) fn updated(
    managers: &mut Vec<Manager>,
    old: &Value,
    new: &Value,
    name: &str,
    subresource: Option<&'static str>,
) {
    let (before, after) = (leaves(old), leaves(new));
    let changed: BTreeSet<Path> =
        after.iter().filter(|(path, value)| before.get(*path) != Some(value)).map(|(path, _)| path.clone()).collect();
    let gone: BTreeSet<Path> = before.keys().filter(|path| !after.contains_key(*path)).cloned().collect();
    for manager in managers.iter_mut() {
        manager.fields.retain(|path| !gone.contains(path) && !changed.contains(path));
    }
    own(managers, name, false, subresource).fields.extend(changed);
}

/// The entry of a manager, made if there is none.
pub(super) fn own<'m>(
    managers: &'m mut Vec<Manager>,
    name: &str,
    applies: bool,
    subresource: Option<&'static str>,
) -> &'m mut Manager {
    let is_it =
        |manager: &Manager| manager.name == name && manager.applies == applies && manager.subresource == subresource;
    let index = managers.iter().position(is_it).unwrap_or_else(|| {
        managers.push(Manager { name: name.to_owned(), applies, subresource, fields: BTreeSet::new() });
        managers.len() - 1
    });
    &mut managers[index]
}
