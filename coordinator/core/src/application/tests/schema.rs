//! The schema and the reader know the same keys.

use serde_json::Value;

use crate::application::draft::{
    AUTOMATION_KEYS, DOCUMENT_KEYS, DRILLS_KEYS, METADATA_KEYS, OBJECTIVES_KEYS, OPTION_KEYS, RESOURCE_KEYS, RUN_KEYS,
    RUNBOOK_KEYS, SPEC_KEYS,
};
use crate::application::{Action, json_schema};

fn at<'v>(schema: &'v Value, pointer: &str) -> &'v Value {
    schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in the schema"))
}

#[test]
fn every_key_is_in_both_and_explained() {
    let schema = json_schema();
    let spec = "/properties/spec";
    let resource = format!("{spec}/properties/resources/additionalProperties");
    let line = format!("{spec}/properties/runbooks/properties/failover/items");
    let line_keys: Vec<&str> =
        Action::ALL.iter().map(|action| action.as_str()).chain(OPTION_KEYS.iter().copied()).collect();
    for (pointer, keys) in [
        ("", DOCUMENT_KEYS),
        ("/properties/metadata", METADATA_KEYS),
        (spec, SPEC_KEYS),
        (&format!("{spec}/properties/objectives"), OBJECTIVES_KEYS),
        (&format!("{spec}/properties/drills"), DRILLS_KEYS),
        (&resource, RESOURCE_KEYS),
        (&format!("{spec}/properties/automation"), AUTOMATION_KEYS),
        (&format!("{spec}/properties/runbooks"), RUNBOOK_KEYS),
        (&line, &line_keys),
        (&format!("{line}/properties/run"), RUN_KEYS),
    ] {
        let mapping = at(&schema, pointer);
        assert_eq!(mapping["additionalProperties"], Value::Bool(false), "{pointer}");
        let properties = mapping["properties"].as_object().unwrap();
        let mut known = keys.to_vec();
        known.sort_unstable();
        let mut described: Vec<&str> = properties.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, known, "{pointer}");
        for (key, property) in properties {
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 8), "{pointer} {key}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let schema = json_schema();
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        at(&schema, reference.strip_prefix('#').unwrap());
    }
}

#[test]
fn defaults_are_documented() {
    let schema = json_schema();
    let automation = at(&schema, "/properties/spec/properties/automation/properties");
    for (key, default) in [
        ("mode", "approve"),
        ("failoverAfter", "1m"),
        ("cooldown", "1h"),
        ("beyondMaxDataLoss", "ask"),
        ("maxWriteOutage", "30s"),
        ("onSilence", "refuse"),
        ("approveWithin", "1h"),
        ("onCoordinatorLoss", "failsafe"),
    ] {
        assert_eq!(automation[key]["default"], default, "{key}");
    }
    assert_eq!(automation["probeFailures"]["default"], 3);
    let line = at(&schema, "/properties/spec/properties/runbooks/properties/failover/items/properties");
    let timeout = line["timeout"]["description"].as_str().unwrap();
    assert!(timeout.contains("promote 1m") && timeout.contains("activate 2m"), "{timeout}");
    let retries = line["retries"]["description"].as_str().unwrap();
    assert!(retries.contains("verify 10"), "{retries}");
}
