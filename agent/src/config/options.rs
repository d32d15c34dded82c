//! The options of the `command`, `dns` and `http` resources, and the shapes that they share.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use regent_core::time::Span;
use serde::de::{Deserializer, Error};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// `kind: command`. Only what is listed here can be run: a coordinator names a command and never supplies one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandOptions {
    /// Starts the service and returns. Default: none; the resource cannot be activated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activate: Option<CommandLine>,
    /// Stops the service and returns. Default: none; the resource cannot be deactivated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deactivate: Option<CommandLine>,
    /// Exits with 0 if the service runs. Default: none; whether it runs is then unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CommandLine>,
    /// Brings the service's data back from a backup, while `status` says that it does not run. Bounded by the `timeout`
    /// of its step, not by that of the resource. Default: none; the resource cannot be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<CommandLine>,
    /// `restore` may run over what one that was ended in the middle has left, with its agent or by its step's `timeout`.
    /// Default: `false`; then such a step asks for a human.
    #[serde(default)]
    pub restore_repeatable: bool,
    /// Looks at what `restore` has brought back, before the service is started; exits with 0 if it is good. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_restored: Option<CommandLine>,
    /// Exits with 0 if there is room to start the service here; else its last line says what there is too little of. Run
    /// about once a minute, so it must change nothing. Default: none; that is not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CommandLine>,
    /// Commands for `run` steps, by name. Default: none.
    #[serde(default)]
    pub commands: BTreeMap<String, CommandLine>,
    /// Variables that the commands see beside PATH. Default: none.
    #[serde(default, serialize_with = "hidden_values")]
    pub environment: BTreeMap<String, Secret>,
    /// How long each command may take, and how long the service may take to come up or go. Default: `30s`.
    #[serde(default = "thirty_seconds", deserialize_with = "duration", serialize_with = "span")]
    pub timeout: Duration,
}

/// A program by its absolute path, and its arguments. There is no shell. It cannot hold a secret: everyone on the
/// machine can see the arguments of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct CommandLine {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl TryFrom<Vec<String>> for CommandLine {
    type Error = String;

    fn try_from(mut words: Vec<String>) -> Result<Self, String> {
        if words.is_empty() {
            return Err("a command needs a program; write [/absolute/path, argument, …]".to_owned());
        }
        let program = PathBuf::from(words.remove(0));
        if !program.is_absolute() {
            return Err(format!("the program {:?} is not an absolute path", program.display().to_string()));
        }
        Ok(Self { program, arguments: words })
    }
}

impl From<CommandLine> for Vec<String> {
    fn from(line: CommandLine) -> Self {
        let mut words = vec![line.program.display().to_string()];
        words.extend(line.arguments);
        words
    }
}

/// `kind: http`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpOptions {
    /// What is asked for, `http://` or `https://`; the latter trusts the system's authorities. No default.
    #[serde(deserialize_with = "url")]
    pub url: String,
    /// The status that it must answer. Redirects are not followed. Default: 200.
    #[serde(default = "ok", deserialize_with = "status")]
    pub expect_status: u16,
    /// A text that must be within the first 64 KiB of the body. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_body: Option<String>,
    /// How long the whole exchange may take. Default: `2s`.
    #[serde(default = "two_seconds", deserialize_with = "duration", serialize_with = "span")]
    pub timeout: Duration,
}

/// `kind: dns`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "DnsDraft")]
pub struct DnsOptions {
    /// What the name answers for this cluster. No default; never empty.
    pub addresses: Vec<IpAddr>,
    /// Servers that must give the new answer. Default: the server of `update`.
    pub authorities: Vec<SocketAddr>,
    /// The absolute name, for probes. Default: the name of the last redirect, and before one the zone of `update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long old answers may last after a redirect. Default: 30 s, or twice the record's TTL and 10 s if longer.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_span")]
    pub timeout: Option<Duration>,
    /// How records are changed by RFC 2136. Default: none; the coordinators answer for the name themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateOptions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DnsDraft {
    addresses: Vec<IpAddr>,
    #[serde(default, deserialize_with = "optional_socket_addresses")]
    authorities: Option<Vec<SocketAddr>>,
    name: Option<String>,
    #[serde(default, deserialize_with = "optional_duration")]
    timeout: Option<Duration>,
    update: Option<UpdateOptions>,
}

impl TryFrom<DnsDraft> for DnsOptions {
    type Error = String;

    fn try_from(draft: DnsDraft) -> Result<Self, String> {
        if draft.addresses.is_empty() {
            return Err("addresses is empty; list what the name answers for this cluster".to_owned());
        }
        let authorities = draft.authorities.unwrap_or_default();
        if authorities.is_empty() && draft.update.is_none() {
            return Err("authorities is empty; list the servers that answer for the name".to_owned());
        }
        let DnsDraft { addresses, name, timeout, update, .. } = draft;
        Ok(Self { addresses, authorities, name, timeout, update })
    }
}

/// Where and as whom records are changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateOptions {
    /// The primary server of the zone. No default.
    #[serde(deserialize_with = "socket_address")]
    pub server: SocketAddr,
    /// The zone. No default.
    pub zone: String,
    /// The TSIG key. No default.
    pub key: TsigKeyOptions,
}

/// A TSIG key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "TsigKeyDraft")]
pub struct TsigKeyOptions {
    /// Its name, as the server knows it. No default.
    pub name: String,
    /// Default: `hmac-sha256`.
    pub algorithm: TsigAlgorithm,
    /// Base64. No default.
    #[serde(serialize_with = "hidden")]
    pub secret: Secret,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TsigKeyDraft {
    name: String,
    #[serde(default)]
    algorithm: TsigAlgorithm,
    secret: Secret,
}

impl TryFrom<TsigKeyDraft> for TsigKeyOptions {
    type Error = String;

    fn try_from(draft: TsigKeyDraft) -> Result<Self, String> {
        match data_encoding::BASE64.decode(draft.secret.expose().trim().as_bytes()) {
            Ok(key) if !key.is_empty() => {
                Ok(Self { name: draft.name, algorithm: draft.algorithm, secret: draft.secret })
            }
            // The source would show a byte of the secret.
            _ => Err(format!("the secret of key {} is not base64; copy it as the server has it", draft.name)),
        }
    }
}

/// How messages are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TsigAlgorithm {
    /// `hmac-sha256`.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// `hmac-sha384`.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// `hmac-sha512`.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

fn ok() -> u16 {
    200
}

fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

pub(super) fn one_second() -> Duration {
    Duration::from_secs(1)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let span = Span::deserialize(deserializer)?;
    if span == Span::ZERO {
        return Err(D::Error::custom("must be longer than 0"));
    }
    Ok(Duration::from_millis(span.millis()))
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

pub(super) fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_socket(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn optional_socket_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<SocketAddr>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse_socket(text)).collect::<Result<_, _>>().map(Some).map_err(D::Error::custom)
}

fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address; write 10.0.0.1:53 or [fd00::1]:53"))
}

pub(super) fn host_ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().try_for_each(|text| check_host_port(text)).map_err(D::Error::custom)?;
    Ok(texts)
}

pub(super) fn optional_host_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    check_host_port(&text).map_err(D::Error::custom)?;
    Ok(Some(text))
}

fn check_host_port(text: &str) -> Result<(), String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let good = text.parse::<SocketAddr>().is_ok()
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && host.bytes().all(letter) && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
    if good { Ok(()) } else { Err(format!("{text:?} is not an address; write host:port")) }
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = reqwest::Url::parse(&text).map_err(D::Error::custom)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(D::Error::custom("write http://… or https://…"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(D::Error::custom("a user or password cannot be part of the URL; use a path that needs none"));
    }
    Ok(text)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(deserializer)?;
    if (100..600).contains(&status) { Ok(status) } else { Err(D::Error::custom("a status is between 100 and 599")) }
}

pub(super) fn span<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Span::from_millis(millis).serialize(serializer)
}

fn optional_span<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => span(duration, serializer),
        None => serializer.serialize_none(),
    }
}

fn hidden<S: Serializer>(_secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("***")
}

fn hidden_values<S: Serializer>(secrets: &BTreeMap<String, Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.keys().map(|name| (name, "***")))
}
