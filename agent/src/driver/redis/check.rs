//! Commands that a copy, or what was restored, must answer. Only such as Redis itself calls read-only: a check changes
//! nothing of what it looks at.

use std::time::Duration;

use redis::Value;
use serde::Deserialize;

use super::lab::{Lab, unreadable};
use super::session::{Failure, ask, command};
use crate::driver::DriverError;

/// One command, on data that may be large.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// Of an answer that is told, in characters.
const LONGEST_ANSWER: usize = 80;

/// A command that must be answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisCheck {
    /// A command that only reads, word by word; in database 0. No default.
    pub command: Vec<String>,
    /// The answer; of several values, one a line. Default: any but nothing, 0 and an empty list.
    #[serde(default)]
    pub expect: Option<String>,
}

impl Lab<'_> {
    /// Puts the listed commands to it. How many there are.
    pub(super) async fn check(&self) -> Result<usize, DriverError> {
        let checks = self.checks();
        if checks.is_empty() {
            return Ok(0);
        }
        let mut connection = self.connect().await.map_err(unreadable)?;
        for check in checks {
            let shown = check.command.join(" ");
            let name = check.command.first().map(String::as_str).unwrap_or_default();
            let told = ask::<Value>(&mut connection, &command(&["COMMAND", "INFO", name]), CHECK_LIMIT).await;
            if !only_reads(&told.map_err(unreadable)?) {
                let message = format!("checks: {shown:?} is no command that Redis calls read-only; correct agent.yaml");
                return Err(DriverError::permanent("redis-config", message));
            }
            let words: Vec<&str> = check.command.iter().map(String::as_str).collect();
            let answer = ask::<Value>(&mut connection, &command(&words), CHECK_LIMIT).await;
            let answer = answer.map_err(|failure| refused(&shown, failure))?;
            if !fits(&answer, check.expect.as_deref()) {
                let found = text(&answer).unwrap_or_else(|| "nothing".to_owned());
                let wanted = check.expect.as_deref().unwrap_or("a value");
                // It may be long, and whatever reads the journal would read it.
                let found: String = found.chars().take(LONGEST_ANSWER).collect();
                return Err(wrong(&format!("{shown:?} gives {found}, expected is {wanted}")));
            }
        }
        Ok(checks.len())
    }
}

/// It will be the same however often the snapshot is loaded.
fn wrong(why: &str) -> DriverError {
    DriverError::permanent("scratch-check", format!("the scratch Redis: {why}"))
}

/// What Redis itself says is its answer.
fn refused(shown: &str, failure: Failure) -> DriverError {
    match failure {
        Failure::Server { .. } => wrong(&format!("{shown:?}: {failure}")),
        Failure::Refused | Failure::TimedOut(_) | Failure::Broken(_) => {
            unreadable(Failure::Broken(format!("{shown:?}: {failure}")))
        }
    }
}

fn fits(answer: &Value, expect: Option<&str>) -> bool {
    let answer = text(answer);
    match (expect, answer) {
        (Some(wanted), Some(answer)) => wanted == answer,
        (None, Some(answer)) => !answer.is_empty() && answer != "0",
        (Some(_) | None, None) => false,
    }
}

/// What `COMMAND INFO` says of one: its third part are its flags.
fn only_reads(told: &Value) -> bool {
    let first = parts(told).and_then(|commands| commands.first());
    let flags = first.and_then(parts).and_then(|parts| parts.get(2)).and_then(parts);
    flags.is_some_and(|flags| flags.iter().any(|flag| text(flag).as_deref() == Some("readonly")))
}

fn parts(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(parts) | Value::Set(parts) => Some(parts),
        _ => None,
    }
}

/// The answer as text; none if there is nothing.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Nil => None,
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::Array(parts) | Value::Set(parts) => {
            let lines: Vec<String> = parts.iter().map(|part| text(part).unwrap_or_default()).collect();
            Some(lines.join("\n"))
        }
        // Of the newer protocol, which is not spoken here.
        other => Some(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn told(flags: &[&str]) -> Value {
        let flags = flags.iter().map(|flag| Value::SimpleString((*flag).to_owned())).collect();
        Value::Array(vec![Value::Array(vec![word("get"), Value::Int(2), Value::Array(flags), Value::Int(1)])])
    }

    #[test]
    fn only_what_redis_calls_read_only_is_asked() {
        assert!(only_reads(&told(&["readonly", "fast"])));
        assert!(!only_reads(&told(&["write", "denyoom"])));
        assert!(!only_reads(&told(&[])), "what is neither, as SHUTDOWN");
        assert!(!only_reads(&Value::Array(vec![Value::Nil])), "unknown");
        assert!(!only_reads(&Value::Nil));
    }

    #[test]
    fn an_answer_is_compared_as_text() {
        let list = Value::Array(vec![word("a"), Value::Nil, Value::Int(3)]);
        for (answer, expect, good) in [
            (word("7"), Some("7"), true),
            (word("7"), Some("8"), false),
            (Value::Int(7), Some("7"), true),
            (list.clone(), Some("a\n\n3"), true),
            (list, None, true),
            (Value::Nil, Some(""), false),
            (Value::Nil, None, false),
            (Value::Int(0), None, false),
            (Value::Array(vec![]), None, false),
        ] {
            assert_eq!(fits(&answer, expect), good, "{answer:?} {expect:?}");
        }
    }
}
