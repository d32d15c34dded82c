//! Grants and votes of one observer, tick by tick.

use std::collections::BTreeMap;

use regent_core::entry::{Agent, Entry};
use regent_core::id::{ApplicationId, CoordinatorId, Epoch, Incarnation, InstallationId, VoteNumber};
use regent_core::lease::TimeBound;
use regent_core::observer::{Answer, Heard, Observer};
use regent_core::time::{Moment, Span};

use crate::fixture::*;

struct Bench {
    world: World,
    observer: Observer,
    now: u64,
    receipt: u64,
}

impl Bench {
    fn new() -> Self {
        let world = World::protected();
        let now = 1_000_000;
        Self { world, observer: Observer::new(CoordinatorId(1), Incarnation(1), Moment(now)), now, receipt: 0 }
    }

    fn beat(&mut self) -> Answer {
        let epochs = BTreeMap::from([(app(), Epoch(1))]);
        let installation = InstallationId("iw".into());
        let heard = by(&installation, self.receipt, &epochs);
        let answer = self.observer.heard(&self.world.state, Moment(self.now), &heard);
        self.receipt = answer.receipt;
        answer
    }

    /// Time passes in ticks of 50 ms; everything proposed on the west is returned.
    fn pass(&mut self, span: Span) -> Vec<Entry> {
        let mut words = Vec::new();
        for _ in 0..span.millis() / 50 {
            self.now += 50;
            let entries = self.observer.tick(&self.world.state, Moment(self.now), true);
            words.extend(entries.into_iter().filter(on_west));
        }
        words
    }
}

fn on_west(entry: &Entry) -> bool {
    matches!(entry, Entry::Vote { cluster, .. } | Entry::Withdraw { cluster, .. } if *cluster == west())
}

#[test]
fn a_primary_that_beats_is_granted_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.beat().grants, vec![(app(), Epoch(1))]);
}

#[test]
fn nothing_is_granted_before_the_start_is_applied() {
    let mut bench = Bench::new();
    bench.observer = Observer::new(CoordinatorId(1), Incarnation(2), Moment(bench.now));
    let answer = bench.beat();
    assert_eq!(answer.grants, vec![]);
    assert!(answer.receipt > 0);
}

#[test]
fn another_epoch_is_not_granted_and_a_lower_one_is_told() {
    let mut bench = Bench::new();
    let installation = InstallationId("iw".into());
    for (epoch, higher) in [(0, vec![(app(), Epoch(1))]), (2, vec![])] {
        let epochs = BTreeMap::from([(app(), Epoch(epoch))]);
        let heard = by(&installation, 0, &epochs);
        let answer = bench.observer.heard(&bench.world.state, Moment(bench.now), &heard);
        assert_eq!((answer.grants, answer.higher), (vec![], higher));
    }
}

#[test]
fn another_installation_gets_nothing_at_all() {
    let mut bench = Bench::new();
    let epochs = BTreeMap::from([(app(), Epoch(1))]);
    let other = InstallationId("other".into());
    let heard = by(&other, 0, &epochs);
    assert_eq!(bench.observer.heard(&bench.world.state, Moment(bench.now), &heard), Answer::default());
}

#[test]
fn silence_of_a_quarter_of_the_bound_makes_a_vote_that_says_how_long() {
    let mut bench = Bench::new();
    bench.pass(Span::from_millis(100));
    bench.beat();
    bench.beat();
    assert_eq!(bench.pass(Span::from_millis(2_450)), vec![]);
    let words = bench.pass(Span::from_millis(50));
    assert_eq!(words, vec![vote(1, 1, &west(), 1, Span::from_millis(2_500))]);
}

#[test]
fn a_retry_repeats_its_number_and_there_is_no_second_word_before_it_is_applied() {
    let mut bench = Bench::new();
    bench.beat();
    bench.beat();
    let words = bench.pass(Span::from_secs(4));
    let first = words.first().unwrap().clone();
    assert!(words.len() > 1 && words.iter().all(|word| *word == first));
    // Heard again while the vote is in flight: no grant, no withdrawal yet.
    let answer = bench.beat();
    assert_eq!((answer.grants, answer.proposal), (vec![], None));
    bench.world.done(first);
    let first_contact = bench.beat();
    let answer = if first_contact.proposal.is_some() { first_contact } else { bench.beat() };
    assert_eq!(answer.grants, vec![]);
    assert_eq!(answer.proposal, Some(withdraw(1, 1, &west(), 2)));
    bench.world.done(withdraw(1, 1, &west(), 2));
    assert_eq!(bench.beat().grants, vec![(app(), Epoch(1))]);
}

#[test]
fn one_way_contact_is_silence() {
    let mut bench = Bench::new();
    bench.beat();
    bench.beat();
    let mut voted = false;
    for _ in 0..60 {
        voted |= !bench.pass(Span::from_millis(100)).is_empty();
        // Its heartbeats arrive, but it never hears a receipt.
        bench.receipt = 0;
        bench.beat();
    }
    assert!(voted);
}

#[test]
fn a_process_that_stood_still_counts_anew() {
    let mut bench = Bench::new();
    bench.pass(Span::from_millis(100));
    bench.beat();
    bench.beat();
    bench.now += 20_000;
    assert_eq!(bench.pass(Span::from_millis(2_500)), vec![]);
    assert_eq!(bench.pass(Span::from_millis(100)).len(), 2);
}

#[test]
fn without_a_leader_nobody_votes() {
    let mut bench = Bench::new();
    for _ in 0..200 {
        bench.now += 50;
        assert_eq!(bench.observer.tick(&bench.world.state, Moment(bench.now), false), vec![]);
    }
}

#[test]
fn what_an_older_incarnation_left_standing_is_withdrawn_first() {
    let mut bench = Bench::new();
    bench.world.vote(1, &west(), 9, Span::ZERO);
    bench.world.done(Entry::ObserverStarted { observer: CoordinatorId(1), incarnation: Incarnation(2) });
    bench.observer = Observer::new(CoordinatorId(1), Incarnation(2), Moment(bench.now));
    assert_eq!(bench.beat().grants, vec![]);
    let answer = bench.beat();
    assert_eq!(answer.grants, vec![]);
    let Some(Entry::Withdraw { incarnation, number, .. }) = answer.proposal else { panic!("{answer:?}") };
    assert_eq!((incarnation, number), (Incarnation(2), VoteNumber(1)));
}

/// Another application on the same clusters that counts by a shorter bound, from its document to the primary's word.
#[test]
fn a_bound_that_no_agent_counts_by_yet_makes_nobody_silent() {
    let mut bench = Bench::new();
    let other = ApplicationId::new("other").unwrap();
    let mut quick = document();
    quick.name = other.clone();
    quick.automation.bound = TimeBound::new(Span::from_secs(2));
    quick.resources.retain(|_, resource| resource.dns.is_none());
    for line in quick.runbooks.values_mut().flat_map(|runbook| &mut runbook.lines) {
        line.resources.retain(|name| *name != resource("www"));
    }
    let beats_by_the_old_one = |bench: &mut Bench| {
        for _ in 0..5 {
            assert_eq!(bench.pass(Span::from_secs(1)), vec![]);
            let answer = bench.beat();
            assert!(answer.two_way);
            assert_eq!(answer.grants, vec![(app(), Epoch(1))]);
        }
    };
    bench.beat();
    bench.world.done(Entry::Applied { application: Box::new(quick), by: "ann".into() });
    beats_by_the_old_one(&mut bench);
    let adopt = Entry::Adopt { application: other.clone(), primary: west(), databases: BTreeMap::new() };
    bench.world.done(adopt);
    beats_by_the_old_one(&mut bench);
    let terms = bench.world.state.applications[&other].terms.last().unwrap().number;
    let (cluster, installation) = (west(), InstallationId("iw".into()));
    let databases = BTreeMap::new();
    bench.world.done(Entry::TermsConfirmed { application: other, terms, cluster, installation, databases });
    bench.beat();
    bench.beat();
    assert_eq!(bench.pass(Span::from_secs(1)).first(), Some(&vote(1, 1, &west(), 1, Span::from_millis(500))));
}

#[test]
fn a_lowered_bound_makes_nobody_silent_before_it_is_confirmed() {
    let mut bench = Bench::new();
    let mut quick = document();
    quick.automation.bound = TimeBound::new(Span::from_secs(2));
    bench.beat();
    bench.world.done(Entry::Applied { application: Box::new(quick), by: "ann".into() });
    for _ in 0..5 {
        assert_eq!(bench.pass(Span::from_secs(1)), vec![]);
        assert!(bench.beat().two_way);
    }
}

/// A heartbeat of another process than the registered one.
fn beat_of(bench: &mut Bench, incarnation: u64, boot: &str) -> Answer {
    let epochs = BTreeMap::from([(app(), Epoch(1))]);
    let installation = InstallationId("iw".into());
    let heard = Heard { incarnation: Incarnation(incarnation), boot, ..by(&installation, bench.receipt, &epochs) };
    let answer = bench.observer.heard(&bench.world.state, Moment(bench.now), &heard);
    bench.receipt = answer.receipt.max(bench.receipt);
    answer
}

fn register(bench: &mut Bench, incarnation: u64, boot: &str) {
    let process = Agent { incarnation: Incarnation(incarnation), boot: boot.into(), ..agent(&west(), "iw") };
    bench.world.done(Entry::AgentRegistered(process));
}

#[test]
fn a_copy_of_an_agent_gets_nothing_while_the_first_may_hold_a_lease() {
    let mut bench = Bench::new();
    register(&mut bench, 7, "here");
    assert_eq!(beat_of(&mut bench, 7, "here").grants.len(), 1);
    assert_eq!(beat_of(&mut bench, 6, "here"), Answer::default(), "an older process");
    assert_eq!(beat_of(&mut bench, 7, "there"), Answer::default(), "a copy that counts on from the same number");
    assert_eq!(beat_of(&mut bench, 8, "there"), Answer::default(), "one that is not registered is no proof");
    register(&mut bench, 8, "there");
    assert_eq!(beat_of(&mut bench, 7, "here"), Answer::default(), "the first is refused from here on");
    bench.now += 9_999;
    assert_eq!(beat_of(&mut bench, 8, "there").grants, vec![]);
    bench.now += 1;
    // Whoever is silent for so long has been voted on; here nobody ticked.
    assert_eq!(beat_of(&mut bench, 8, "there").grants.len(), 1, "D after the last grant");
}

#[test]
fn a_copy_that_is_not_registered_takes_no_vote_back_and_does_not_speak_for_the_agent() {
    let mut bench = Bench::new();
    register(&mut bench, 7, "here");
    beat_of(&mut bench, 7, "here");
    beat_of(&mut bench, 7, "here");
    let vote = bench.pass(Span::from_secs(4)).first().unwrap().clone();
    bench.world.done(vote);
    for _ in 0..3 {
        assert_eq!(beat_of(&mut bench, 8, "there"), Answer::default(), "nothing that it could name as heard");
        bench.now += 50;
    }
    let known = bench.world.state.agents[&west()].clone();
    let speaks = |incarnation, boot| known.speaks(Incarnation(incarnation), boot);
    assert!(speaks(7, "here") && speaks(8, "here"));
    assert!(!speaks(6, "here") && !speaks(7, "there") && !speaks(8, "there"));
    register(&mut bench, 8, "there");
    beat_of(&mut bench, 8, "there");
    let answer = beat_of(&mut bench, 8, "there");
    assert!(answer.two_way && matches!(answer.proposal, Some(Entry::Withdraw { .. })), "{answer:?}");
}

#[test]
fn a_restarted_agent_of_the_same_boot_goes_on_at_once() {
    let mut bench = Bench::new();
    register(&mut bench, 7, "here");
    assert_eq!(beat_of(&mut bench, 7, "here").grants.len(), 1);
    assert_eq!(beat_of(&mut bench, 8, "here").grants.len(), 1, "also without a quorum that could register it");
    register(&mut bench, 8, "here");
    assert_eq!(beat_of(&mut bench, 8, "here").grants.len(), 1);
}
