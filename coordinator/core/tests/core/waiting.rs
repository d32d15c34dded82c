//! Switchovers that have touched nothing yet: they wait for old answers to expire, and end if their cause is gone.

use regent_core::application::{Action, DnsProvider};
use regent_core::cause::is_only_fencing;
use regent_core::decide::{Ending, decide, foresee};
use regent_core::entry::{Entry, Outcome};
use regent_core::evidence::Evidence;
use regent_core::id::{Epoch, RunId};
use regent_core::run::{RunStatus, StepKind};
use regent_core::time::Span;

use crate::fixture::*;
use crate::running::{begin, due, end};
use crate::switching::{NOW, asked_for, ready, started, well};

/// The standby has lost its link.
fn gone() -> Evidence {
    let mut gone = well();
    let standby = gone.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    standby.get_mut(&resource("db")).unwrap().upstream.as_mut().unwrap().connected = false;
    gone
}

/// Ended, and nobody had anything of it.
fn assert_untouched(world: &World, run: RunId) {
    let run = &world.state.runs[&run];
    assert_eq!(run.status, RunStatus::Undone);
    let begun = run.walk().filter(|(_, progress)| progress.token.is_some());
    let begun: Vec<StepKind> = begun.map(|(step, _)| step.kind).collect();
    assert!(begun.iter().all(|kind| *kind == StepKind::Action(Action::Wait)), "{begun:?}");
    assert_eq!((world.known().run, world.known().epoch), (None, Epoch(1)));
}

#[test]
fn the_leader_looks_again_before_anything_is_touched() {
    // Before the wait, in it, and behind it, right before the first step that keeps writes out.
    for moment in ["asked for", "waiting", "waited"] {
        let mut world = ready();
        let run = asked_for(&mut world);
        if moment != "asked for" {
            let wait = begin(&mut world, run, "Wait");
            if moment == "waited" {
                end(&mut world, run, wait, succeeded());
            }
        }
        let well_then = decide(&world.state, &well(), view(NOW, &world));
        assert_eq!(
            matches!(&well_then[..], [Entry::StepIntent { .. }]),
            moment != "waiting",
            "{moment}: {well_then:?}"
        );
        // A standby that links anew is a moment's trouble while it waits, and for a moment after.
        let at_once = decide(&world.state, &gone(), view(NOW, &world));
        assert_eq!(at_once.is_empty(), moment != "asked for", "{moment}: {at_once:?}");
        world.wall += 60_000;
        if moment == "waiting" {
            continue;
        }
        let entries = decide(&world.state, &gone(), view(NOW, &world));
        let [undo @ Entry::CauseGone { reason, .. }] = &entries[..] else { panic!("{moment}: {entries:?}") };
        assert!(reason.contains("not-following"), "{moment}: {reason}");
        world.done(undo.clone());
        assert_untouched(&world, run);
    }
}

#[test]
fn what_keeps_writes_out_is_not_asked_for_its_cause() {
    let mut world = ready();
    let run = started(&mut world);
    world.wall += 60_000;
    let entries = decide(&world.state, &gone(), view(NOW, &world));
    let [word @ Entry::CauseGone { .. }] = &entries[..] else { panic!("{entries:?}") };
    // The intents of the moment before stand in the log before that word.
    begin(&mut world, run, "Quiesce core@west-1");
    world.ignored(word.clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
    assert_eq!(decide(&world.state, &gone(), view(NOW, &world)), vec![]);
}

#[test]
fn old_answers_expire_before_writes_are_kept_out_and_that_is_no_outage() {
    let mut world = ready();
    let run = asked_for(&mut world);
    assert_eq!(due(&world, run), ["Wait"]);
    let (step, _) = begin(&mut world, run, "Wait");
    assert_eq!(world.state.runs[&run].step(step).unwrap().0.duration, Span::from_secs(5), "the TTL of www");
    world.wall += 4_900;
    assert_eq!(decide(&world.state, &well(), view(NOW, &world)), vec![]);
    // Far longer than maxWriteOutage, which has not begun.
    world.wall += 60_000;
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [over @ Entry::StepOutcome { outcome: Outcome::Succeeded(_), .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    world.done(over.clone());
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    assert!(matches!(&decide(&world.state, &well(), view(NOW, &world))[..], [Entry::StepIntent { .. }]));
}

#[test]
fn a_pause_a_hold_or_an_abort_while_it_waits_ends_it_with_nothing_to_undo() {
    let pause = || Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() };
    let hold = Entry::Held { application: app(), by: "bob".into(), reason: "wait".into() };
    for (word, told) in [(pause(), "paused"), (hold, "held by bob")] {
        let mut world = ready();
        let run = asked_for(&mut world);
        begin(&mut world, run, "Wait");
        assert!(!is_only_fencing(&world.state.runs[&run]), "nothing is fenced: it is not late however long it waits");
        world.done(word);
        let entries = decide(&world.state, &well(), view(NOW, &world));
        let [gone @ Entry::CauseGone { reason, .. }] = &entries[..] else { panic!("{entries:?}") };
        assert!(reason.contains(told), "{reason}");
        world.done(gone.clone());
        assert_untouched(&world, run);
    }

    let mut world = ready();
    let run = asked_for(&mut world);
    let wait = begin(&mut world, run, "Wait");
    world.done(Entry::Aborted { run, by: "ann".into(), reason: "not now".into() });
    assert_untouched(&world, run);
    let (step, attempt) = wait;
    world.ignored(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
    world.done(pause());
}

#[test]
fn a_command_before_the_fence_is_undone_for_a_cause_that_is_gone_and_does_not_stall() {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    let mut command = line(Action::Run, &["core"]);
    "tell-the-bank".clone_into(&mut command.command);
    changed.runbooks.get_mut("switchover").unwrap().lines.insert(0, command);
    // Without a name of its own to wait for: the command's end is what comes right before the fence.
    let name = changed.resources.get_mut(&resource("www")).unwrap().dns.as_mut().unwrap();
    (name.provider, name.ttl) = (DnsProvider::Rfc2136, Span::from_secs(1));
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = asked_for(&mut world);
    let turning = world.state.runs[&run].steps.iter().position(|step| step.kind == StepKind::Decide).unwrap();
    let kinds: Vec<StepKind> = world.state.runs[&run].steps[..turning].iter().map(|step| step.kind).collect();
    assert!(!kinds.contains(&StepKind::Action(Action::Wait)), "{kinds:?}");
    assert_eq!(kinds.first(), Some(&StepKind::Action(Action::Run)));
    let (step, attempt) = begin(&mut world, run, "Run core@central-1");
    let outcome = succeeded();
    let endings = [Ending { step, attempt, outcome: outcome.clone() }];
    let follows = |evidence: &Evidence| foresee(&world.state, evidence, view(NOW, &world), run, &endings).len();
    assert_eq!((follows(&well()), follows(&gone())), (1, 0), "nothing is closed in the same round unless it holds");
    end(&mut world, run, (step, attempt), outcome);
    world.wall += 60_000;
    let entries = decide(&world.state, &gone(), view(NOW, &world));
    let [word @ Entry::CauseGone { .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(word.clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing, "a command was run");
    let entries = decide(&world.state, &gone(), view(NOW, &world));
    assert!(matches!(&entries[..], [Entry::StepIntent { .. }, ..]), "{entries:?}");
}

#[test]
fn a_switchover_that_redirects_no_name_of_ours_waits_for_none() {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    changed.runbooks.get_mut("switchover").unwrap().lines.retain(|line| line.action != Action::Redirect);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = asked_for(&mut world);
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
}
