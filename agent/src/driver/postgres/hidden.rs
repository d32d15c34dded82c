//! A connection string for a program, with its secrets where nobody else on the machine sees them: everybody can read a command
//! line. libpq takes a password from the environment, and others only from a file of services.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{User, geteuid};

use super::conninfo::{Apart, Conninfo};
use super::{DISK_LIMIT, Postgres, files, follow};
use crate::driver::DriverError;
use crate::driver::process::Program;
use crate::driver::process::table::Process;
use crate::secret::Secret;

/// What the service in the file is called.
const SERVICE: &str = "regent";

/// What a file of services beside PGDATA is called, before who wrote it.
const FILE: &str = "regent-service-";

/// Each file has a name of its own.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// What a program is given; its file is gone with it.
pub(super) struct Hidden {
    target: String,
    password: Option<Secret>,
    file: Option<Removed>,
}

/// A file that is removed at the end.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Nothing can be done about a failure; only the database's user can read it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Hidden {
    /// For the command line.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The program with what is not for the command line.
    pub(super) fn given_to(&self, program: Program) -> Program {
        let program = match &self.password {
            Some(password) => program.variable("PGPASSWORD", password.clone()),
            None => program,
        };
        match &self.file {
            Some(Removed(path)) => program.variable("PGSERVICEFILE", Secret::new(path.display().to_string())),
            None => program,
        }
    }
}

impl Postgres {
    /// Takes the secrets out of a connection string that agent.yaml names so.
    pub(super) async fn hide(&self, named: &str, conninfo: &Conninfo) -> Result<Hidden, DriverError> {
        let Apart { target, password, others } = conninfo.apart();
        if others.is_empty() {
            return Ok(Hidden { target, password, file: None });
        }
        let text = service(&others).map_err(|key| {
            let message =
                format!("{key} of {named} has a line break or a blank at its end, which libpq cannot read from a file");
            DriverError::permanent("postgres-config", message)
        })?;
        if conninfo.get("service").is_some() {
            let message =
                format!("{named} has both a service and secrets of its own; move those into the file of that service");
            return Err(DriverError::permanent("postgres-config", message));
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = follow::beside(&self.data, &format!("{FILE}{}-{number}", author()));
        let (file, user, data) = (path.clone(), self.options.os_user.clone(), self.data.clone());
        let removed = Removed(path);
        files::blocking(DISK_LIMIT, "writing the secrets of a login beside PGDATA", move || {
            // A login does not fail for it; the next one tries again.
            let _ = remove_left_behind(&data);
            write(&file, &user, &text)
        })
        .await?;
        Ok(Hidden { target: format!("{target} service={SERVICE}"), password, file: Some(removed) })
    }
}

/// The file of services; or the key of what cannot stand in one.
fn service(others: &[(String, Secret)]) -> Result<Secret, String> {
    let mut text = format!("[{SERVICE}]\n");
    for (key, value) in others {
        let value = value.expose();
        if value.contains(['\n', '\r']) || value.trim_end() != value {
            return Err(key.clone());
        }
        text += &format!("{key}={value}\n");
    }
    Ok(Secret::new(text))
}

/// This process, apart from a later one of the same number.
fn author() -> String {
    let pid = std::process::id();
    let began = i32::try_from(pid).ok().and_then(Process::read).map_or(0, |process| process.began);
    format!("{pid}-{began}")
}

/// Removes what processes that were killed have left beside this PGDATA.
fn remove_left_behind(data: &Path) -> std::io::Result<()> {
    let prefix = follow::beside(data, FILE);
    let (Some(folder), Some(prefix)) = (prefix.parent(), prefix.file_name()) else { return Ok(()) };
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let written_by = name.as_bytes().strip_prefix(prefix.as_bytes()).and_then(|by| std::str::from_utf8(by).ok());
        if !written_by.is_some_and(is_left_behind) {
            continue;
        }
        match std::fs::remove_file(folder.join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether nobody uses any more what was written by this process, `PID-BEGAN-NUMBER`. What is called otherwise is not ours.
fn is_left_behind(written_by: &str) -> bool {
    let numbers: Result<Vec<u64>, _> = written_by.split('-').map(str::parse).collect();
    let Ok([pid, began, _]) = numbers.as_deref() else { return false };
    let Ok(pid) = i32::try_from(*pid) else { return false };
    !Process::read(pid).is_some_and(|process| process.lives() && process.began == *began)
}

fn write(path: &Path, user: &str, text: &Secret) -> std::io::Result<()> {
    // What another process of this number left behind.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if geteuid().is_root()
        && let Some(user) = User::from_name(user)?
    {
        fchown(&file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    file.write_all(text.expose().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn secrets_stand_in_a_file_that_others_cannot_read() {
        let others = [("sslpassword".to_owned(), Secret::new("hunter2 = x"))];
        let text = service(&others).unwrap();
        assert_eq!(text.expose(), "[regent]\nsslpassword=hunter2 = x\n");
        assert_eq!(service(&[("sslpassword".to_owned(), Secret::new("a\nb"))]).unwrap_err(), "sslpassword");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("service");
        std::fs::write(&path, "left behind").unwrap();
        write(&path, "nobody-of-this-name", &text).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text.expose());
        drop(Removed(path.clone()));
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut killed = std::process::Command::new("/bin/true").spawn().unwrap();
        killed.wait().unwrap();
        let (own, pid) = (author(), std::process::id());
        let gone = [format!("data.{FILE}{}-1-0", killed.id()), format!("data.{FILE}{pid}-1-0")];
        let kept = [
            format!("data.{FILE}{own}-7"),
            format!("data.{FILE}{pid}-note"),
            format!("other.{FILE}{}-1-0", killed.id()),
            "data".to_owned(),
        ];
        for name in gone.iter().chain(&kept) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        remove_left_behind(&data).unwrap();
        for name in &gone {
            assert!(!folder.path().join(name).exists(), "{name}");
        }
        for name in &kept {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("service"), folder.path().join("other"));
        std::fs::write(&other, "another's").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        write(&path, "nobody-of-this-name", &Secret::new("hunter2")).unwrap();
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "another's");
    }
}
