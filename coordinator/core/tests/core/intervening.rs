//! Whatever an operator says, and whenever: a named state follows, with what to do next, and no write is lost by it.

use regent_core::advice;
use regent_core::application::{Action, OnFailure};
use regent_core::decide::decide;
use regent_core::entry::{Clearing, Entry};
use regent_core::id::{RunId, StepId};
use regent_core::run::{RunStatus, StepState};
use regent_core::state::{Applied, Wish};
use regent_core::time::{Moment, Timestamp};

use crate::approving::{asking, time_out};
use crate::drilling::{PROMOTE, drill, drilled};
use crate::fixture::*;
use crate::rejoining::{failed_over, rejoining};
use crate::running::{begin, end, failed_database, lost, perform};
use crate::switching::{asked_for, at, fenced, reach, ready, started};

/// Every way in which a run can stand, as a world with the run.
pub fn standings() -> Vec<(&'static str, World, RunId)> {
    let mut all = Vec::new();
    let mut add = |name, (world, run)| all.push((name, world, run));
    add("untouched", {
        let mut world = ready();
        let run = started(&mut world);
        (world, run)
    });
    add("waiting", {
        let mut world = ready();
        let run = asked_for(&mut world);
        begin(&mut world, run, "Wait");
        (world, run)
    });
    add("fenced", {
        let mut world = ready();
        let run = fenced(&mut world);
        (world, run)
    });
    add("stuck fence", {
        let mut world = World::protected();
        let run = failed_database(&mut world);
        let fence = begin(&mut world, run, "Fence db@west-1");
        end(&mut world, run, fence, failed(false));
        (world, run)
    });
    add("undoing", {
        let mut world = ready();
        let run = fenced(&mut world);
        reach(&mut world, run, "CatchUp db@central-1", failed(false));
        (world, run)
    });
    add("undo stuck", {
        let mut world = ready();
        let run = fenced(&mut world);
        reach(&mut world, run, "CatchUp db@central-1", failed(false));
        reach(&mut world, run, "Unfence db@west-1", failed(false));
        (world, run)
    });
    add("decided", {
        let mut world = World::protected();
        let run = lost(&mut world);
        (world, run)
    });
    add("stuck promotion", {
        let mut world = World::protected();
        let run = lost(&mut world);
        reach(&mut world, run, "Promote db@central-1", failed(false));
        (world, run)
    });
    add("following", {
        let mut world = ready();
        let run = moved(&mut world);
        (world, run)
    });
    add("stuck rejoin", {
        let mut world = ready();
        let run = moved(&mut world);
        reach(&mut world, run, "Rejoin db@west-1", failed(false));
        (world, run)
    });
    add("rejoining", {
        let mut world = failed_over();
        let run = rejoining(&mut world, false);
        (world, run)
    });
    add("succeeded", {
        let mut world = ready();
        let run = moved(&mut world);
        perform(&mut world, run, "Rejoin db@west-1");
        perform(&mut world, run, "Rejoin cache@west-1");
        (world, run)
    });
    add("undone", {
        let mut world = ready();
        let run = started(&mut world);
        world.done(Entry::UndoBegun { run, reason: "the cause is gone".into() });
        (world, run)
    });
    add("superseded", {
        let mut world = ready();
        let run = started(&mut world);
        lost(&mut world);
        (world, run)
    });
    add("aborted", {
        let mut world = failed_over();
        let run = rejoining(&mut world, false);
        world.done(abort(run));
        (world, run)
    });
    add("asking", {
        let (mut world, run, _) = asking(OnFailure::Stuck);
        begin(&mut world, run, "Approve");
        (world, run)
    });
    add("stuck question", {
        let (mut world, run, _) = asking(OnFailure::Stuck);
        begin(&mut world, run, "Approve");
        let outcome = time_out(&mut world, run);
        world.done(outcome);
        (world, run)
    });
    add("drilling", {
        let mut world = drilled();
        let run = drill(&mut world);
        begin(&mut world, run, PROMOTE[0]);
        (world, run)
    });
    add("order that asks", order_that_asks());
    all
}

/// A switchover has ended, and an operator's failover back waits for the second person.
fn order_that_asks() -> (World, RunId) {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    changed.automation.two_person = true;
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = moved(&mut world);
    perform(&mut world, run, "Rejoin db@west-1");
    perform(&mut world, run, "Rejoin cache@west-1");
    let allow_data_loss = Some("central-1 burns".to_owned());
    let wish = Wish { by: "ann".into(), to: west(), reason: String::new(), allow_data_loss, attestation: None };
    let epoch = world.known().epoch;
    world.done(Entry::FailoverOrdered { application: app(), epoch, wish });
    (world, run)
}

/// A switchover of which only the following is left.
pub fn moved(world: &mut World) -> RunId {
    let run = fenced(world);
    reach(world, run, "CatchUp db@central-1", at(1000));
    reach(world, run, "CatchUp cache@central-1", at(50));
    world.done(world.decide(regent_core::entry::Ground::Switched { run }));
    for step in ["Promote db@central-1", "Promote cache@central-1", "Redirect www@central-1", "Activate core@central-1"]
    {
        perform(world, run, step);
    }
    run
}

fn abort(run: RunId) -> Entry {
    Entry::Aborted { run, by: "ann".into(), reason: "not now".into() }
}

fn pause() -> Entry {
    Entry::Paused { application: Some(app()), by: "ann".into(), reason: "wait".into() }
}

fn resume() -> Entry {
    Entry::Resumed { application: Some(app()), by: "ann".into() }
}

/// The step that is stuck, else the first.
fn clear(world: &World, run: RunId) -> Entry {
    let mut walk = world.state.runs[&run].walk();
    let stuck = walk.find(|(_, progress)| progress.state == StepState::Stuck);
    let step = stuck.map_or(StepId(0), |(step, _)| step.id);
    Entry::Cleared { run, step, how: Clearing::Retry, by: "ann".into(), reason: String::new() }
}

/// What became of an operator's word: `done`, `no-effect` or the rule.
fn word(applied: &Applied) -> &str {
    match applied {
        Applied::Done(_) | Applied::Repeated(_) => "done",
        Applied::Ignored(_) => "no-effect",
        Applied::Refused { rule, .. } => rule,
    }
}

#[test]
fn every_word_at_every_moment_leaves_a_named_state() {
    use RunStatus::{Aborted, Running, Stuck, Succeeded, Superseded, Undoing, Undone};
    // How it stands · abort, and the state after it · clear, and the state after it.
    let expected = [
        ("untouched", Running, ("done", Undone, "undone"), ("not-stuck", Running, "running")),
        ("waiting", Running, ("done", Undone, "undone"), ("not-stuck", Running, "running")),
        ("fenced", Running, ("done", Undoing, "undoing"), ("not-stuck", Running, "running")),
        ("stuck fence", Stuck, ("done", Undoing, "undoing"), ("done", Running, "running")),
        ("undoing", Undoing, ("no-effect", Undoing, "undoing"), ("not-stuck", Undoing, "undoing")),
        ("undo stuck", Undoing, ("no-effect", Undoing, "undo-stuck"), ("done", Undoing, "undoing")),
        ("decided", Running, ("point-of-no-return", Running, "past-return"), ("not-stuck", Running, "past-return")),
        ("stuck promotion", Stuck, ("point-of-no-return", Stuck, "stuck"), ("done", Running, "past-return")),
        ("following", Running, ("done", Aborted, "aborted"), ("not-stuck", Running, "following")),
        ("stuck rejoin", Stuck, ("done", Aborted, "aborted"), ("done", Running, "following")),
        ("rejoining", Running, ("done", Aborted, "aborted"), ("not-stuck", Running, "following")),
        ("succeeded", Succeeded, ("run-ended", Succeeded, "succeeded"), ("not-stuck", Succeeded, "succeeded")),
        ("undone", Undone, ("run-ended", Undone, "undone"), ("not-stuck", Undone, "undone")),
        ("superseded", Superseded, ("run-ended", Superseded, "superseded"), ("not-stuck", Superseded, "superseded")),
        ("aborted", Aborted, ("run-ended", Aborted, "aborted"), ("not-stuck", Aborted, "aborted")),
        ("asking", Running, ("point-of-no-return", Running, "asking"), ("not-stuck", Running, "asking")),
        ("stuck question", Stuck, ("point-of-no-return", Stuck, "stuck"), ("done", Running, "past-return")),
        ("drilling", Running, ("done", Undoing, "cleaning-up"), ("not-stuck", Running, "drilling")),
        ("order that asks", Succeeded, ("run-ended", Succeeded, "succeeded"), ("not-stuck", Succeeded, "succeeded")),
    ];
    assert_eq!(standings().len(), expected.len());
    let mut seen = Vec::new();
    for ((name, mut world, run), row) in standings().into_iter().zip(expected) {
        let (wanted, status, on_abort, on_clear) = row;
        assert_eq!((name, world.state.runs[&run].status), (wanted, status));
        let mut check = |verb: &str, entries: &[Entry], (answer, after, state): (&str, RunStatus, &str)| {
            let mut copy = world.copy();
            let mut last = String::new();
            for entry in entries {
                last = word(&copy.apply(entry.clone())).to_owned();
            }
            let now = &copy.state.runs[&run];
            let advice = advice::of_run(&copy.state, now);
            assert_eq!((last.as_str(), now.status, advice.state), (answer, after, state), "{verb} of {name}");
            assert!(advice.next.len() > 10, "{verb} of {name}: {advice:?}");
            let whole = advice::of_application(&copy.state, &app(), copy.known(), Timestamp(copy.wall));
            assert!(!whole.state.is_empty() && whole.next.len() > 10, "{verb} of {name}: {whole:?}");
            seen.push((verb.to_owned(), name, whole.state));
        };
        check("abort", &[abort(run)], on_abort);
        let clear = clear(&world, run);
        check("clear", &[clear], on_clear);
        let now = advice::of_run(&world.state, &world.state.runs[&run]).state;
        let paused = if now == "running" { "pausing" } else { now };
        check("pause", &[pause()], ("done", status, paused));
        check("resume", &[pause(), resume()], ("done", status, now));
        // Nothing was lost of the rule that one run at most is under way.
        assert!(world.known().run.is_none() || world.known().run == Some(run) || status == Superseded);
        world.wall += 1;
    }
    assert!(seen.contains(&("pause".to_owned(), "undone", "paused")));
    // A question goes before all else.
    for verb in ["abort", "clear", "pause", "resume"] {
        assert!(seen.contains(&(verb.to_owned(), "order that asks", "asking")), "{verb}");
    }
    assert_eq!(seen.len(), expected.len() * 4);
}

#[test]
fn an_aborted_switchover_opens_the_old_side_and_says_who_and_why() {
    let mut world = ready();
    let run = fenced(&mut world);
    world.done(abort(run));
    let record = world.state.audit.back().unwrap();
    assert_eq!((record.event.as_str(), record.actor.as_str(), record.detail.as_str()), ("aborted", "ann", "not now"));
    for step in ["Unfence db@west-1", "Unfence cache@west-1", "Activate core@west-1"] {
        perform(&mut world, run, step);
    }
    let run = &world.state.runs[&run];
    assert_eq!((run.status, run.abort.as_ref().unwrap().by.as_str()), (RunStatus::Undone, "ann"));
    assert!(world.known().run.is_none() && world.known().cooling_since.is_none());
}

#[test]
fn an_aborted_failover_does_not_begin_again_at_once() {
    let mut world = World::protected();
    let now = Moment(200_000);
    // The database failed, its agent talks, the standby has lost its upstream: the leader begins.
    let mut failing = evidence(now, now);
    let seen = failing.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let database = seen.get_mut(&resource("db")).unwrap();
    database.health = regent_core::evidence::Health::Failed;
    database.failures = 5;
    let entries = decide(&world.state, &failing, view(now, &world));
    let [start @ Entry::RunStarted { .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(start.clone());
    let run = world.known().run.unwrap();
    world.done(abort(run));
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    let entries = decide(&world.state, &failing, view(now, &world));
    assert!(matches!(&entries[..], [Entry::Refused { rule, .. }] if rule == "cool-down"), "{entries:?}");
    world.done(Entry::Acknowledged { application: Some(app()), by: "ann".into() });
    assert!(matches!(&decide(&world.state, &failing, view(now, &world))[..], [Entry::RunStarted { .. }, ..]));
}

#[test]
fn a_side_whose_rejoin_was_aborted_stays_out_until_the_next_one() {
    let mut world = ready();
    let run = moved(&mut world);
    begin(&mut world, run, "Rejoin db@west-1");
    world.done(abort(run));
    assert!(world.known().excluded.contains_key(&west()) && world.known().run.is_none());
    let advice = advice::of_run(&world.state, &world.state.runs[&run]);
    assert!(advice.next.starts_with("west-1 is quarantined: `regentctl rejoin shop west-1`. "), "{advice:?}");
    let again = rejoining(&mut world, false);
    assert!(
        world.state.runs[&again]
            .steps
            .iter()
            .all(|step| { step.kind == regent_core::run::StepKind::Action(Action::Rejoin) })
    );
}

#[test]
fn what_an_agent_ends_behind_an_abort_takes_nobody_back_and_the_advice_tells_of_it() {
    let mut world = failed_over();
    let untouched = rejoining(&mut world, false);
    world.done(abort(untouched));
    let told = |world: &World, run: RunId| advice::of_run(&world.state, &world.state.runs[&run]).next;
    let plain = "west-1 is quarantined: `regentctl rejoin shop west-1`";
    assert_eq!(told(&world, untouched), plain, "no agent has heard of it");

    let run = rejoining(&mut world, false);
    let begun = ["Rejoin cache@west-1", "Rejoin db@west-1"].map(|step| begin(&mut world, run, step));
    world.done(abort(run));
    let wanted = format!(
        "{plain}. If its agent is at work on a step of this run, it finishes that: the database stays closed to writes \
         meanwhile, what was set aside is kept, and the next rejoin waits for it"
    );
    assert_eq!(told(&world, run), wanted);
    // Both end well, and their word counts no more: who was ended says nothing of who may be promoted.
    for (step, attempt) in begun {
        let late = world.apply(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
        assert_eq!(word(&late), "no-effect");
    }
    assert!(world.known().excluded.contains_key(&west()));
    assert_eq!(told(&world, run), wanted);

    let next = rejoining(&mut world, false);
    perform(&mut world, next, "Rejoin cache@west-1");
    perform(&mut world, next, "Rejoin db@west-1");
    assert!(world.known().excluded.is_empty());
    assert_eq!(told(&world, run), "nothing is to be done");
}
