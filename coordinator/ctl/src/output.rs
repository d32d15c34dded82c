//! Answers for people and for programs. JSON and YAML follow the protocol's own JSON mapping, from its descriptors, so
//! every field that a coordinator sends is there.

use std::sync::OnceLock;

use clap::{Args, ValueEnum};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::Serialize;

use crate::failure::{Failure, chain};

/// How a read is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs; one document, or one a line when watching.
    Json,
    /// For both.
    Yaml,
}

#[derive(Args)]
pub(crate) struct OutputArg {
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

impl Output {
    /// Prints a message of `regent.operator.v1`, or by the closure what people read.
    pub(crate) fn print<M: Message>(
        self,
        name: &str,
        message: &M,
        people: impl FnOnce(&M) -> String,
    ) -> Result<(), Failure> {
        let text = match self {
            Self::Table => people(message),
            Self::Json => json(name, message)?,
            Self::Yaml => yaml(name, message)?,
        };
        say(&text);
        Ok(())
    }

    /// The same where many messages follow each other: JSON on one line each, YAML as documents.
    pub(crate) fn stream<M: Message>(self, name: &str, message: &M) -> Result<Option<String>, Failure> {
        match self {
            Self::Table => Ok(None),
            Self::Json => serde_json::to_string(&dynamic(name, message)?).map(Some).map_err(unprintable),
            Self::Yaml => Ok(Some(format!("---\n{}", yaml(name, message)?))),
        }
    }
}

/// Prints a text with exactly one line end behind it. When the reader has gone away there is nothing left to do.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

pub(crate) fn json<M: Message>(name: &str, message: &M) -> Result<String, Failure> {
    serde_json::to_string_pretty(&dynamic(name, message)?).map_err(unprintable)
}

fn yaml<M: Message>(name: &str, message: &M) -> Result<String, Failure> {
    serde_saphyr::to_string(&dynamic(name, message)?).map_err(unprintable)
}

struct Shown(DynamicMessage);

impl Serialize for Shown {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Numbers as numbers: no counter here comes near 2^53.
        let options = SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(false);
        self.0.serialize_with_options(serializer, &options)
    }
}

fn dynamic<M: Message>(name: &str, message: &M) -> Result<Shown, Failure> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let descriptor = POOL
        .get_or_init(|| DescriptorPool::decode(regent_proto::DESCRIPTORS).ok())
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(&format!("regent.operator.v1.{name}")))
        .ok_or_else(|| Failure::failed(format!("this build does not know the message {name}")))?;
    let mut shown = DynamicMessage::new(descriptor);
    shown.transcode_from(message).map_err(unprintable)?;
    Ok(Shown(shown))
}

fn unprintable(error: impl std::error::Error) -> Failure {
    Failure::failed(format!("the answer cannot be printed: {}", chain(&error)))
}

#[cfg(test)]
mod tests {
    use regent_proto::operator::v1 as wire;

    use super::*;

    fn view() -> wire::View {
        let age = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
        wire::View { coordinator: 1, quorum: true, age: Some(age), ..wire::View::default() }
    }

    #[test]
    fn json_is_the_protocols_own_with_plain_numbers() {
        let text = json("View", &view()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["coordinator"], 1);
        assert_eq!(value["quorum"], true);
        assert_eq!(value["age"], "1.500s");
        assert_eq!(value["notice"], "");
    }

    #[test]
    fn yaml_says_the_same() {
        let text = yaml("View", &view()).unwrap();
        assert!(text.starts_with("coordinator: 1\n"), "{text}");
        assert!(text.contains("quorum: true\n"), "{text}");
    }
}
