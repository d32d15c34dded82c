//! An application that can be moved on plan, and agents that are heard all the time.
#![allow(dead_code, reason = "two test programs share it, and neither uses all of it")]

use std::time::Duration;

use regent_coordinator::node::Node;
use regent_core::application::{Action, parse};
use regent_core::entry::{Entry, Finding, Ground, Outcome, Report};
use regent_core::id::{InstallationId, RunId};
use regent_core::run::{StepKind, StepState, UNDO_STAGE};
use regent_core::state::{Applied, State};

use crate::world::{SHOP, World, attempt, commit, contact, shop, shop_state};

/// What the example application lacks.
const SWITCHOVER: &str = "    switchover:
      - catchUp: [orders-db]
      - promote: [orders-db]
      - redirect: [www]
      - verify: [checks]
      - rejoin: [orders-db]
";

/// The example application with a runbook for switchovers and these settings of `automation` beside, adopted and confirmed
/// in eu-west-1.
pub(crate) fn movable(options: &str) -> State {
    let mut state = shop_state();
    let text = format!("{SHOP}{SWITCHOVER}").replace("failoverAfter: 60s", &format!("failoverAfter: 60s, {options}"));
    let document = parse(&text).unwrap();
    commit(&mut state, Entry::Applied { application: Box::new(document), by: "ann".into() });
    state
}

/// Both agents are heard now, and go on to be until the test ends: each says what is true of it by the state.
pub(crate) fn keep_hearing(node: &Node) {
    say(node);
    node.note(|evidence| *evidence.leading_since.get_or_insert(regent_core::time::Moment(0)));
    let node = node.clone();
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        loop {
            beat.tick().await;
            say(&node);
        }
    });
}

fn say(node: &Node) {
    let known = node.replica.read(|state| state.applications.get(&shop()).cloned());
    let Some(known) = known else { return };
    for at in &known.document.clusters {
        let mut contact = contact(node, known.primary.as_ref() == Some(at));
        contact.beats.values_mut().for_each(|beat| beat.epoch = known.epoch);
        node.note(|evidence| evidence.contacts.insert(at.clone(), contact));
    }
}

/// The whole of a switchover: decided, promoted, and the old side follows; the new primary's agent knows.
pub(crate) fn complete(world: &World, run: u64) {
    advance(world, run, StepKind::Action(Action::CatchUp));
    let (epoch, to, terms) = world.node.replica.read(|state| {
        let known = &state.applications[&shop()];
        (known.epoch, state.runs[&RunId(run)].to.clone(), known.terms.last().unwrap().number)
    });
    let decide = Entry::Decide {
        application: shop(),
        from: epoch,
        to: to.clone(),
        terms,
        ground: Ground::Switched { run: RunId(run) },
        finding: Finding::default(),
    };
    assert!(matches!(world.apply(decide), Applied::Done(_)));
    advance(world, run, StepKind::Action(Action::Rejoin));
    let terms = world.node.replica.read(|state| state.applications[&shop()].terms.last().unwrap().number);
    let installation = InstallationId(format!("installation-{to}"));
    let databases = std::collections::BTreeMap::new();
    let confirmed = Entry::TermsConfirmed { application: shop(), terms, cluster: to, installation, databases };
    assert!(matches!(world.apply(confirmed), Applied::Done(_)));
    say(&world.node);
}

/// The next steps of the run that wait for an agent are done, until one of this kind has been.
pub(crate) fn advance(world: &World, run: u64, until: StepKind) {
    loop {
        let step = world.node.replica.read(|state| {
            let run = &state.runs[&RunId(run)];
            let mut open = run.walk().filter(|(step, _)| step.stage != UNDO_STAGE && step.kind != StepKind::Decide);
            let (step, _) = open.find(|(_, progress)| progress.state == StepState::Pending).unwrap();
            (step.id.0, step.kind)
        });
        let report = Report { position: Some(50_331_648), ..Report::default() };
        for entry in attempt(run, step.0, 1, Outcome::Succeeded(report)) {
            let applied = world.apply(entry);
            assert!(matches!(applied, Applied::Done(_)), "{applied:?}");
        }
        if step.1 == until {
            return;
        }
    }
}
