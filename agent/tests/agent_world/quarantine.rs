//! A service of a cluster that was left.

use std::sync::atomic::Ordering;

use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::{StepCommand, StepKind, TermsUpdate};

use super::world::{CACHE, Member, command, coordinators, terms, until};
use super::{D, ended, held};

/// These terms leave `a`.
fn leaving_a(mut terms: TermsUpdate) -> TermsUpdate {
    terms.clusters.iter_mut().filter(|listed| listed.cluster == "a").for_each(|listed| listed.excluded = true);
    terms
}

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

    let left = leaving_a(terms(11, 2, "b", D, &[&a, &b]));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_activates_it_does_not_wait_for_its_rest() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    a.cache.rests.store(true, Ordering::Relaxed);
    a.cache.slow_rest.store(true, Ordering::Relaxed);
    let _guard = a.guard().await;
    let left = leaving_a(terms(11, 2, "b", D, &[&a, &b]));
    group.iter().for_each(|coordinator| coordinator.set_terms(&left));
    let running = a.start().await;
    until("its rest", || a.cache.count("deactivate") == 1).await;

    let back = terms(12, 3, "a", D, &[&a, &b]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&back));
    held(&group, "a", 12).await;
    let activate = StepCommand { resource: CACHE.to_owned(), ..command(50, 3, StepKind::Activate) };
    group[0].send("a", Body::Step(activate));
    until("its activation", || ended(&group[0], 50).is_some()).await;
    assert_eq!(ended(&group[0], 50).unwrap().code, "");
    let beats = || group[0].control().beats["a"].len();
    let before = beats();
    until("some more heartbeats", || beats() > before + 5).await;
    assert_eq!((a.cache.count("deactivate"), a.cache.count("activate")), (1, 1), "it is stopped no more");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_pause_it_is_left() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    a.cache.rests.store(true, Ordering::Relaxed);
    let paused = TermsUpdate { paused: true, ..leaving_a(terms(11, 2, "b", D, &[&a, &b])) };
    group.iter().for_each(|coordinator| coordinator.set_terms(&paused));
    let running = a.start().await;
    let stored = |number: u64| {
        let beat = group[0].last("a").and_then(|beat| beat.terms_stored);
        beat.is_some_and(|token| token.index == number)
    };
    until("the terms", || stored(11)).await;
    let beats = || group[0].control().beats["a"].len();
    let before = beats();
    until("some more heartbeats", || beats() > before + 5).await;
    assert_eq!(a.cache.count("deactivate"), 0);
    let resumed = leaving_a(terms(12, 2, "b", D, &[&a, &b]));
    group.iter().for_each(|coordinator| coordinator.set_terms(&resumed));
    until("its rest", || a.cache.count("deactivate") > 0).await;
    running.end().await;
}
