//! What a new document changes, path by path.

use regent_core::application::{Application, to_yaml};
use regent_proto::operator::v1::Change;
use serde_json::Value;

/// What a new document changes, by path; none before: everything is new, and nothing is listed.
pub(super) fn changes(before: Option<&Application>, after: &Application) -> Vec<Change> {
    let mut found = Vec::new();
    if let Some(before) = before {
        compare("", tree(before).as_ref(), tree(after).as_ref(), &mut found);
    }
    found
}

/// The document as its reader sees it, with every default spelled out.
fn tree(application: &Application) -> Option<Value> {
    serde_saphyr::from_str(&to_yaml(application)).ok()
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
    use regent_core::application::parse;
    use serde_json::json;

    use super::*;

    const SHOP: &str = include_str!("../../../core/src/application/sample.yaml");

    #[test]
    fn a_changed_setting_is_one_change() {
        let before = parse(SHOP).unwrap();
        let after = parse(&SHOP.replace("failoverAfter: 10s", "failoverAfter: 20s")).unwrap();
        let found = changes(Some(&before), &after);
        let found: Vec<_> =
            found.iter().map(|one| (one.path.as_str(), one.before.as_str(), one.after.as_str())).collect();
        assert_eq!(found, [("spec.automation.failoverAfter", "10s", "20s")]);
        assert!(changes(Some(&before), &before).is_empty());
        assert!(changes(None, &before).is_empty());
    }

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
