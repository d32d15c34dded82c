//! A service of a cluster that was left.

use std::sync::atomic::Ordering;

use super::world::{Member, coordinators, terms, until};
use super::{D, held};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_kept_at_rest_until_the_cluster_is_readmitted() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    a.cache.rests.store(true, Ordering::Relaxed);
    let _guard = a.guard().await;
    let first = terms(10, 1, "a", D, &[&a, &b]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&first));
    let running = a.start().await;
    held(&group, "a", 10).await;
    let looks = || group[0].control().beats["a"].len();
    let stored = |number: u64| {
        let beat = group[0].last("a").and_then(|beat| beat.terms_stored);
        beat.is_some_and(|token| token.index == number)
    };
    let before = looks();
    until("some more heartbeats", || looks() > before + 5).await;
    assert_eq!(a.cache.count("deactivate"), 0, "of the primary nothing is stopped");

    let mut left = terms(11, 2, "b", D, &[&a, &b]);
    left.clusters.iter_mut().filter(|listed| listed.cluster == "a").for_each(|listed| listed.excluded = true);
    group.iter().for_each(|coordinator| coordinator.set_terms(&left));
    // Somebody may start it again: it is seen to at every probe, and nothing else is.
    until("its rest, again and again", || a.cache.count("deactivate") >= 3).await;
    assert_eq!(a.driver.count("deactivate"), 0, "what is no such service is left");

    let readmitted = terms(12, 2, "b", D, &[&a, &b]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&readmitted));
    until("the terms that readmit it", || stored(12)).await;
    let (before, done) = (looks(), a.cache.count("deactivate"));
    until("some more heartbeats", || looks() > before + 5).await;
    assert!(a.cache.count("deactivate") <= done + 1, "it is a standby, and left as it is");
    running.end().await;
}
