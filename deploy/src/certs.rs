//! Development certificates, made by `regentctl certs`.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

use crate::ctl;

/// Name of the group.
pub const GROUP: &str = "dev";

/// Name of the operator's files.
pub const OPERATOR: &str = "operator";

/// Name of a coordinator's files.
#[must_use]
pub fn coordinator(id: u64) -> String {
    format!("coordinator-{id}")
}

/// Name of an agent's files.
#[must_use]
pub fn agent(cluster: &str) -> String {
    format!("agent-{cluster}")
}

/// Makes the certificate of one more coordinator, in a folder that has an authority.
///
/// # Errors
/// `regentctl` is missing or fails.
pub async fn coordinator_certificate(folder: &Path, id: u64, address: IpAddr) -> Result<()> {
    let (id, address, dir) = (id.to_string(), address.to_string(), folder.display().to_string());
    let words = ["certs", "coordinator", &id, "--name", &address, "--dir", &dir];
    ctl::run(words.into_iter().map(String::from)).await.map(drop)
}

/// Makes an authority, a certificate for each coordinator and agent, with the address where it is dialled, and one for an operator, in a folder of its own.
///
/// # Errors
/// `regentctl` is missing or fails.
pub async fn make(folder: &Path, coordinators: &[(u64, IpAddr)], clusters: &[(&str, IpAddr)]) -> Result<()> {
    let dir = folder.display().to_string();
    let certs = async |words: &[&str]| {
        ctl::run([&["certs"], words, &["--dir", dir.as_str()]].concat().into_iter().map(String::from)).await
    };
    certs(&["ca", "--group", GROUP]).await?;
    for (id, address) in coordinators {
        certs(&["coordinator", &id.to_string(), "--name", &address.to_string()]).await?;
    }
    for (cluster, address) in clusters {
        certs(&["agent", cluster, "--name", &address.to_string()]).await?;
    }
    certs(&["operator", "quickstart"]).await?;
    Ok(())
}
