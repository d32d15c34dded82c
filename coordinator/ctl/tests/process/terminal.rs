//! Runs the program and looks at what it said and how it ended.

use std::process::{Output, Stdio};

use regent_proto::tls::Identity;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::world::{Authority, DEADLINE, World};

/// Someone with a certificate who knows some coordinators.
pub(crate) struct Operator {
    endpoints: String,
    certs: std::path::PathBuf,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Operator {
    pub(crate) fn new(authority: &Authority, worlds: &[&World]) -> Self {
        let endpoints: Vec<&str> = worlds.iter().map(|world| world.address.as_str()).collect();
        Self::at(authority, &endpoints.join(","))
    }

    pub(crate) fn at(authority: &Authority, endpoints: &str) -> Self {
        authority.files("operator", &Identity::Operator("ann".into()));
        Self { endpoints: endpoints.to_owned(), certs: authority.path() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command.env("REGENT_ENDPOINTS", &self.endpoints).env("REGENT_CERTS", &self.certs);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        finish(self.command(arguments)).await
    }

    /// Must be done; what it printed.
    pub(crate) async fn does(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
        said.out
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        serde_json::from_str(&self.does(&arguments).await).unwrap()
    }

    pub(crate) async fn yaml(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "yaml"]);
        serde_saphyr::from_str(&self.does(&arguments).await).unwrap()
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }
}

/// Without coordinators and certificates.
pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regentctl"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for name in ["ENDPOINTS", "CERTS", "CA", "CERT", "KEY"] {
        command.env_remove(format!("REGENT_{name}"));
    }
    command
}

pub(crate) async fn finish(mut command: Command) -> Said {
    let output: Output = tokio::time::timeout(DEADLINE, command.output()).await.expect("it ends in time").unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
