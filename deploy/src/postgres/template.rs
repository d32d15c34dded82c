//! A ready data directory, made once: `initdb` takes a second, its copy a tenth of that.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::place;

/// Password of the only role in the template, until the primary that is made from it gives it another.
pub(super) const PASSWORD: &str = "template";

/// Raised when what stands in the template changes.
const EDITION: u32 = 4;

/// What every server is set to; see the module of the server for what is set elsewhere.
///
/// `wal_log_hints` and `wal_keep_size` are what `pg_rewind` needs to make an old primary a standby again. Shared memory
/// of a killed server must go with its folder: `mmap` keeps it there. A server that hangs closes no connection: its standby
/// notices after `wal_receiver_timeout`, and only then there are two kinds of evidence.
const SETTINGS: &str = "
wal_level = replica
wal_log_hints = on
wal_keep_size = 256MB
max_wal_size = 256MB
hot_standby = on
max_wal_senders = 10
max_replication_slots = 10
max_connections = 150
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
wal_receiver_status_interval = 1s
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
wal_retrieve_retry_interval = 200ms
password_encryption = scram-sha-256
log_line_prefix = '%m [%p] %q%u@%d '
";

/// What every server is set to, one by one.
pub fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS.lines().filter_map(|line| line.split_once(" = "))
}

/// Who may connect: everybody with a password, from this machine and from a network of namespaces on it.
const ACCESS: &str = "
local all         all              scram-sha-256
host  all         all  127.0.0.0/8  scram-sha-256
host  replication all  127.0.0.0/8  scram-sha-256
host  all         all  10.77.0.0/16 scram-sha-256
host  replication all  10.77.0.0/16 scram-sha-256
";

/// Fills the empty folder `data` from the template.
pub(super) async fn copy(programs: &Path, data: &Path) -> Result<()> {
    // Held until the copy is done: who clears up leaves the template alone so long.
    let (template, _lock) = ready(programs).await?;
    let source = format!("{}/.", template.display());
    let mut command = as_postgres("cp")?;
    run(command.args(["-a", "--reflink=auto", &source]).arg(data)).await
}

/// The template, made now if there is none.
async fn ready(programs: &Path) -> Result<(PathBuf, File)> {
    let version = programs.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let folder = folder()?;
    // Of several harnesses that start together one makes it; the lock goes with the process.
    let lock = tokio::task::spawn_blocking({
        let folder = folder.clone();
        move || lock(&folder)
    })
    .await??;
    let template = folder.join(format!("postgres-{version}-{EDITION}"));
    if !template.exists() {
        let draft = tempfile::Builder::new().prefix("draft-").tempdir_in(&folder)?;
        place::passable(draft.path())?;
        place::give_to_postgres(draft.path())?;
        let data = draft.path().join("data");
        make(programs, &data).await?;
        std::fs::rename(&data, &template).context("cannot put the template in its place")?;
    }
    Ok((template, lock))
}

fn folder() -> Result<PathBuf> {
    Ok(place::cache()?.join("templates"))
}

/// Makes the folder and takes its lock; waits for whoever has it.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    loop {
        place::passable(folder)?;
        if let Some(parent) = folder.parent() {
            place::passable(parent)?;
        }
        let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        // It may have been removed while it was waited for, and whoever comes next would lock another file.
        if std::fs::metadata(&path).is_ok_and(|now| lock.metadata().is_ok_and(|own| own.ino() == now.ino())) {
            return Ok(lock);
        }
    }
}

/// Removes the templates, unless one is made or copied just now; gives the folder if it is gone.
///
/// # Errors
/// They cannot be removed.
pub fn remove_templates() -> Result<Option<PathBuf>> {
    let folder = folder()?;
    let Ok(lock) = File::open(folder.join("lock")) else { return Ok(None) };
    if lock.try_lock().is_err() {
        return Ok(None);
    }
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(Some(folder))
}

/// Makes a data directory as the template is one, with a system identifier of its own. It may be there and empty.
pub(super) async fn make(programs: &Path, data: &Path) -> Result<()> {
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
