//! An agent that asks nobody, and is told that another process of its own is registered.

use super::coordinator::Mode;
use super::world::until;
use super::{all, held, leading};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_for_another_process_of_its_agent_gives_itself_no_lease() {
    // The only cluster: there is nobody to ask for promises.
    let (group, a, running) = leading(1).await;
    all(&group, Mode::Silent);
    until("a lease by nobody's word", || group[0].last("a").is_some_and(|beat| beat.failsafe)).await;
    assert_eq!(a.driver.count("fence"), 0);
    all(&group, Mode::Refuse);
    until("the self-fence", || a.driver.count("fenced") == 1).await;
    // It is the registered one after all.
    all(&group, Mode::Grant);
    let heard = || group.each_ref().map(|coordinator| coordinator.beats_heard("a"));
    // First every stream is up, so that no refusal comes any more; then each hears what was sent since.
    for _ in 0..2 {
        let before = heard();
        until("more heartbeats", || heard().into_iter().zip(before).all(|(heard, before)| heard > before + 1)).await;
    }
    held(&group, "a", 10).await;
    all(&group, Mode::Silent);
    until("a lease by nobody's word again", || group[0].last("a").is_some_and(|beat| beat.failsafe)).await;
    assert_eq!(a.driver.count("fenced"), 1);
    running.end().await;
}
