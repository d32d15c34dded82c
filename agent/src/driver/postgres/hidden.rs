//! A connection string for a program, with its secrets where nobody else on the machine sees them: everybody can read a command
//! line. libpq takes a password from the environment, and others only from a file of services.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{User, geteuid};

use super::conninfo::{Apart, Conninfo};
use super::{DISK_LIMIT, Postgres, files, follow};
use crate::driver::DriverError;
use crate::driver::process::Program;
use crate::secret::Secret;

/// What the service in the file is called.
const SERVICE: &str = "regent";

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
        let path = follow::beside(&self.data, &format!("regent-service-{}-{number}", std::process::id()));
        let (file, user) = (path.clone(), self.options.os_user.clone());
        let removed = Removed(path);
        files::blocking(DISK_LIMIT, "writing the secrets of a login beside PGDATA", move || write(&file, &user, &text))
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
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
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
}
