//! Waiting on states, and drivers made from a piece of agent.yaml as the agent itself makes them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regent_agent::config::{Config, ConfigError};
use regent_agent::driver::process::children::Children;
use regent_agent::driver::{Driver, build};

/// Polls a state, and fails with `what` if it does not come.
pub(crate) async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !reached().await {
        assert!(started.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A whole agent.yaml with one resource.
pub(crate) fn document(resource: &str) -> String {
    let resource: String = resource.trim().lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "cluster: eu-west-1
region: eu-west
coordinators: [127.0.0.1:7101]
listen: 127.0.0.1:7401
admin: 127.0.0.1:7501
dataDirectory: /var/lib/regent/agent
runtimeDirectory: /run/regent/agent
tls: {{ ca: ca.pem, certificate: a.pem, key: a-key.pem }}
resolvers: []
applications:
  shop:
    it:
{resource}"
    )
}

pub(crate) fn parse(resource: &str) -> Result<Config, ConfigError> {
    Config::parse(&document(resource), Path::new("/etc/regent/agent.yaml"))
}

/// The driver of a resource, written as in agent.yaml.
pub(crate) fn driver(resource: &str) -> Arc<dyn Driver> {
    let config = parse(resource).unwrap();
    let (application, resources) = config.applications.iter().next().unwrap();
    let (name, options) = resources.iter().next().unwrap();
    build::build(
        &config.cluster,
        application,
        name,
        options,
        &config.resolver_addresses(),
        &Children::default(),
        &config.data_directory,
    )
    .unwrap()
}
