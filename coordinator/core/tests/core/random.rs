//! Random logs: whatever is proposed, in whatever order, the invariants hold and replay gives the same state.

use proptest::prelude::*;
use regent_core::entry::{Cause, Clearing, Entry, FORMAT, Finding, Ground, Record};
use regent_core::id::{Attempt, CoordinatorId, Epoch, Incarnation, LogIndex, RequestId, RunId, StepId, Token};
use regent_core::state::{Applied, State};
use regent_core::time::{Span, Timestamp, Waits};

use crate::fixture::*;

/// A move in terms of the present state, so that many of them are valid.
#[derive(Debug, Clone)]
enum Move {
    Vote(u64, bool, u64),
    Withdraw(u64, bool, u64),
    Restart(u64, u64),
    DecideLost(bool),
    DecideFenced,
    Start,
    Advance(bool, bool),
    Undo,
    Clear(bool),
    Confirm(bool),
    Pause(bool),
    Acknowledge,
    Document(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => (1..4_u64, any::<bool>(), 0..6_u64).prop_map(|(o, w, n)| Move::Vote(o, w, n)),
        1 => (1..4_u64, any::<bool>(), 0..6_u64).prop_map(|(o, w, n)| Move::Withdraw(o, w, n)),
        1 => (1..4_u64, 0..3_u64).prop_map(|(o, i)| Move::Restart(o, i)),
        2 => any::<bool>().prop_map(Move::DecideLost),
        2 => Just(Move::DecideFenced),
        1 => Just(Move::Start),
        12 => (any::<bool>(), any::<bool>()).prop_map(|(s, r)| Move::Advance(s, r)),
        1 => Just(Move::Undo),
        1 => any::<bool>().prop_map(Move::Clear),
        2 => any::<bool>().prop_map(Move::Confirm),
        1 => any::<bool>().prop_map(Move::Pause),
        1 => Just(Move::Acknowledge),
        1 => (2..20_u64).prop_map(Move::Document),
    ]
}

fn side(first: bool) -> regent_core::id::ClusterId {
    if first { west() } else { central() }
}

fn entry(world: &World, one: &Move) -> Option<Entry> {
    let known = world.known();
    let run = known.run.and_then(|id| world.state.runs.get(&id));
    let incarnation = |observer: u64| world.state.observers[&CoordinatorId(observer)];
    let terms = known.terms.last().map_or(Token::default(), |terms| terms.number);
    let other = known.primary.as_ref().map(|primary| side(*primary != west()))?;
    let decide = |ground| Entry::Decide {
        application: app(),
        from: known.epoch,
        to: other.clone(),
        terms,
        ground,
        finding: Finding::default(),
    };
    Some(match one {
        Move::Vote(observer, first, number) => {
            vote(*observer, incarnation(*observer).0, &side(*first), *number, Span::ZERO)
        }
        Move::Withdraw(observer, first, number) => {
            withdraw(*observer, incarnation(*observer).0, &side(*first), *number)
        }
        Move::Restart(observer, to) => {
            Entry::ObserverStarted { observer: CoordinatorId(*observer), incarnation: Incarnation(*to) }
        }
        Move::DecideLost(stale) => {
            let votes = world.state.votes.get(known.primary.as_ref()?).into_iter().flatten();
            let mut votes: std::collections::BTreeSet<LogIndex> =
                votes.filter_map(|(_, ballot)| ballot.standing.map(|vote| vote.index)).collect();
            if *stale {
                votes.insert(LogIndex(1));
            }
            decide(Ground::Lost { votes })
        }
        Move::DecideFenced => decide(Ground::Fenced { run: run?.id }),
        Move::Start => Entry::RunStarted {
            application: app(),
            epoch: known.epoch,
            cause: Cause::ResourceFailed { resource: resource("db"), detail: String::new() },
            to: other,
            finding: Finding::default(),
            plan: None,
        },
        Move::Advance(success, retryable) => {
            let run = run?;
            let running = run.walk().find(|(_, progress)| progress.state == regent_core::run::StepState::Running);
            match running {
                Some((step, progress)) => Entry::StepOutcome {
                    run: run.id,
                    step: step.id,
                    attempt: progress.attempts,
                    outcome: if *success { succeeded() } else { failed(*retryable) },
                },
                None => {
                    let waits = Waits { wall: Timestamp(world.wall + 10_000_000), led: Span::ZERO };
                    let next = regent_core::run::next(run, waits).into_iter().find_map(|proposal| match proposal {
                        regent_core::run::Proposal::Entry(entry) => Some(*entry),
                        regent_core::run::Proposal::Decide => None,
                    });
                    next.unwrap_or(Entry::StepIntent { run: run.id, step: StepId(0), attempt: Attempt(9) })
                }
            }
        }
        Move::Undo => Entry::UndoBegun { run: run.map_or(RunId(1), |run| run.id), reason: String::new() },
        Move::Clear(done) => Entry::Cleared {
            run: run.map_or(RunId(1), |run| run.id),
            step: StepId(2),
            how: if *done { Clearing::Done } else { Clearing::Retry },
            by: "ann".into(),
            reason: String::new(),
        },
        Move::Confirm(first) => Entry::TermsConfirmed {
            application: app(),
            terms,
            cluster: side(*first),
            installation: world.state.agents[&side(*first)].installation.clone(),
            databases: databases(),
        },
        Move::Pause(on) if *on => Entry::Paused { application: None, by: "ann".into(), reason: String::new() },
        Move::Pause(_) => Entry::Resumed { application: None, by: "ann".into() },
        Move::Acknowledge => Entry::Acknowledged { application: Some(app()), by: "ann".into() },
        Move::Document(secs) => {
            let mut changed = document();
            changed.automation.bound = regent_core::lease::TimeBound::new(Span::from_secs(*secs));
            Entry::Applied { application: Box::new(changed), by: "ann".into() }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// `World::apply` checks the invariants after every entry.
    #[test]
    fn invariants_hold_after_every_entry(moves in prop::collection::vec(moves(), 0..120)) {
        let mut world = World::protected();
        let mut log = Vec::new();
        let start = world.state.clone();
        for one in &moves {
            let Some(entry) = entry(&world, one) else { continue };
            world.apply(entry.clone());
            log.push(Record { format: FORMAT, at: Timestamp(world.wall), request: None, entry });
        }
        // Deterministic: the same log on the same start gives the same state, also through its serialised form.
        let text = serde_json::to_string(&start).unwrap();
        let mut again: State = serde_json::from_str(&text).unwrap();
        for record in &log {
            let index = again.applied.next();
            again.apply(index, record);
        }
        prop_assert_eq!(again, world.state);
    }
}

#[test]
fn a_mutation_with_a_request_id_takes_effect_once() {
    let mut world = World::protected();
    let request = Some(RequestId("r1".into()));
    let entry = Entry::Paused { application: None, by: "ann".into(), reason: "work".into() };
    let record = Record { format: FORMAT, at: Timestamp(1), request, entry };
    let (first, _) = world.state.apply(LogIndex(900), &record);
    let (second, effects) = world.state.apply(LogIndex(901), &record);
    assert_eq!((first, second), (Applied::Done(LogIndex(900)), Applied::Repeated(LogIndex(900))));
    assert_eq!(effects, vec![]);
    assert_eq!(world.known().epoch, Epoch(1));
}
