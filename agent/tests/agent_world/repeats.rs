//! A listed command, whose report may be lost, is run once; and what was stopped by a step whose word was lost is not called
//! found at rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::*;

use crate::coordinator::Coordinator;
use crate::recorder::Recorder;
use crate::world::{CACHE, Member, Running, UPLOADS, command, coordinators, terms, until};

/// The primary's agent under a held lease, with a service beside its databases, and the coordinators that command it.
struct Primary {
    group: [Coordinator; 3],
    agent: Member,
    uploads: Arc<Recorder>,
    _guard: tokio::task::JoinHandle<()>,
}

impl Primary {
    async fn start() -> (Self, Running) {
        let group = coordinators().await;
        let mut agent = Member::new("a", &group).await;
        let uploads = Arc::new(Recorder::of_a_service());
        agent.uploads = Some(uploads.clone());
        let guard = agent.guard().await;
        let first = terms(10, 3, "a", crate::D, &[&agent]);
        group.iter().for_each(|coordinator| coordinator.set_terms(&first));
        let running = agent.start().await;
        crate::held(&group, "a", 10).await;
        (Self { group, agent, uploads, _guard: guard }, running)
    }

    /// Another process of it, of which nothing has been seen yet.
    async fn start_again(&self) -> Running {
        for coordinator in &self.group {
            coordinator.control().statuses.clear();
            coordinator.control().beats.clear();
        }
        let running = self.agent.start().await;
        crate::held(&self.group, "a", 10).await;
        running
    }

    /// Commands a step, and gives what the agent says of its end.
    async fn ends(&self, asked: StepCommand) -> StepStatus {
        let token = asked.token.unwrap().index;
        self.group[0].send("a", Body::Step(asked));
        until("its end", || crate::ended(&self.group[0], token).is_some()).await;
        crate::ended(&self.group[0], token).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_has_ended_well_is_not_run_by_another_attempt() {
    let (primary, running) = Primary::start().await;
    let attempt = |number: u32, token: u64, step: u32| StepCommand {
        attempt: number,
        step,
        command: "migrate".to_owned(),
        ..command(token, 3, StepKind::Run)
    };
    primary.agent.driver.unhealthy.store(true, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(1, 50, 9)).await.phase(), StepPhase::Failed);
    primary.agent.driver.unhealthy.store(false, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(2, 51, 9)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.ends(attempt(3, 52, 9)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.agent.driver.count("run"), 2, "what failed is tried again, what ended well is not");
    assert_eq!(primary.ends(attempt(1, 53, 10)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.agent.driver.count("run"), 3, "another step of the run is another matter");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_has_restored_is_not_restored_by_another_attempt() {
    let (primary, running) = Primary::start().await;
    let attempt = |resource: &str, number: u32, token: u64, step: u32| StepCommand {
        attempt: number,
        step,
        resource: resource.to_owned(),
        ..command(token, 3, StepKind::Restore)
    };
    primary.uploads.unhealthy.store(true, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(UPLOADS, 1, 50, 9)).await.phase(), StepPhase::Failed);
    primary.uploads.unhealthy.store(false, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(UPLOADS, 2, 51, 9)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.ends(attempt(UPLOADS, 3, 52, 9)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.uploads.count("restore"), 2, "what failed is tried again, what ended well is not");
    assert_eq!(primary.uploads.count("guard"), 0, "it has no marker");

    // The driver of a database reads for itself what is there, and what it restored is marked.
    assert_eq!(primary.ends(attempt(CACHE, 1, 53, 10)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.ends(attempt(CACHE, 2, 54, 10)).await.phase(), StepPhase::Succeeded);
    assert_eq!((primary.agent.cache.count("restore"), primary.agent.cache.count("guard")), (2, 2));
    running.end().await;

    let running = primary.start_again().await;
    assert_eq!(primary.ends(attempt(UPLOADS, 4, 55, 9)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.uploads.count("restore"), 2, "answered from the record, by another process");
    assert_eq!(primary.ends(attempt(UPLOADS, 1, 56, 11)).await.phase(), StepPhase::Succeeded);
    assert_eq!(primary.uploads.count("restore"), 3, "another step of the run is another matter");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_restored_is_looked_at_again_and_what_died_in_the_middle_is_told() {
    let (primary, running) = Primary::start().await;
    let uploads = &primary.uploads;
    let attempt = |number: u32, token: u64, step: u32| StepCommand {
        attempt: number,
        step,
        resource: UPLOADS.to_owned(),
        ..command(token, 3, StepKind::Restore)
    };
    let counts = || (uploads.count("restore"), uploads.count("verify_restored"));
    uploads.unverified.store(true, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(1, 50, 9)).await.code, "restore-unverified");
    assert_eq!(primary.ends(attempt(2, 51, 9)).await.code, "restore-unverified");
    assert_eq!(counts(), (1, 2), "it is not restored once more");
    running.end().await;

    let running = primary.start_again().await;
    uploads.unverified.store(false, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(3, 52, 9)).await.phase(), StepPhase::Succeeded);
    assert_eq!(counts(), (1, 3), "nor by another process");

    // Another step, which is ended in the middle.
    uploads.slow_restore.store(true, Ordering::Relaxed);
    let short = StepCommand { timeout_ms: 300, ..attempt(1, 53, 10) };
    assert_eq!(primary.ends(short).await.code, "timeout");
    uploads.slow_restore.store(false, Ordering::Relaxed);
    for (number, token) in [(2, 54), (3, 55)] {
        let refused = primary.ends(attempt(number, token, 10)).await;
        assert_eq!((refused.code.as_str(), refused.retryable), ("restore-interrupted", false), "{refused:?}");
    }
    assert_eq!(counts(), (2, 3));
    uploads.repeatable.store(true, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(4, 56, 10)).await.phase(), StepPhase::Succeeded);
    assert_eq!(counts(), (3, 4), "where it may be, it is repeated");
    uploads.repeatable.store(false, Ordering::Relaxed);

    // And one that is ended by a signal, while its agent lives on.
    uploads.killed_restore.store(true, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(1, 57, 11)).await.code, "restore-interrupted");
    assert_eq!(counts(), (4, 4));
    uploads.killed_restore.store(false, Ordering::Relaxed);
    assert_eq!(primary.ends(attempt(2, 58, 11)).await.code, "restore-interrupted");
    assert_eq!(counts(), (4, 4), "nobody knows what it has left");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_attempt_may_have_stopped_was_not_found_at_rest() {
    let (primary, running) = Primary::start().await;
    let attempt = |number: u32, token: u64, step: u32| StepCommand {
        attempt: number,
        step,
        resource: UPLOADS.to_owned(),
        ..command(token, 3, StepKind::Deactivate)
    };
    // It rests from the beginning.
    primary.uploads.at_rest.store(true, Ordering::Relaxed);
    let found = primary.ends(attempt(1, 50, 9)).await;
    assert!(found.phase() == StepPhase::Succeeded && found.already, "{found:?}");
    let again = primary.ends(attempt(2, 51, 9)).await;
    assert!(again.phase() == StepPhase::Succeeded && !again.already, "{again:?}");
    let other = primary.ends(attempt(1, 52, 10)).await;
    assert!(other.already, "another step of the run is another matter: {other:?}");
    running.end().await;
}
