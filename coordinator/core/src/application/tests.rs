//! Tests of the document as a whole; each file one promise.

mod arbitrary;
mod drills;
mod rules;
mod sample;
mod schema;

use super::parse;

/// A valid document with a resource of each kind.
const SAMPLE: &str = include_str!("sample.yaml");

/// What a document is told: path, line and column of each mistake, and its message.
fn told(text: &str) -> Vec<(String, u64, u64, String)> {
    let mistakes = parse(text).err().unwrap_or_default();
    mistakes.into_iter().map(|mistake| (mistake.path, mistake.line, mistake.column, mistake.message)).collect()
}
