//! `regentctl backup`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use regent_core::backup::Header;
use regent_proto::operator::v1 as wire;

use super::restore::{check, summary};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::say;

/// Writes everything that the group agrees on into a file: documents, roles, runs, audit. No secret is in it.
#[derive(Args)]
#[command(after_help = "\
The backup is as of now: everything that was committed before is in it. It does not hold the databases, certificates or
configuration files; keep those by their own means. It is needed only when a majority of the coordinators is lost for
good, with their data directories (`regentctl restore --help`); a single one is replaced with `regentctl members`.

Examples:
  regentctl backup -o regent-$(date +%F).backup
  regentctl backup -o /var/backups/regent.backup --force")]
pub(crate) struct Backup {
    /// Where it goes.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        if self.output.exists() && !self.force {
            return Err(Failure::failed(format!("{} is there already; --force replaces it", self.output.display())));
        }
        let mut stream = connection
            .call(|mut services| async move { services.cluster.backup(wire::BackupRequest {}).await })
            .await?;
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            bytes.extend_from_slice(&message.chunk);
        }
        let header = check(&bytes).map_err(Failure::failed)?;
        write(&self.output, &bytes)
            .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", self.output.display())))?;
        say(&told(&self.output, &header, bytes.len()));
        Ok(())
    }
}

fn told(path: &Path, header: &Header, length: usize) -> String {
    format!("{}: {length} bytes\n{}", path.display(), summary(header))
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let half = path.with_extension("half");
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&half, path)
}
