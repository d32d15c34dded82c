//! stub
/// The JSON schema of the document.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    serde_json::Value::Null
}
