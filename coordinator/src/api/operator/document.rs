//! An accepted Application in the form of its document again, with every default written out, and what a new one
//! changes.

use regent_core::application::{Application, Beyond, Line, Resource};
use regent_proto::operator::v1::Change;
use serde_json::{Map, Value, json};

use crate::api::convert::action;

/// The document as the parser would read it back.
pub(super) fn render(application: &Application) -> Value {
    let automation = &application.automation;
    let resources: Map<String, Value> =
        application.resources.iter().map(|(id, spec)| (id.to_string(), resource(spec))).collect();
    let runbooks: Map<String, Value> = application
        .runbooks
        .iter()
        .map(|(name, runbook)| (name.clone(), runbook.lines.iter().map(line).collect()))
        .collect();
    json!({
        "apiVersion": "regent/v1",
        "kind": "Application",
        "metadata": { "name": application.name },
        "spec": {
            "objectives": { "rto": application.objectives.rto, "rpo": application.objectives.rpo },
            "clusters": application.clusters,
            "resources": resources,
            "automation": {
                "mode": automation.mode,
                "failoverAfter": automation.bound.fail_over_after,
                "fenceBudget": automation.bound.fence_budget,
                "cooldown": automation.cooldown,
                "maxDataLoss": automation.max_data_loss,
                "beyondMaxDataLoss": beyond(automation.beyond_max_data_loss),
                "onCoordinatorLoss": automation.on_coordinator_loss,
                "probeFailures": automation.probe_failures,
            },
            "runbooks": runbooks,
        },
    })
}

fn resource(spec: &Resource) -> Value {
    let mut fields = Map::new();
    fields.insert("kind".to_owned(), json!(spec.kind));
    if !spec.after.is_empty() {
        fields.insert("after".to_owned(), json!(spec.after));
    }
    if let Some(dns) = &spec.dns {
        fields.insert("name".to_owned(), json!(dns.name));
        fields.insert("ttl".to_owned(), json!(dns.ttl));
        fields.insert("provider".to_owned(), json!(dns.provider));
    }
    Value::Object(fields)
}

fn beyond(beyond: Beyond) -> String {
    match beyond {
        Beyond::Refuse => "refuse".to_owned(),
        Beyond::Wait(span) => format!("wait {span}"),
        Beyond::Ask => "ask".to_owned(),
        Beyond::Accept => "accept".to_owned(),
    }
}

fn line(line: &Line) -> Value {
    let mut fields = Map::new();
    let what = line.duration.map_or_else(|| json!(line.resources), |duration| json!(duration));
    fields.insert(action(line.action).to_owned(), what);
    if !line.command.is_empty() {
        fields.insert("command".to_owned(), json!(line.command));
    }
    fields.insert("timeout".to_owned(), json!(line.timeout));
    fields.insert("retries".to_owned(), json!(line.retries));
    fields.insert("onFailure".to_owned(), json!(line.on_failure));
    if let Some(when) = line.when {
        fields.insert("when".to_owned(), json!(when));
    }
    Value::Object(fields)
}

/// What a new document changes, by path; none before: everything is new, and nothing is listed.
pub(super) fn changes(before: Option<&Application>, after: &Application) -> Vec<Change> {
    let mut found = Vec::new();
    if let Some(before) = before {
        compare("", Some(&render(before)), Some(&render(after)), &mut found);
    }
    found
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, after) {
        for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&inner, old.get(key), new.get(key), found);
        }
        return;
    }
    let text = |value: Option<&Value>| match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    found.push(Change { path: path.to_owned(), before: text(before), after: text(after) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_their_path_and_both_values() {
        let mut found = Vec::new();
        let before = json!({"a": {"b": "60s", "c": 1}, "gone": [1]});
        let after = json!({"a": {"b": "10s", "c": 1}, "new": true});
        compare("", Some(&before), Some(&after), &mut found);
        let found: Vec<_> =
            found.iter().map(|one| (one.path.as_str(), one.before.as_str(), one.after.as_str())).collect();
        assert_eq!(found, [("a.b", "60s", "10s"), ("gone", "[1]", ""), ("new", "", "true")]);
    }
}
