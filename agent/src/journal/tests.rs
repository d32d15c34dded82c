use proptest::prelude::*;
use regent_core::id::{ApplicationId, CoordinatorId, Epoch, GroupId, LogIndex, ResourceId, Token};
use regent_core::time::Span;

use super::*;

fn names() -> (ApplicationId, ResourceId) {
    (ApplicationId::new("shop").unwrap(), ResourceId::new("orders-db").unwrap())
}

fn token(index: u64) -> Token {
    Token { restoration: 0, index: LogIndex(index) }
}

fn begun(index: u64) -> Record {
    let (application, resource) = names();
    let resources = [resource].into();
    Record::Begun {
        step: Begun { run: 7, step: 1, attempt: 1, token: token(index), application, resources, epoch: Epoch(2) },
    }
}

fn ended(index: u64) -> Record {
    let (application, resource) = names();
    let outcome = Outcome { message: "promoted".to_owned(), position: Some(9), ..Outcome::default() };
    Record::Ended { application, resource, token: token(index), outcome }
}

fn restoring(index: u64, progress: RestoreProgress) -> Record {
    let (application, resource) = names();
    Record::Restoring { application, resource, token: token(index), progress }
}

fn records() -> Vec<Record> {
    let (application, resource) = names();
    let some = |application: &ApplicationId, resource: &ResourceId| (application.clone(), resource.clone());
    let (one, two) = some(&application, &resource);
    vec![
        Record::Joined { group: GroupId("group".to_owned()) },
        Record::Coordinators {
            coordinators: vec![KnownCoordinator { id: CoordinatorId(4), address: "four:1".to_owned() }],
        },
        Record::Seen { application: application.clone(), epoch: Epoch(2) },
        Record::Led { application: application.clone(), epoch: Epoch(2) },
        Record::Marked { application: application.clone(), resource: resource.clone() },
        Record::Opened { application, resource, epoch: Epoch(2) },
        begun(40),
        Record::Commanded { application: one, resource: two, hold: Hold::Fence },
        ended(40),
        begun(41),
        restoring(41, RestoreProgress::Ended),
        Record::LargestBound { fail_over_after: Span::from_secs(30) },
    ]
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(records()).await.unwrap();
    let before = journal.view().clone();
    assert_eq!(before.incarnation, Incarnation(1));
    drop(journal);
    let journal = reopened(directory.path()).await;
    let after = journal.view().clone();
    assert_eq!(after.incarnation, Incarnation(2), "raised at every start");
    assert_eq!(View { incarnation: Incarnation(1), ..after }, before);
    let (application, resource) = names();
    let shop = &before.applications[&application];
    assert_eq!(shop.resources[&resource].token, token(41));
    assert_eq!(shop.holds(), [(resource.clone(), Hold::Fence)].into());
    assert!(shop.step(&resource, token(40)).unwrap().outcome.is_some());
    assert!(shop.step(&resource, token(41)).unwrap().outcome.is_none());
}

#[test]
fn how_far_a_restore_came_is_known_to_every_attempt_at_its_step() {
    let (application, resource) = names();
    let mut view = View::default();
    let known = |view: &View, index| view.applications[&application].step(&resource, token(index)).unwrap().restoring;
    [begun(40), restoring(40, RestoreProgress::Begun)].iter().for_each(|record| view.apply(record));
    // The same command again, after a crash.
    view.apply(&begun(40));
    assert_eq!(known(&view, 40), Some(RestoreProgress::Begun));
    [begun(41), restoring(41, RestoreProgress::Ended)].iter().for_each(|record| view.apply(record));
    assert_eq!((known(&view, 40), known(&view, 41)), (Some(RestoreProgress::Ended), Some(RestoreProgress::Ended)));
    // More attempts than are kept.
    (42..62).for_each(|index| view.apply(&begun(index)));
    assert_eq!(known(&view, 61), Some(RestoreProgress::Ended));
    let mut again = View::default();
    view.records().iter().for_each(|record| again.apply(record));
    assert_eq!(again, view, "a rewritten journal says the same");
    let Record::Begun { step } = begun(70) else { panic!("it is one") };
    view.apply(&Record::Begun { step: Begun { step: 2, ..step } });
    assert_eq!(known(&view, 70), None, "another step of the run is another matter");
}

#[test]
fn a_release_keeps_what_a_late_word_of_the_former_life_is_refused_by() {
    let (application, resource) = names();
    let mut view = View::default();
    records().iter().for_each(|record| view.apply(record));
    view.apply(&Record::Released { application: application.clone() });
    let shop = &view.applications[&application];
    assert_eq!((shop.seen, shop.led, shop.resources[&resource].token), (Epoch(2), Epoch(0), token(41)));
    assert!(shop.released && shop.holds().is_empty() && shop.marked().is_empty());
    let mut again = View::default();
    view.records().iter().for_each(|record| again.apply(record));
    assert_eq!(again, view, "a rewritten journal says the same");
}

/// The writer's thread lets go of the lock after the last handle is gone.
async fn reopened(directory: &Path) -> Journal {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match Journal::open(directory) {
            Ok(journal) => return journal,
            Err(JournalError::Locked { .. }) if std::time::Instant::now() < deadline => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_second_process_is_locked_out() {
    let directory = tempfile::tempdir().unwrap();
    let _journal = Journal::open(directory.path()).unwrap();
    assert!(matches!(Journal::open(directory.path()), Err(JournalError::Locked { .. })));
}

fn written(directory: &Path) -> (PathBuf, View) {
    let path = directory.join(FILE);
    let (mut file, mut view, _) = JournalFile::open(&path).unwrap();
    file.append(&records()).unwrap();
    records().iter().for_each(|record| view.apply(record));
    (path, view)
}

#[test]
fn compaction_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (path, view) = written(directory.path());
    let (mut file, _, _) = JournalFile::open(&path).unwrap();
    for index in 100..200 {
        file.append(&[begun(index), ended(index)]).unwrap();
    }
    let before = JournalFile::peek(&path).unwrap();
    let length = file.length();
    file.compact(&before).unwrap();
    assert!(file.length() < length / 5);
    assert_eq!(JournalFile::peek(&path).unwrap(), before);
    file.append(&[begun(300)]).unwrap();
    let (application, resource) = names();
    let after = JournalFile::peek(&path).unwrap();
    assert_eq!(after.applications[&application].resources[&resource].token, token(300));
    assert_ne!(after, view);
}

/// Steps enough to make the file grow by more than it may.
async fn grow(journal: &Journal) {
    for hundred in 10..50 {
        let steps = (hundred * 100..hundred * 100 + 100).flat_map(|index| [begun(index), ended(index)]);
        journal.append(steps.collect()).await.unwrap();
    }
}

#[tokio::test]
async fn a_journal_that_grows_is_rewritten_while_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(records()).await.unwrap();
    grow(&journal).await;
    journal.append(vec![begun(9_000)]).await.unwrap();
    let length = std::fs::metadata(directory.path().join(FILE)).unwrap().len();
    assert!(length < COMPACT_AT + COMPACT_AT / 4, "{length}");
    let before = journal.view().clone();
    drop(journal);
    let after = reopened(directory.path()).await.view().clone();
    assert_eq!(View { incarnation: before.incarnation, ..after }, before, "nothing was lost on the way");
}

#[tokio::test]
async fn a_journal_that_cannot_be_rewritten_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    // What a crash in the middle of it leaves would be overwritten; this cannot be.
    std::fs::create_dir(directory.path().join("journal.new")).unwrap();
    grow(&journal).await;
    assert!(std::fs::metadata(directory.path().join(FILE)).unwrap().len() > COMPACT_AT + COMPACT_AT / 4);
    let before = journal.view().clone();
    assert!(journal.has_room());
    drop(journal);
    std::fs::remove_dir(directory.path().join("journal.new")).unwrap();
    std::fs::write(directory.path().join("journal.new"), "half a succ").unwrap();
    let after = reopened(directory.path()).await.view().clone();
    assert_eq!(View { incarnation: before.incarnation, ..after }, before);
    assert!(std::fs::metadata(directory.path().join(FILE)).unwrap().len() < COMPACT_AT);
}

#[test]
fn a_foreign_format_and_a_foreign_file_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    std::fs::write(&path, "regent-agent-journal 3\n").unwrap();
    assert!(matches!(JournalFile::open(&path), Err(JournalError::Format { .. })));
    std::fs::write(&path, "something else entirely\n").unwrap();
    assert!(matches!(JournalFile::open(&path), Err(JournalError::Corrupt { offset: 0, .. })));
}

#[test]
fn a_journal_of_the_former_format_is_raised_before_anything_is_appended() {
    let directory = tempfile::tempdir().unwrap();
    let (path, view) = written(directory.path());
    let place = "regent-agent-journal ".len();
    let number = || std::fs::read(&path).unwrap()[place];
    assert_eq!(number(), b'2');
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[place] = b'1';
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(JournalFile::peek(&path).unwrap(), view);
    assert_eq!(number(), b'1', "who only looks changes nothing");
    let (mut file, read, torn) = JournalFile::open(&path).unwrap();
    assert_eq!((&read, torn, number()), (&view, 0, b'2'));
    file.append(&[begun(99)]).unwrap();
    let mut expected = view;
    expected.apply(&begun(99));
    assert_eq!(JournalFile::peek(&path).unwrap(), expected);
    // One that was torn while it was made.
    std::fs::write(&path, "regent-agent-journal 1").unwrap();
    let (_, read, torn) = JournalFile::open(&path).unwrap();
    assert_eq!((read, torn, number()), (View::default(), 22, b'2'));
}

#[test]
fn a_grown_but_unwritten_end_is_torn() {
    let directory = tempfile::tempdir().unwrap();
    let (path, view) = written(directory.path());
    for zeros in [1usize, 10, 100, 5000] {
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        bytes.extend(vec![0; zeros]);
        std::fs::write(&path, &bytes).unwrap();
        let (file, read, torn) = JournalFile::open(&path).unwrap();
        assert_eq!((read, torn, file.length()), (view.clone(), zeros as u64, whole as u64));
    }
}

/// A file system of 64 KiB, where this user may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(directory.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_leaves_the_journal_whole() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    };
    let directory = disk.0.path();
    let journal = Journal::open(directory).unwrap();
    journal.append(records()).await.unwrap();
    let filler = directory.join("filler");
    let _ = std::fs::write(&filler, vec![1; 1 << 20]);
    let before = journal.view().clone();
    let mut index = 100;
    let error = loop {
        index += 1;
        if let Err(error) = journal.append(vec![begun(index)]).await {
            break error;
        }
    };
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    journal.look_for_room();
    assert!(!journal.has_room());
    assert!(journal.view().applications.len() == before.applications.len());
    std::fs::remove_file(&filler).unwrap();
    journal.append(vec![begun(999)]).await.unwrap();
    let expected = journal.view().clone();
    assert_eq!(JournalFile::peek(&directory.join(FILE)).unwrap(), expected, "nothing half written in between");
    drop(journal);
    drop(reopened(directory).await);
}

proptest! {
    /// Cut anywhere: only whole records are left, never an error, and what follows reads back.
    #[test]
    fn a_torn_tail_is_dropped(cut in any::<prop::sample::Index>()) {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = written(directory.path());
        let whole = std::fs::read(&path).unwrap();
        let cut = cut.index(whole.len());
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (mut file, view, torn) = JournalFile::open(&path).unwrap();
        prop_assert!(torn as usize <= cut);
        file.append(&[begun(99)]).unwrap();
        let mut expected = view;
        expected.apply(&begun(99));
        prop_assert_eq!(JournalFile::peek(&path).unwrap(), expected);
    }

    /// One changed byte in the middle is never read as something else: an error, or no difference that counts.
    #[test]
    fn a_changed_byte_is_found(place in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let directory = tempfile::tempdir().unwrap();
        let (path, view) = written(directory.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        std::fs::write(&path, &bytes).unwrap();
        match JournalFile::open(&path) {
            Err(error) => prop_assert!(error.to_string().contains(path.to_str().unwrap())),
            Ok((_, read, torn)) => {
                let last = records().len() - 1;
                let mut shorter = View::default();
                records()[..last].iter().for_each(|record| shorter.apply(record));
                prop_assert!(read == view || (torn > 0 && read == shorter), "read something else at {}", place);
            }
        }
    }
}
