//! stub
use super::Application;
/// A mistake in a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message} (line {line}, column {column})")]
pub struct Mistake {
    /// Where, e.g. `spec.runbooks.failover[0].promote[1]`.
    pub path: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What is wrong, and what would be right.
    pub message: String,
}
/// Parses and validates a document.
///
/// # Errors
/// All mistakes at once, in order of their place.
pub fn parse(_text: &str) -> Result<Application, Vec<Mistake>> {
    Err(Vec::new())
}
