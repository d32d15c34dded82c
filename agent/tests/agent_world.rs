//! The agent whole: real streams, a real guard, a recording database, and coordinators that do as they are told.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use regent_agent::journal::{FILE, JournalFile};
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::*;

#[path = "agent_world/coordinator.rs"]
mod coordinator;
#[path = "agent_world/doubled.rs"]
mod doubled;
#[path = "agent_world/drills.rs"]
mod drills;
#[path = "agent_world/epochs.rs"]
mod epochs;
#[path = "agent_world/guarding.rs"]
mod guarding;
#[path = "agent_world/holds.rs"]
mod holds;
#[path = "agent_world/leaving.rs"]
mod leaving;
#[path = "agent_world/looking.rs"]
mod looking;
#[path = "agent_world/processes.rs"]
mod processes;
#[path = "agent_world/quarantine.rs"]
mod quarantine;
#[path = "agent_world/quiescing.rs"]
mod quiescing;
#[path = "agent_world/recorder.rs"]
mod recorder;
#[path = "agent_world/rejoins.rs"]
mod rejoins;
#[path = "agent_world/repeats.rs"]
mod repeats;
#[path = "agent_world/world.rs"]
mod world;

use coordinator::{Coordinator, Mode};
use world::{Member, Running, command, coordinators, terms, until};

/// Smallest D: F = 333 ms, T = 1417 ms.
const D: u64 = 2_000;
const T: Duration = Duration::from_millis(1_417);
const F: Duration = Duration::from_millis(333);

pub(crate) async fn held(group: &[Coordinator; 3], cluster: &str, number: u64) {
    until("a held lease, terms named", || {
        group.iter().all(|coordinator| {
            coordinator.last(cluster).is_some_and(|beat| {
                beat.lease() == LeaseState::Held && beat.terms_named.is_some_and(|terms| terms.index == number)
            })
        })
    })
    .await;
}

/// The agent of the only cluster, with its guard, under a held lease of this epoch.
async fn leading(epoch: u64) -> ([Coordinator; 3], Member, Running) {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let _guard = a.guard().await;
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, epoch, "a", D, &[&a])));
    let running = a.start().await;
    held(&group, "a", 10).await;
    (group, a, running)
}

/// The same beside another cluster whose agent does not run: there is no promise to be had.
async fn leading_without_promises() -> ([Coordinator; 3], [Member; 2], Running) {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    let _guard = a.guard().await;
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a, &b])));
    let running = a.start().await;
    held(&group, "a", 10).await;
    (group, [a, b], running)
}

fn all(group: &[Coordinator; 3], mode: Mode) {
    group.iter().for_each(|coordinator| coordinator.control().mode = mode);
}

fn ended(coordinator: &Coordinator, token: u64) -> Option<StepStatus> {
    let control = coordinator.control();
    let mut of_token = control.statuses.iter().filter(|status| status.token.is_some_and(|named| named.index == token));
    of_token.rfind(|status| status.phase() != StepPhase::Running).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_lease_then_lapse_then_lifting() {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let b = Member::new("b", &group).await;
    a.driver.writable.store(true, Ordering::Relaxed);
    let _guard = a.guard().await;
    all(&group, Mode::Withhold);
    // b's agent does not run: there is no promise to be had.
    let first = terms(10, 1, "a", D, &[&a, &b]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&first));
    let running = a.start().await;
    until("terms stored everywhere", || {
        group.iter().all(|one| one.last("a").is_some_and(|beat| beat.terms_stored.is_some()))
    })
    .await;
    assert_eq!(a.driver.calls(), [""; 0], "before its first lease it touches nothing");
    assert!(group[0].last("a").unwrap().terms_named.is_none());
    // One grant is no majority.
    group[0].control().mode = Mode::Grant;
    let beats = group[0].control().beats["a"].len();
    until("some more heartbeats", || group[0].control().beats["a"].len() > beats + 5).await;
    assert_eq!(a.driver.calls(), [""; 0]);
    group[1].control().mode = Mode::Grant;
    held(&group, "a", 10).await;
    assert_eq!(a.driver.calls()[0], "guard", "guarded before it named the terms");
    let beat = group[0].last("a").unwrap();
    assert!(beat.guarded && beat.guard_alive && beat.lease_left_ms <= 1_417);

    // The coordinators answer and grant no more: that is the whole group voting.
    all(&group, Mode::Withhold);
    let stopped = Instant::now();
    until("the self-fence", || a.driver.count("fenced") == 1).await;
    let fenced = a.driver.last("fenced").unwrap();
    assert!(fenced <= stopped + T + F, "fenced within T + F of the last grant: {:?}", fenced - stopped);
    assert!(fenced >= stopped + T - Duration::from_millis(250 + 300), "not much before it: {:?}", fenced - stopped);
    until("that it says so", || group[2].last("a").is_some_and(|beat| beat.fence() == FenceState::Self_)).await;
    assert_eq!(a.driver.count("fence_hard"), 0, "the guard was disarmed in time");

    // The lease of the same epoch comes back.
    let before = a.driver.count("unfence");
    all(&group, Mode::Double);
    until("the lifting", || a.driver.count("unfence") > before).await;
    held(&group, "a", 10).await;
    until("that it says so", || group[2].last("a").is_some_and(|beat| beat.fence() == FenceState::Open)).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_epoch_fences_at_once_and_a_hanging_fence_goes_hard() {
    let (group, a, running) = leading(1).await;
    a.driver.hang.store(true, Ordering::Relaxed);
    // One coordinator alone names it.
    group[2].control().epoch = 2;
    let named = Instant::now();
    until("the hard fence", || a.driver.count("fence_hard") > 0).await;
    let hard = a.driver.last("fence_hard").unwrap();
    assert!(hard - named <= Duration::from_millis(200) + F, "a heartbeat and F/2 later: {:?}", hard - named);
    until("that it says so", || group[0].last("a").is_some_and(|beat| beat.lease() == LeaseState::None)).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_count_from_their_sending() {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let _guard = a.guard().await;
    let first = terms(10, 1, "a", D, &[&a]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&first));
    all(&group, Mode::Delay(Duration::from_millis(400)));
    let running = a.start().await;
    held(&group, "a", 10).await;
    let lefts: Vec<u64> = {
        let control = group[0].control();
        let beats = control.beats["a"].iter().flat_map(|beat| &beat.applications);
        beats.filter(|beat| beat.lease() == LeaseState::Held).map(|beat| beat.lease_left_ms).collect()
    };
    assert!(lefts.iter().all(|left| *left <= 1_417 - 400), "{lefts:?}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_are_refused_answered_from_the_record_and_survive_a_restart() {
    let (group, a, running) = leading(3).await;
    let send = |body: StepCommand| group[0].send("a", Body::Step(body));

    send(command(50, 3, StepKind::Verify));
    until("the end of the step at every coordinator", || group.iter().all(|one| ended(one, 50).is_some())).await;
    let status = ended(&group[1], 50).unwrap();
    assert_eq!((status.phase(), status.position), (StepPhase::Succeeded, Some(77)));

    send(command(50, 3, StepKind::Verify));
    send(command(49, 3, StepKind::Verify));
    send(command(60, 2, StepKind::Verify));
    send(StepCommand { resource: "nowhere".to_owned(), ..command(61, 3, StepKind::Verify) });
    until("the refusals", || [49, 60, 61].iter().all(|token| ended(&group[0], *token).is_some())).await;
    assert_eq!(ended(&group[0], 49).unwrap().code, "stale-token");
    assert_eq!(ended(&group[0], 60).unwrap().code, "stale-epoch");
    assert_eq!(ended(&group[0], 61).unwrap().code, "unknown-resource");
    assert_eq!(a.driver.count("verify"), 1, "answered from the record");

    send(command(70, 3, StepKind::Fence));
    until("the commanded fence", || ended(&group[0], 70).is_some()).await;
    assert_eq!(group[0].last("a").map(|_| ended(&group[0], 70).unwrap().phase()), Some(StepPhase::Succeeded));
    until("that it says so", || group[0].last("a").is_some_and(|beat| beat.fence() == FenceState::Commanded)).await;
    let unfenced = a.driver.count("unfence");
    running.end().await;

    for coordinator in &group {
        coordinator.control().statuses.clear();
        coordinator.control().beats.clear();
    }
    let running = a.start().await;
    held(&group, "a", 10).await;
    assert_eq!(group[0].last("a").unwrap().fence(), FenceState::Commanded, "kept over the restart");
    until("that the fence is carried out again", || a.driver.count("fence") == 2).await;
    send(command(50, 3, StepKind::Verify));
    until("the answer from the record", || ended(&group[0], 50).is_some()).await;
    assert_eq!(a.driver.count("verify"), 1);
    assert_eq!(a.driver.count("unfence"), unfenced, "a commanded fence is not lifted by the lease");
    send(command(80, 3, StepKind::Unfence));
    until("the unfence", || ended(&group[0], 80).is_some_and(|end| end.phase() == StepPhase::Succeeded)).await;
    until("that it says so", || group[0].last("a").is_some_and(|beat| beat.fence() == FenceState::Open)).await;
    assert_eq!(a.driver.count("fence_hard"), 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_waits_for_its_lease_and_ends_with_it() {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let b = Member::new("b", &group).await;
    let _guard = a.guard().await;
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "b", D, &[&a, &b])));
    let running = a.start().await;
    until("the terms", || group.iter().all(|one| one.last("a").is_some_and(|beat| beat.epoch == 1))).await;
    // A fresh agent waits out what it may have promised before it lost its memory; the old side is fenced here.
    let promote = StepCommand { old_side_fenced: true, ..command(20, 2, StepKind::Promote) };
    all(&group, Mode::Withhold);
    group[0].send("a", Body::Step(promote.clone()));
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(11, 2, "a", D, &[&a, &b])));
    let waits = |status: &StepStatus| status.message.contains("waits for the lease");
    until("that it waits", || group[1].control().statuses.iter().any(waits)).await;
    assert_eq!(a.driver.count("promote"), 0);
    a.driver.slow.store(true, Ordering::Relaxed);
    all(&group, Mode::Grant);
    until("the promotion", || a.driver.count("promote") == 1).await;
    assert_eq!(a.driver.calls()[..2], ["guard", "promote"]);
    // The lease lapses while the database is being promoted: the step ends, and then the fence begins.
    all(&group, Mode::Withhold);
    until("the end of the step", || ended(&group[0], 20).is_some()).await;
    assert_eq!(ended(&group[0], 20).unwrap().code, "lease-lapsed");
    until("the fence of what is not promoted yet", || a.driver.count("fenced") == 1).await;
    a.driver.slow.store(false, Ordering::Relaxed);
    all(&group, Mode::Grant);
    group[1].send(
        "a",
        Body::Step(StepCommand {
            step: 20,
            attempt: 2,
            ..StepCommand { token: Some(Token { restoration: 0, index: 21 }), ..promote }
        }),
    );
    until("the second attempt", || ended(&group[0], 21).is_some()).await;
    assert_eq!(ended(&group[0], 21).unwrap().phase(), StepPhase::Succeeded);
    assert_eq!(a.driver.count("unfence"), 0, "what was never opened is opened by its promotion alone");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_promises_the_lease_goes_on_and_the_promiser_waits() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    a.driver.writable.store(true, Ordering::Relaxed);
    let _guards = (a.guard().await, b.guard().await);
    let first = terms(10, 1, "a", D, &[&a, &b]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&first));
    let (running_a, running_b) = (a.start().await, b.start().await);
    held(&group, "a", 10).await;
    until("b's terms", || group[0].last("b").is_some_and(|beat| beat.epoch == 1)).await;
    all(&group, Mode::Withhold);
    let stopped = Instant::now();
    until("the failsafe", || group[0].last("a").is_some_and(|beat| beat.failsafe)).await;
    until("twice T", || stopped.elapsed() > T * 2).await;
    assert_eq!(a.driver.count("fence"), 0, "coordinator trouble alone changes nothing");
    assert_eq!(group[0].last("a").unwrap().lease(), LeaseState::Held);
    until("b's report of the question", || {
        let control = group[0].control();
        let reports = control.beats["b"].iter().filter_map(|beat| beat.report.as_ref());
        reports.flat_map(|report| &report.promises_asked).any(|asked| asked.cluster == "a" && asked.epoch == 1)
    })
    .await;
    until("b's sight of a's signed lease", || {
        let control = group[0].control();
        let reports = control.beats["b"].iter().filter_map(|beat| beat.report.as_ref());
        reports.flat_map(|report| &report.witnesses).any(|sign| sign.answered && sign.leases.len() == 1)
    })
    .await;

    // b is decided for, and had promised: it must not promote before D after a's last question.
    let decided = Instant::now();
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(11, 2, "b", D, &[&a, &b])));
    all(&group, Mode::Grant);
    group[0].send("b", Body::Step(command(20, 2, StepKind::Promote)));
    until("that it waits", || group[0].control().statuses.iter().any(|status| status.message.contains("not before")))
        .await;
    until("a's fence", || a.driver.count("fenced") == 1).await;
    until("the promotion", || b.driver.count("promote") == 1).await;
    let promoted = b.driver.last("promote").unwrap();
    assert!(promoted > a.driver.last("fenced").unwrap());
    assert!(promoted - decided > Duration::from_millis(D - 500), "{:?}", promoted - decided);
    running_a.end().await;
    running_b.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_of_the_coordinators_it_fences_and_comes_back() {
    let (group, [a, _b], running) = leading_without_promises().await;
    all(&group, Mode::Silent);
    let stopped = Instant::now();
    until("the self-fence", || a.driver.count("fenced") == 1).await;
    assert!(a.driver.last("fenced").unwrap() <= stopped + T + F);
    all(&group, Mode::Grant);
    held(&group, "a", 10).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commanded_fence_ends_a_lift_that_runs() {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let _guard = a.guard().await;
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a])));
    a.driver.slow_unfence.store(true, Ordering::Relaxed);
    let running = a.start().await;
    held(&group, "a", 10).await;
    until("the lift", || a.driver.count("unfence") == 1).await;
    group[0].send("a", Body::Step(command(20, 1, StepKind::Fence)));
    until("the commanded fence", || ended(&group[0], 20).is_some()).await;
    assert_eq!(ended(&group[0], 20).unwrap().phase(), StepPhase::Succeeded);
    // Whatever of the lift had been left would open now.
    a.driver.slow_unfence.store(false, Ordering::Relaxed);
    let beats = group[0].control().beats["a"].len();
    until("some more heartbeats", || group[0].control().beats["a"].len() > beats + 8).await;
    assert!(!a.driver.writable.load(Ordering::Relaxed), "opened behind a confirmed fence: {:?}", a.driver.calls());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_is_repeated_at_the_start_closes_nothing_behind_a_newer_step() {
    let (group, a, running) = leading(1).await;
    group[0].send("a", Body::Step(command(20, 1, StepKind::Fence)));
    until("the commanded fence", || ended(&group[0], 20).is_some()).await;
    running.end().await;

    a.driver.slow_fence.store(true, Ordering::Relaxed);
    let fences = a.driver.count("fence");
    group.iter().for_each(|coordinator| coordinator.control().beats.clear());
    let running = a.start().await;
    held(&group, "a", 10).await;
    until("that the fence is repeated", || a.driver.count("fence") > fences).await;
    let unfenced = a.driver.count("unfence");
    group[0].send("a", Body::Step(command(30, 1, StepKind::Unfence)));
    let waits = |status: &StepStatus| status.message.contains("older fence");
    until("that it waits, or is done", || {
        group[0].control().statuses.iter().any(waits) || ended(&group[0], 30).is_some()
    })
    .await;
    assert_eq!(a.driver.count("unfence"), unfenced, "{:?}", a.driver.calls());
    a.driver.slow_fence.store(false, Ordering::Relaxed);
    until("the end of the step", || ended(&group[0], 30).is_some()).await;
    assert_eq!(ended(&group[0], 30).unwrap().phase(), StepPhase::Succeeded);
    assert!(a.driver.writable.load(Ordering::Relaxed), "closed behind it: {:?}", a.driver.calls());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_groups_one_is_joined_and_the_other_never_hears_of_it() {
    let group = coordinators().await;
    group[2].control().group = "another-group";
    let a = Member::new("a", &group).await;
    let running = a.start().await;
    let heard = || group.each_ref().map(|coordinator| coordinator.beats_heard("a"));
    until("heartbeats", || heard().iter().any(|heard| *heard > 5)).await;
    let view = JournalFile::peek(&a.directory.path().join("data").join(FILE)).unwrap();
    let joined = view.group.unwrap().0;
    for (coordinator, heard) in group.iter().zip(heard()) {
        assert_eq!(
            heard > 0,
            coordinator.control().group == joined,
            "joined {joined}, {} heard {heard}",
            coordinator.id
        );
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_catches_up_says_how_far_it_has_come() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a, &b])));
    let running = b.start().await;
    until("the terms", || group[0].last("b").is_some_and(|beat| beat.epoch == 1)).await;
    group[0].send("b", Body::Step(command(20, 1, StepKind::CatchUp)));
    until("the refusal", || ended(&group[0], 20).is_some()).await;
    assert_eq!(ended(&group[0], 20).unwrap().code, "bad-command", "up to where, it must be told");

    let said = |text: &str| group[0].control().statuses.iter().any(|status| status.message.contains(text));
    b.driver.position.store(40, Ordering::Relaxed);
    group[0].send("b", Body::Step(StepCommand { position: Some(100), ..command(30, 1, StepKind::CatchUp) }));
    until("how far it is", || said("60 bytes are missing, at 40")).await;
    b.driver.position.store(99, Ordering::Relaxed);
    until("how far it has come", || said("1 bytes are missing, at 99")).await;
    assert!(ended(&group[0], 30).is_none());
    b.driver.position.store(100, Ordering::Relaxed);
    until("the end", || ended(&group[0], 30).is_some()).await;
    assert_eq!(ended(&group[0], 30).unwrap().phase(), StepPhase::Succeeded);
    running.end().await;
}
