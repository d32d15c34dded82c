//! Against a slow and simple account of what was sent, granted and stored.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use regent_core::id::{CoordinatorId, Epoch, LogIndex, Token};
use regent_core::lease::TimeBound;
use regent_core::time::Span;

use super::facts::Word;
use super::tests::{agent_of_a, at, terms};
use super::*;

#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Send(u64),
    /// The n-th heartbeat ever sent is answered, perhaps again, perhaps late.
    Answer(usize),
    Terms {
        fail_over_after: u64,
        voters: BTreeSet<u64>,
    },
    NextEpoch(bool),
    GuardAnswers,
    GuardLost,
    GuardUp,
    Fenced(bool),
    Jump(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..4_000u64).prop_map(Event::Wait),
        6 => (1..=4u64).prop_map(Event::Send),
        8 => any::<prop::sample::Index>().prop_map(|index| Event::Answer(index.index(usize::MAX))),
        1 => (2_000..20_000u64, prop::collection::btree_set(1..=4u64, 1..4))
            .prop_map(|(fail_over_after, voters)| Event::Terms { fail_over_after, voters }),
        1 => any::<bool>().prop_map(Event::NextEpoch),
        8 => Just(Event::GuardAnswers),
        1 => Just(Event::GuardLost),
        2 => Just(Event::GuardUp),
        2 => any::<bool>().prop_map(Event::Fenced),
        1 => (-2_000..2_000i64).prop_map(Event::Jump),
    ];
    prop::collection::vec(event, 1..120)
}

/// What an onlooker wrote down.
#[derive(Default)]
struct Account {
    now: u64,
    /// coordinator, number, sent at, epoch.
    sent: Vec<(u64, u64, u64, u64)>,
    granted: BTreeSet<usize>,
    /// stored at, T.
    stored: Vec<(u64, u64)>,
    voters: BTreeSet<u64>,
    /// Of the terms of this epoch from the last named to the newest, by number: coordinators count by all of them.
    voted_by: Vec<(u64, BTreeSet<u64>)>,
    epoch: u64,
    primary: bool,
    void_before: usize,
    /// After a jump what is left of the old lease is a grace of at most F/2.
    grace_until: u64,
    asked: Option<Arm>,
    guard_until: Option<Deadline>,
    fences: usize,
    written: Option<Epoch>,
}

impl Account {
    /// Smallest T stored since a sending, the one in force then included.
    fn smallest_since(&self, sent: u64) -> u64 {
        let before = self.stored.iter().rev().find(|(at, _)| *at <= sent).map(|(_, lease)| *lease);
        let after = self.stored.iter().filter(|(at, _)| *at > sent).map(|(_, lease)| *lease);
        after.chain(before).min().unwrap_or(0)
    }

    fn majority_runs(&self) -> bool {
        let running: BTreeSet<u64> = self
            .granted
            .iter()
            .filter(|index| **index >= self.void_before)
            .map(|index| self.sent[*index])
            .filter(|(_, _, sent, epoch)| *epoch == self.epoch && self.now < sent + self.smallest_since(*sent))
            .map(|(coordinator, ..)| coordinator)
            .collect();
        self.voted_by.iter().any(|(_, voters)| running.intersection(voters).count() * 2 > voters.len())
    }

    fn take(&mut self, commands: &[Command]) {
        for command in commands {
            match command {
                Command::ArmGuard(arm) => self.asked = Some(*arm),
                Command::MoveGuard { .. } | Command::DisarmGuard => self.asked = None,
                Command::WriteGuarded { epoch, .. } => self.written = Some(*epoch),
                Command::FenceSelf { .. } => self.fences += 1,
                Command::NameTerms(named) => self.voted_by.retain(|(number, _)| *number >= named.index.0),
                Command::Heartbeat | Command::StoreTerms(_) => {}
                Command::AskPromises(_) | Command::FenceHard => {}
                Command::LiftSelfFence | Command::Alert(_) => {}
            }
        }
    }
}

fn new_terms(account: &mut Account, number: u64, fail_over_after: u64) -> Terms {
    let mut new = terms(number, account.epoch, if account.primary { "a" } else { "b" });
    new.bound = TimeBound::new(Span::from_millis(fail_over_after));
    new.number = Token { restoration: 0, index: LogIndex(number) };
    new.voters = vec![account.voters.iter().copied().map(CoordinatorId).collect()];
    account.stored.push((account.now, new.bound.lease().millis()));
    account.voted_by.push((number, account.voters.clone()));
    new
}

fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut lease = agent_of_a(Remembered::default(), GuardWord::Nothing);
    let mut account = Account { epoch: 1, primary: true, voters: [1, 2, 3].into(), ..Account::default() };
    let mut number = 1;
    let mut shortest = 10_000;
    account.take(&lease.guard_up(at(0)));
    let first = new_terms(&mut account, number, shortest);
    account.take(&lease.terms_stored(at(0), first));
    let mut beats: BTreeMap<u64, usize> = BTreeMap::new();
    for event in events {
        let now = at(account.now);
        let commands = match event {
            Event::Wait(millis) => {
                account.now += millis;
                Vec::new()
            }
            Event::Send(coordinator) => {
                let beat = account.sent.len() as u64 + 1;
                beats.insert(beat, account.sent.len());
                account.sent.push((coordinator, beat, account.now, account.epoch));
                lease.heartbeat_sent(now, CoordinatorId(coordinator), beat);
                Vec::new()
            }
            Event::Answer(index) if !account.sent.is_empty() => {
                let index = index % account.sent.len();
                let (coordinator, beat, _, epoch) = account.sent[index];
                if account.primary && epoch == account.epoch {
                    account.granted.insert(index);
                }
                let word = Word { granted: Some(Epoch(epoch)), higher: None };
                lease.answered(now, CoordinatorId(coordinator), beat, word)
            }
            Event::Terms { fail_over_after, voters } => {
                number += 1;
                shortest = fail_over_after;
                account.voters = voters;
                let new = new_terms(&mut account, number, fail_over_after);
                lease.terms_stored(now, new)
            }
            Event::NextEpoch(primary) => {
                number += 1;
                account.epoch += 1;
                account.primary = primary;
                account.voted_by.clear();
                let new = new_terms(&mut account, number, shortest);
                lease.terms_stored(now, new)
            }
            Event::GuardAnswers => match account.asked.take() {
                Some(arm) => {
                    account.guard_until = (!arm.early).then_some(arm.until);
                    lease.guard_armed(now, arm)
                }
                None => match account.written.take() {
                    Some(epoch) => lease.guarded_written(now, epoch, BTreeSet::new(), true),
                    None => Vec::new(),
                },
            },
            Event::GuardLost => {
                account.asked = None;
                lease.guard_lost(now)
            }
            Event::GuardUp => lease.guard_up(now),
            Event::Fenced(confirmed) if lease.is_self_fenced() => lease.fenced(now, confirmed),
            Event::Jump(millis) => {
                let margin = TimeBound::new(Span::from_millis(shortest)).margin().millis();
                if millis > 0 && millis.unsigned_abs() > margin {
                    account.void_before = account.sent.len();
                    account.grace_until = account.now + shortest / 12 + 1;
                }
                lease.wall_clock_moved(now, millis)
            }
            Event::Answer(_) | Event::Fenced(_) => Vec::new(),
        };
        account.take(&commands);
        let now = at(account.now);
        account.take(&lease.tick(now));
        if let Some(end) = lease.end(now) {
            prop_assert!(account.primary, "held while another is primary");
            let by_guard = account.guard_until.is_some_and(|until| end <= until);
            prop_assert!(by_guard, "held beyond what the guard acknowledged");
            let grace = end <= at(account.grace_until).after(Span::ZERO);
            prop_assert!(account.majority_runs() || grace, "held without a majority of running grants");
        } else if lease.is_guarded() {
            prop_assert!(lease.fence() != Fence::Open, "open without a lease");
            prop_assert!(!matches!(lease.fence(), Fence::Lifting { .. }), "being opened without a lease");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_lease_never_outlives_its_grants(events in events()) {
        run(events)?;
    }
}
