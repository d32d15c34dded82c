//! Tests of the document as a whole; each file one promise.

mod arbitrary;
mod drills;
mod rules;
mod runbooks;
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

/// A mistake as a test expects it: path, line, column, and pieces of the message.
type Expected<'e> = (&'e str, u64, u64, &'e [&'e str]);

fn assert_told(text: &str, expected: &[Expected<'_>]) {
    let told = told(text);
    let shown = || told.iter().map(|told| format!("  {told:?}\n")).collect::<String>();
    assert_eq!(told.len(), expected.len(), "in\n{text}\nfound\n{}", shown());
    for ((path, line, column, message), (right_path, right_line, right_column, pieces)) in told.iter().zip(expected) {
        assert_eq!((path.as_str(), *line, *column), (*right_path, *right_line, *right_column), "found\n{}", shown());
        for piece in *pieces {
            assert!(message.contains(piece), "{path}: {message:?} does not say {piece:?}");
        }
    }
}

/// The sample with one piece replaced.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(SAMPLE.matches(from).count(), 1, "{from:?} is not once in the sample");
    SAMPLE.replace(from, to)
}
