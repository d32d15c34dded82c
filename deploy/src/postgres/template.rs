//! A ready data directory, made once: `initdb` takes a second, its copy a tenth of that.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::place;

/// Password of the only role in the template, until the primary that is made from it gives it another.
pub(super) const PASSWORD: &str = "template";

/// Raised when what stands in the template changes.
const EDITION: u32 = 2;

/// What every server is set to; see the module of the server for what is set elsewhere.
///
/// `wal_log_hints` and `wal_keep_size` are what `pg_rewind` needs to make an old primary a standby again. Shared memory
/// of a killed server must go with its folder: `mmap` keeps it there.
const SETTINGS: &str = "
wal_level = replica
wal_log_hints = on
wal_keep_size = 256MB
max_wal_size = 256MB
hot_standby = on
max_wal_senders = 10
max_replication_slots = 10
max_connections = 60
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
password_encryption = scram-sha-256
log_line_prefix = '%m [%p] %q%u@%d '
";

/// Who may connect: everybody with a password, from this machine.
const ACCESS: &str = "
local all         all              scram-sha-256
host  all         all  127.0.0.0/8 scram-sha-256
host  replication all  127.0.0.0/8 scram-sha-256
";

/// Fills the empty folder `data` from the template.
pub(super) async fn copy(programs: &Path, data: &Path) -> Result<()> {
    let template = ready(programs).await?;
    let source = format!("{}/.", template.display());
    let mut command = as_postgres("cp")?;
    run(command.args(["-a", "--reflink=auto", &source]).arg(data)).await
}

/// The template, made now if there is none.
async fn ready(programs: &Path) -> Result<PathBuf> {
    let version = programs.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let folder = place::cache()?.join("templates");
    place::passable(&folder)?;
    if let Some(parent) = folder.parent() {
        place::passable(parent)?;
    }
    let template = folder.join(format!("postgres-{version}-{EDITION}"));
    // Of several harnesses that start together one makes it; the lock goes with the process.
    let lock = std::fs::File::create(folder.join("lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if !template.exists() {
        let draft = tempfile::Builder::new().prefix("draft-").tempdir_in(&folder)?;
        place::passable(draft.path())?;
        place::give_to_postgres(draft.path())?;
        let data = draft.path().join("data");
        make(programs, &data).await?;
        std::fs::rename(&data, &template).context("cannot put the template in its place")?;
    }
    drop(lock);
    Ok(template)
}

async fn make(programs: &Path, data: &Path) -> Result<()> {
    let password = data.with_file_name("password");
    std::fs::write(&password, PASSWORD)?;
    let mut command = as_postgres(programs.join("initdb").to_str().context("a path that is not text")?)?;
    command.arg("-D").arg(data).arg("--pwfile").arg(&password);
    command.args([
        "-U",
        super::AGENT,
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    ]);
    run(&mut command).await?;
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?.write_all(SETTINGS.as_bytes())?;
    std::fs::write(data.join("pg_hba.conf"), ACCESS)?;
    Ok(())
}

fn as_postgres(program: &str) -> Result<Command> {
    let mut words = place::as_postgres()?;
    words.push(program.to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir("/").env("HOME", "/").kill_on_drop(true);
    Ok(command)
}

async fn run(command: &mut Command) -> Result<()> {
    let output = command.output().await.with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{:?} failed: {}", command.as_std(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
