//! Whether PGDATA can make room: what takes its place does so by renaming, which a mount point does not allow.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess};

use super::{DISK_LIMIT, Postgres, files};
use crate::driver::DriverError;

/// What this process sees mounted.
const MOUNTS: &str = "/proc/self/mountinfo";

impl Postgres {
    /// Before hours of building, not after them.
    ///
    /// # Errors
    /// `postgres-place` if PGDATA cannot be renamed.
    pub(super) async fn refuse_fixed_place(&self) -> Result<(), DriverError> {
        let data = self.data.clone();
        let looked =
            files::blocking(DISK_LIMIT, "looking whether PGDATA can make room", move || obstacle(&data)).await?;
        looked.map_or(Ok(()), |why| Err(DriverError::permanent("postgres-place", why)))
    }
}

/// Why PGDATA cannot be exchanged, and what to do; none if it can.
pub(super) fn obstacle(data: &Path) -> io::Result<Option<String>> {
    let Some(parent) = data.parent() else {
        return Ok(Some("dataDirectory is the root of the machine; give it a folder of its own".to_owned()));
    };
    let shown = data.display();
    if is_mount_point(data, parent)? {
        return Ok(Some(format!(
            "PGDATA {shown} is a mount point, and what takes its place does so by renaming; move the database into a folder below \
             it, such as {shown}/data, and correct dataDirectory and the server's own configuration"
        )));
    }
    let missing = match eaccess(parent, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => return Ok(None),
        Err(error) => error,
    };
    let parent = parent.display();
    Ok(Some(format!(
        "the agent cannot write to {parent}, where what takes the place of PGDATA {shown} is made: {missing}; allow it that"
    )))
}

fn is_mount_point(data: &Path, parent: &Path) -> io::Result<bool> {
    // The table knows a bind mount within one file system, too, and a subvolume is no mount.
    match std::fs::read_to_string(MOUNTS) {
        Ok(table) => Ok(is_mounted(&table, data)),
        Err(_) => match (std::fs::metadata(data), std::fs::metadata(parent)) {
            (Ok(data), Ok(parent)) => Ok(data.dev() != parent.dev()),
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            (Err(error), _) | (_, Err(error)) => Err(error),
        },
    }
}

/// The fifth word of a line is the place, with blanks and backslashes written as octal numbers.
fn is_mounted(table: &str, place: &Path) -> bool {
    let plain = |word: &str| {
        let blanks = word.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
        blanks.replace("\\134", "\\")
    };
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|word| Path::new(&plain(word)) == place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_does_not_make_room() {
        let why = obstacle(Path::new("/proc")).unwrap().unwrap();
        assert!(why.contains("/proc is a mount point") && why.contains("/proc/data"), "{why}");
        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(folder.path()).unwrap();
        assert_eq!(obstacle(&folder.join("data")).unwrap(), None, "it need not be there");
        std::fs::create_dir(folder.join("data")).unwrap();
        assert_eq!(obstacle(&folder.join("data")).unwrap(), None);
        let why = obstacle(&folder.join("nowhere/data")).unwrap().unwrap();
        assert!(why.contains("cannot write"), "{why}");
    }

    #[test]
    fn the_table_of_mounts_is_read_as_the_kernel_writes_it() {
        let table = "22 27 0:21 / /proc rw - proc proc rw\n30 22 8:1 /x /srv/my\\040data rw - ext4 /dev/sda1 rw\n";
        assert!(is_mounted(table, Path::new("/srv/my data")));
        assert!(!is_mounted(table, Path::new("/srv")));
    }
}
