//! A data directory that was copied, or whose files went back in time, is refused; what the agent itself rewrites is not.

use std::fs;
use std::os::unix::fs::MetadataExt;

use regent_core::id::{ApplicationId, Epoch};

use super::*;

fn seen(epoch: u64) -> Record {
    Record::Seen { application: ApplicationId::new("shop").unwrap(), epoch: Epoch(epoch) }
}

fn open(directory: &Path) -> Result<Journal, JournalError> {
    Journal::open_with(directory, Writing::InPlace)
}

fn born(directory: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(directory.join(FILE)).unwrap().created().ok()
}

/// A copy that came into being later: the clock of a file system moves on by some milliseconds at a time.
fn copy(directory: &Path) -> tempfile::TempDir {
    loop {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(directory.join(FILE), copy.path().join(FILE)).unwrap();
        if born(directory).is_none() || born(copy.path()) != born(directory) {
            return copy;
        }
    }
}

fn is_copy(directory: &Path) -> bool {
    // The gate looks before the agent does.
    let peeked = matches!(JournalFile::peek(&directory.join(FILE)), Err(JournalError::Copied { .. }));
    let opened = is_refused(directory);
    assert_eq!(peeked, opened);
    opened
}

fn is_refused(directory: &Path) -> bool {
    match open(directory) {
        Err(error @ JournalError::Copied { .. }) => {
            assert!(error.to_string().contains("--installation"), "{error}");
            true
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

#[tokio::test]
async fn a_copy_is_refused_and_the_original_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).unwrap();
    if born(directory.path()).is_none() {
        eprintln!("skipped: this file system keeps no times of birth");
        return;
    }
    let copied = copy(directory.path());
    assert!(is_copy(copied.path()));
    journal.append(vec![seen(7)]).await.unwrap();
    drop(journal);
    // Moved is not copied.
    let moved = tempfile::tempdir_in(directory.path()).unwrap();
    fs::rename(directory.path().join(FILE), moved.path().join(FILE)).unwrap();
    assert!(!is_copy(moved.path()));
    // An older state of it is put back as a file.
    let place = moved.path().join(FILE);
    fs::remove_file(&place).unwrap();
    fs::copy(copied.path().join(FILE), &place).unwrap();
    assert!(is_copy(moved.path()), "it has forgotten the epoch");
}

#[tokio::test]
async fn what_the_agent_rewrites_itself_is_no_copy() {
    let directory = tempfile::tempdir().unwrap();
    let inode = || fs::metadata(directory.path().join(FILE)).unwrap().ino();
    let journal = open(directory.path()).unwrap();
    let before = inode();
    let mut epoch = 0;
    while inode() == before {
        journal.append((epoch..epoch + 1_000).map(seen).collect()).await.unwrap();
        epoch += 1_000;
        assert!(epoch < 1_000_000, "it is never rewritten");
    }
    drop(journal);
    // In a new file, which says of itself when it came into being.
    for incarnation in 2..5 {
        let journal = open(directory.path()).unwrap();
        assert_eq!(journal.view().incarnation, Incarnation(incarnation));
    }
    if born(directory.path()).is_some() {
        assert!(is_copy(copy(directory.path()).path()));
    }
}

#[test]
fn a_journal_that_does_not_say_when_it_came_into_being_is_taken_and_says_so_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mut file, _, _) = JournalFile::open(&directory.path().join(FILE)).unwrap();
    file.append(&[Record::Started { incarnation: Incarnation(4) }]).unwrap();
    drop(file);
    assert!(!is_copy(copy(directory.path()).path()), "nobody can tell");
    assert!(!is_copy(directory.path()));
    if born(directory.path()).is_some() {
        assert!(is_copy(copy(directory.path()).path()));
    }
    assert!(!is_copy(directory.path()));
}
