//! Closed at rest: `min-replicas-to-write` in the server's configuration file, with a number that no one has.

use std::path::Path;

use super::CLOSED;
use crate::driver::process::disk::{Durability, replace};

const NOTE: &str = "# regent: closed at rest. The agent opens the database at run time; nothing here does.";
const PREFIX: &str = "# regent sets this at run time: ";

/// The file with what closes it at its end, where it wins over everything before. With `alone`, lines that would make
/// the next start follow an upstream of long ago, and take over its data, become comments.
pub(super) fn closed(text: &str, alone: bool) -> String {
    let mut text: String = text
        .split_inclusive('\n')
        .map(|line| if alone && follows(line) { format!("{PREFIX}{line}") } else { line.to_owned() })
        .collect();
    let number = last(&text, &["min-replicas-to-write", "min-slaves-to-write"]);
    let lag = last(&text, &["min-replicas-max-lag", "min-slaves-max-lag"]);
    // A lag of 0 switches the whole check off.
    let lag_is_off = lag.as_deref() == Some("0");
    if number.as_deref() == Some(CLOSED) && !lag_is_off {
        return text;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!("{NOTE}\nmin-replicas-to-write {CLOSED}\n");
    if lag_is_off {
        text += "min-replicas-max-lag 10\n";
    }
    text
}

/// Closes the file; false if it was closed.
pub(super) fn close(file: &Path, alone: bool) -> std::io::Result<bool> {
    let before = std::fs::read_to_string(file)?;
    let after = closed(&before, alone);
    if after == before {
        return Ok(false);
    }
    replace(file, after.as_bytes(), Durability::Synced)?;
    Ok(true)
}

fn follows(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let key = words.next().unwrap_or_default().to_ascii_lowercase();
    matches!(key.as_str(), "replicaof" | "slaveof")
}

/// The value of the last line with one of these keys. An `include` may say anything: after it nothing is known.
fn last(text: &str, keys: &[&str]) -> Option<String> {
    let mut found = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let key = words.next().unwrap_or_default().to_ascii_lowercase();
        if keys.contains(&key.as_str()) {
            found = words.next().map(|value| value.trim_matches('"').to_owned());
        } else if key == "include" {
            found = None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_closed_once_and_last() {
        let once = closed("port 1\nmin-slaves-to-write 65535\nmin-replicas-to-write 1", false);
        assert!(once.ends_with("\nmin-replicas-to-write 65535\n"), "{once}");
        assert_eq!(closed(&once, false), once);
        assert_ne!(closed(&format!("{once}include other.conf\n"), false), format!("{once}include other.conf\n"));
    }

    #[test]
    fn a_lag_of_zero_would_switch_it_off() {
        assert!(closed("min-replicas-max-lag 0\nmin-replicas-to-write 65535\n", false).ends_with("max-lag 10\n"));
    }

    #[test]
    fn a_primary_does_not_start_as_a_replica() {
        let once = closed("ReplicaOf 10.0.0.1 6379\n", true);
        assert!(once.starts_with("# regent sets this at run time: ReplicaOf 10.0.0.1 6379\n"), "{once}");
        assert_eq!(closed(&once, true), once);
        assert!(closed("replicaof a 1\n", false).starts_with("replicaof a 1\n"));
    }
}
