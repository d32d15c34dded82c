//! Reads a manifest, by way of a plain tree and JSON: a reader of YAML would be compiled once more for each of the hundreds of
//! types that objects of Kubernetes are made of, and the one of JSON is there for the API server's answers.
//!
//! Every node stands on a line of its own in that JSON, so that the line of a mistake leads back to where the node is in the
//! manifest.

use serde::de::DeserializeOwned;

use crate::config::tree::{Node, Place, Value};

/// Reads one document. What is wrong with it is told with its place.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // Without the lines around the mistake: a manifest may hold what is nobody's business.
    let options = serde_saphyr::options! { with_snippet: false };
    let tree: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    let mut lines = Lines { text: String::new(), places: vec![tree.place] };
    lines.write(&tree);
    serde_json::from_str(&lines.text).map_err(|error| {
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
        let place = error.line().checked_sub(1).and_then(|line| lines.places.get(line));
        match place {
            Some(place) if place.line > 0 => {
                format!("line {}, column {}: {}", place.line, place.column, without_value(message))
            }
            Some(_) | None => without_value(message),
        }
    })
}

/// `invalid type: integer, expected a string`: what stands there instead may be nobody's business.
fn without_value(message: &str) -> String {
    let parts = message.rsplit_once(", expected ");
    let parts = parts.and_then(|(found, expected)| Some((found.split_once(": ")?, expected)));
    let Some(((what, value), expected)) = parts else { return message.to_owned() };
    let kind = value.split(['`', '"']).next().unwrap_or_default().trim_end();
    format!("{what}: {kind}, expected {expected}")
}

/// The JSON of a tree, and of each of its lines the place in the manifest.
struct Lines {
    text: String,
    places: Vec<Place>,
}

impl Lines {
    fn begin(&mut self, place: Place) {
        self.text.push('\n');
        self.places.push(place);
    }

    fn write(&mut self, node: &Node) {
        match &node.value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Value::Unsigned(number) => self.text.push_str(&number.to_string()),
            Value::Signed(number) => self.text.push_str(&number.to_string()),
            // What JSON has no number for is none.
            Value::Float(number) => self.text.push_str(&serde_json::Value::from(*number).to_string()),
            Value::Text(text) => self.quote(text),
            Value::List(nodes) => {
                self.text.push('[');
                for (at, inner) in nodes.iter().enumerate() {
                    self.separate(at);
                    self.begin(inner.place);
                    self.write(inner);
                }
                self.begin(node.place);
                self.text.push(']');
            }
            Value::Map(entries) => {
                self.text.push('{');
                for (at, (key, inner)) in entries.iter().enumerate() {
                    self.separate(at);
                    self.begin(inner.place);
                    self.quote(&key.text);
                    self.text.push(':');
                    self.write(inner);
                }
                self.begin(node.place);
                self.text.push('}');
            }
        }
    }

    fn separate(&mut self, at: usize) {
        if at > 0 {
            self.text.push(',');
        }
    }

    fn quote(&mut self, text: &str) {
        self.text.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;

    use super::*;

    const GOOD: &str = "\
apiVersion: batch/v1
kind: Job
metadata:
  name: report
  labels: { a: \"quoted \\\" and\\nbroken\", b: '5' }
spec:
  backoffLimit: 3
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: one
          image: example/one
          args:
            - --flag
            - 'true'
";

    #[test]
    fn a_manifest_is_read_as_it_stands() {
        let job: Job = read(GOOD).unwrap();
        assert_eq!(job.metadata.name.as_deref(), Some("report"));
        let labels = job.metadata.labels.unwrap();
        assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("quoted \" and\nbroken", "5"));
        let spec = job.spec.unwrap();
        assert_eq!(spec.backoff_limit, Some(3));
        let container = &spec.template.spec.unwrap().containers[0];
        assert_eq!(container.args.as_deref(), Some(&["--flag".to_owned(), "true".to_owned()][..]));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (good, bad, line) in [
            ("kind: Job", "kind: Pod", 2),
            ("backoffLimit: 3", "backoffLimit: many", 7),
            ("backoffLimit: 3", "backoffLimit: [1, 2]", 7),
            ("image: example/one", "image: 5", 13),
            ("- --flag", "- { flag: yes }", 15),
        ] {
            let why = read::<Job>(&GOOD.replace(good, bad)).unwrap_err();
            assert!(why.starts_with(&format!("line {line}, column ")), "{bad}: {why}");
            assert!(!why.contains("at line"), "one place is enough: {why}");
        }
        let why = read::<Job>(&GOOD.replace("image: example/one", "image: 4711")).unwrap_err();
        assert!(why.contains("integer, expected a string") && !why.contains("4711"), "{why}");
        let why = read::<Job>(&GOOD.replace("backoffLimit: 3", "backoffLimit: 'hun`, expected ter2'")).unwrap_err();
        assert!(why.contains("string, expected ") && !why.contains("hun") && !why.contains("ter2"), "{why}");
        let why = read::<Job>("kind: [Job").unwrap_err();
        assert!(!why.is_empty(), "no YAML at all");
    }
}
