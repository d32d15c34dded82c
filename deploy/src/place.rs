//! Where things are on this machine: our folders, our programs, other people's programs, and who we are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};

/// The folder for everything that may be thrown away: `$XDG_CACHE_HOME/regent`, by default `~/.cache/regent`.
///
/// PostgreSQL refuses to run as root, and the home folder of root is closed to everybody else; root's worlds stand in
/// `/var/cache/regent` then.
///
/// # Errors
/// There is neither `XDG_CACHE_HOME` nor `HOME`.
pub fn cache() -> Result<PathBuf> {
    let own = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => Path::new(&std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    if Uid::effective().is_root() && !open_to_all(&own) {
        return Ok(PathBuf::from("/var/cache/regent"));
    }
    Ok(own.join("regent"))
}

/// True if other users can get through all of its parents that exist.
#[must_use]
pub fn open_to_all(folder: &Path) -> bool {
    folder.ancestors().all(|part| std::fs::metadata(part).map_or(true, |data| data.permissions().mode() & 0o001 != 0))
}

/// Makes a folder that others can get through but not list.
///
/// # Errors
/// It cannot be made.
pub fn passable(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)))
        .with_context(|| format!("cannot make {}", folder.display()))
}

/// A program of this workspace: in `$REGENT_BINARIES`, or beside the one that runs (tests stand one folder deeper).
///
/// # Errors
/// It is not there: it was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("REGENT_BINARIES") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe().context("cannot tell where this program stands")?;
            let folder = own.parent().context("this program stands nowhere")?;
            if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_owned() } else { folder.to_owned() }
        }
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing: build it with `cargo build --workspace --bins`", path.display());
    }
    Ok(path)
}

/// The folder of PostgreSQL's programs: the highest version that is installed.
///
/// # Errors
/// None is.
pub fn postgres_programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("postgres").exists())
        .max()
        .map(|(_, folder)| folder)
        .context("PostgreSQL is not installed: no /usr/lib/postgresql/VERSION/bin/postgres")
}

/// A program of the system.
///
/// # Errors
/// It is nowhere on the path nor in the folders of system programs.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not installed"))
}

/// The user that PostgreSQL runs as: `postgres` when we are root, else ourselves.
///
/// # Errors
/// There is no such user.
pub fn postgres_user() -> Result<User> {
    let user =
        if Uid::effective().is_root() { User::from_name("postgres")? } else { User::from_uid(Uid::effective())? };
    user.context("there is no user to run PostgreSQL as")
}

/// Gives a folder or file to the user that PostgreSQL runs as.
///
/// # Errors
/// It cannot be given.
pub fn give_to_postgres(folder: &Path) -> Result<()> {
    let user = postgres_user()?;
    nix::unistd::chown(folder, Some(user.uid), Some(user.gid))
        .with_context(|| format!("cannot give {} to {}", folder.display(), user.name))
}

/// What to put before a program so that it runs as PostgreSQL's user; empty when we are that user.
///
/// # Errors
/// `setpriv` is not installed.
pub fn as_postgres() -> Result<Vec<String>> {
    if !Uid::effective().is_root() {
        return Ok(Vec::new());
    }
    let user = postgres_user()?;
    let setpriv = program("setpriv")?;
    Ok(vec![
        setpriv.display().to_string(),
        format!("--reuid={}", user.name),
        format!("--regid={}", user.gid),
        "--clear-groups".into(),
        "--".into(),
    ])
}

/// Writes a file that nobody but us can read, without a line end.
///
/// # Errors
/// It cannot be written.
pub fn write_secret(path: &Path, secret: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(secret.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
