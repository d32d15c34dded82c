//! What `--check-config` shows: all that would be used, and no secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use regent_core::id::{ApplicationId, ClusterId, RegionId, ResourceId};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::expand;
use super::tree::{Node, Value};
use super::{
    CommandOptions, Config, DnsOptions, HttpOptions, KubernetesOptions, ResourceConfig, TlsFilesConfig, options,
};

/// The configuration with its defaults, without its secrets.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View<'a> {
    cluster: &'a ClusterId,
    region: &'a RegionId,
    coordinators: &'a [String],
    listen: SocketAddr,
    advertise: &'a str,
    admin: SocketAddr,
    data_directory: &'a Path,
    runtime_directory: &'a Path,
    tls: &'a TlsFilesConfig,
    #[serde(serialize_with = "options::span")]
    probe_interval: Duration,
    resolvers: Vec<SocketAddr>,
    log: &'a str,
    applications: BTreeMap<&'a ApplicationId, BTreeMap<&'a ResourceId, Resource<'a>>>,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Resource<'a> {
    Typed(Tagged<'a>),
    /// Drivers of other modules have their own options: they are shown as they were written.
    Written(Redacted<'a>),
}

#[derive(serde::Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
enum Tagged<'a> {
    Command(&'a CommandOptions),
    Kubernetes(&'a KubernetesOptions),
    Dns(&'a DnsOptions),
    Http(&'a HttpOptions),
}

impl<'a> View<'a> {
    pub(super) fn new(config: &'a Config, source: &'a Node) -> Self {
        let applications = config.applications.iter().map(|(application, resources)| {
            let shown = resources.iter().map(|(resource, options)| {
                let written = || source.get("applications")?.get(application.as_str())?.get(resource.as_str());
                (resource, Resource::new(options, written().unwrap_or(source)))
            });
            (application, shown.collect())
        });
        Self {
            cluster: &config.cluster,
            region: &config.region,
            coordinators: &config.coordinators,
            listen: config.listen,
            advertise: &config.advertise,
            admin: config.admin,
            data_directory: &config.data_directory,
            runtime_directory: &config.runtime_directory,
            tls: &config.tls,
            probe_interval: config.probe_interval,
            resolvers: config.resolver_addresses(),
            log: &config.log,
            applications: applications.collect(),
        }
    }
}

impl<'a> Resource<'a> {
    fn new(options: &'a ResourceConfig, written: &'a Node) -> Self {
        match options {
            ResourceConfig::Command(options) => Self::Typed(Tagged::Command(options)),
            ResourceConfig::Kubernetes(options) => Self::Typed(Tagged::Kubernetes(options)),
            ResourceConfig::Dns(options) => Self::Typed(Tagged::Dns(options)),
            ResourceConfig::Http(options) => Self::Typed(Tagged::Http(options)),
            ResourceConfig::Postgres(_) | ResourceConfig::Redis(_) => {
                Self::Written(Redacted { node: written, secret: false })
            }
        }
    }
}

/// A part of the tree. References stay as they are; what looks like a literal secret becomes `***`.
struct Redacted<'a> {
    node: &'a Node,
    secret: bool,
}

impl Serialize for Redacted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.node.value {
            Value::Null => serializer.serialize_unit(),
            Value::List(nodes) => {
                let mut list = serializer.serialize_seq(Some(nodes.len()))?;
                for node in nodes {
                    list.serialize_element(&Redacted { node, secret: self.secret })?;
                }
                list.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    map.serialize_entry(&key.text, &Redacted { node, secret: self.secret || is_secret(&key.text) })?;
                }
                map.end()
            }
            Value::Text(text) if self.secret && is_reference(text) => serializer.serialize_str(text),
            _ if self.secret => serializer.serialize_str("***"),
            Value::Text(text) => serializer.serialize_str(&without_passwords(text)),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Unsigned(value) => serializer.serialize_u64(*value),
            Value::Signed(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
        }
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token"].iter().any(|word| key.contains(word))
}

/// The text is one reference and nothing else.
fn is_reference(text: &str) -> bool {
    expand::refers(text) && text.starts_with("${") && text.find('}') == Some(text.len() - 1)
}

/// What a secret's key in a connection string has in it.
const SECRETS: [&str; 4] = ["password", "scram_client_key", "scram_server_key", "oauth_client_secret"];

/// A connection string with its literal passwords hidden. The rest of the text after one is hidden with it, as quoting
/// makes it hard to say where a password ends.
fn without_passwords(text: &str) -> String {
    // A URL with a user and perhaps a password.
    if let Some((scheme, rest)) = text.split_once("://")
        && let Some((_, place)) = rest.rsplit_once('@')
    {
        return format!("{scheme}://***@{}", without_passwords(place));
    }
    let lower = text.to_ascii_lowercase();
    let first = SECRETS.iter().filter_map(|key| Some((lower.find(key)?, key.len()))).min();
    let Some((at, length)) = first else { return text.to_owned() };
    let after = text[at..].find('=').map_or(at + length, |equals| at + equals + 1);
    let value = text[after..].trim_start();
    if value.starts_with("${")
        && let Some(end) = value.find('}')
    {
        let (reference, rest) = value.split_at(end + 1);
        // A literal tail glued to the reference is part of the password.
        let rest = if rest.is_empty() || rest.starts_with(' ') { without_passwords(rest) } else { "***".to_owned() };
        return format!("{}{reference}{rest}", &text[..after]);
    }
    format!("{}***", &text[..after])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_connection_strings_are_hidden() {
        assert_eq!(without_passwords("host=a user=b"), "host=a user=b");
        assert_eq!(without_passwords("host=a password=hunter2 user=b"), "host=a password=***");
        assert_eq!(without_passwords("host=a sslpassword=hunter2 user=b"), "host=a sslpassword=***");
        assert_eq!(without_passwords("scram_client_key=hunter2 password=y"), "scram_client_key=***");
        assert_eq!(without_passwords("a PASSWORD = 'x y'"), "a PASSWORD =***");
        assert_eq!(without_passwords("password=${file:/x} dbname=d"), "password=${file:/x} dbname=d");
        assert_eq!(without_passwords("password=${file:/x}tail"), "password=${file:/x}***");
        assert_eq!(without_passwords("postgres://me:hunter2@a/b"), "postgres://***@a/b");
        assert_eq!(without_passwords("password=${file:/x} password=y"), "password=${file:/x} password=***");
    }

    #[test]
    fn only_whole_references_are_shown_for_secrets() {
        assert!(is_reference("${file:/x}"));
        assert!(!is_reference("${file:/x}abc"));
        assert!(!is_reference("hunter2"));
    }
}
