//! A database that is added to an application whose primary leads already.

use std::sync::atomic::Ordering;

use regent_agent::journal::{FILE, JournalFile};
use regent_core::id::{Epoch, ResourceId};
use regent_proto::agent::v1::TermsUpdate;

use super::world::{CACHE, DB, Member, coordinators, names, terms, until};
use super::{D, held};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_added_at_the_same_epoch_is_marked_before_its_terms_are_named() {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let _guard = a.guard().await;
    a.driver.writable.store(true, Ordering::Relaxed);
    a.cache.writable.store(true, Ordering::Relaxed);
    a.cache.unmarkable.store(true, Ordering::Relaxed);
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a])));
    let running = a.start().await;
    held(&group, "a", 10).await;
    assert_eq!(a.cache.calls(), [""; 0], "not guarded by these terms");

    let guarded = vec![DB.to_owned(), CACHE.to_owned()];
    let wider = TermsUpdate { guarded, ..terms(11, 1, "a", D, &[&a]) };
    group.iter().for_each(|coordinator| coordinator.set_terms(&wider));
    until("that it is tried again", || a.cache.count("guard") > 1).await;
    let beat = group[0].last("a").unwrap();
    assert_eq!(beat.terms_stored.map(|terms| terms.index), Some(11));
    assert_eq!(beat.terms_named.map(|terms| terms.index), Some(10), "not while its next start would come up open");
    a.cache.unmarkable.store(false, Ordering::Relaxed);
    held(&group, "a", 11).await;

    let view = JournalFile::peek(&a.directory.path().join("data").join(FILE)).unwrap();
    let (application, _) = names();
    let cache = &view.applications[&application].resources[&ResourceId::new(CACHE).unwrap()];
    assert_eq!((cache.marked, cache.opened), (true, Epoch(1)));
    // It is restarted and comes up closed: as open as it was found it is opened again.
    a.cache.writable.store(false, Ordering::Relaxed);
    until("that it is opened again", || a.cache.count("unfence") > 0).await;
    assert_eq!((a.driver.count("fence"), a.cache.count("fence")), (0, 0));
    running.end().await;
}
