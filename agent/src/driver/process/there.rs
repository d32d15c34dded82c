//! Whether a program could be started: looked at, and not started.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{User, geteuid};

use super::PATH;

/// One look; a disk that does not answer is no proof.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Why the first word of a command could not be started as this user, with what names it in agent.yaml and what to do;
/// none if it could, or that cannot be told.
pub(crate) async fn obstacle(named: &str, command: &[String], user: Option<&str>) -> Option<String> {
    let Some(program) = command.first() else {
        return Some(format!("{named} names no program; list one by its absolute path"));
    };
    obstacle_of(named, Path::new(program), user).await
}

/// The same of a program by its path, or by its name alone.
pub(crate) async fn obstacle_of(named: &str, program: &Path, user: Option<&str>) -> Option<String> {
    let shown = program.display();
    let mut found = false;
    for place in places(program) {
        match tokio::time::timeout(LOOK_LIMIT, tokio::fs::metadata(&place)).await {
            Ok(Ok(metadata)) if metadata.is_file() => {
                if may_execute(&metadata, user) {
                    return None;
                }
                found = true;
            }
            Ok(Ok(_) | Err(_)) => {}
            Err(_) => return None,
        }
    }
    let who = user.map(|user| format!(" for {user}")).unwrap_or_default();
    Some(if found {
        format!("{named}: {shown} is not executable{who}; set its mode, or name another program in agent.yaml")
    } else {
        format!("{named}: there is no program {shown}; install it, or correct agent.yaml")
    })
}

/// As it would be started: by its path from /, or through PATH.
fn places(program: &Path) -> Vec<PathBuf> {
    if program.as_os_str().to_string_lossy().contains('/') {
        return vec![Path::new("/").join(program)];
    }
    PATH.split(':').map(|folder| Path::new(folder).join(program)).collect()
}

/// Root changes to the user, without supplementary groups; any other agent stays who it is.
fn may_execute(metadata: &Metadata, user: Option<&str>) -> bool {
    let mode = metadata.mode();
    let user = user.filter(|_| geteuid().is_root()).and_then(|name| User::from_name(name).ok().flatten());
    match user.filter(|user| !user.uid.is_root()) {
        None => mode & 0o111 != 0,
        Some(user) if metadata.uid() == user.uid.as_raw() => mode & 0o100 != 0,
        Some(user) if metadata.gid() == user.gid.as_raw() => mode & 0o010 != 0,
        Some(_) => mode & 0o001 != 0,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_program_is_looked_for_as_it_is_run() {
        for program in ["/bin/sh", "sh", "bin/sh"] {
            assert_eq!(obstacle("start", &[program.to_owned()], None).await, None, "{program}");
        }
        for program in ["/nowhere/sh", "no-such-program", "/bin"] {
            let why = obstacle("start", &[program.to_owned()], None).await.unwrap();
            assert!(why.starts_with("start: there is no program ") && why.contains(program), "{why}");
        }
        assert!(obstacle("start", &[], None).await.is_some());
    }

    #[tokio::test]
    async fn what_may_not_be_executed_is_told_from_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tool");
        std::fs::write(&file, "#!/bin/sh").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let why = obstacle_of("stop", &file, None).await.unwrap();
        assert!(why.contains("is not executable"), "{why}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(obstacle_of("stop", &file, None).await, None);
        if geteuid().is_root() {
            let why = obstacle_of("stop", &file, Some("nobody")).await.unwrap();
            assert!(why.contains("is not executable for nobody"), "{why}");
        }
    }
}
