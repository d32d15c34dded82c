//! What the server answers when it does not do what it is asked, as real servers word it.

use serde_json::{Value, json};

/// A `Status` of failure.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    causes: Vec<Value>,
}

impl Failure {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), causes: Vec::new() }
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(super) fn missing(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
    }

    pub(super) fn changed(resource: &str, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {resource} \"{name}\": the object has been modified; please apply your \
             changes to the latest version and try again"
        );
        Self::new(409, "Conflict", message)
    }

    /// Fields that other managers own, each with who does.
    pub(super) fn owned(conflicts: &[(String, String)]) -> Self {
        let named: Vec<String> = conflicts.iter().map(|(by, field)| format!("conflict with {by}: {field}")).collect();
        let plural = if conflicts.len() == 1 { "" } else { "s" };
        let message = format!("Apply failed with {} conflict{plural}: {}", conflicts.len(), named.join(", "));
        let causes = conflicts.iter().map(|(by, field)| {
            json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {by}"), "field": field })
        });
        Self { causes: causes.collect(), ..Self::new(409, "Conflict", message) }
    }

    pub(super) fn expired() -> Self {
        Self::new(410, "Expired", "The resourceVersion for the provided watch is too old.")
    }

    /// As a body.
    pub(super) fn status(&self) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": { "causes": self.causes },
            "code": self.code,
        })
    }
}
