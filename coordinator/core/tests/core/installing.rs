//! A new installation of an agent takes the place of one that is gone for good.

use regent_core::entry::{Agent, Entry};
use regent_core::evidence::Evidence;
use regent_core::id::InstallationId;
use regent_core::installation::preflight;
use regent_core::time::{Moment, Span};

use crate::fixture::*;
use crate::running::lost;

const NOW: Moment = Moment(200_000);

fn replaced(at: &regent_core::id::ClusterId, by: &str) -> Entry {
    Entry::InstallationReplaced { cluster: at.clone(), installation: InstallationId(by.into()), by: "ann".into() }
}

#[test]
fn only_an_agent_that_is_lost_and_leads_nothing_is_replaced() {
    let mut world = World::protected();
    assert_eq!(world.refused(replaced(&west(), "new")), "installation-primary");
    assert_eq!(world.refused(replaced(&central(), "new")), "installation-heard");
    assert_eq!(world.refused(replaced(&central(), "ic")), "installation-known");
    assert_eq!(world.refused(replaced(&cluster("north-1"), "new")), "no-agent");
    lost(&mut world);
    world.done(replaced(&west(), "new"));
    assert_eq!(world.state.agents[&west()].installation, InstallationId("new".into()));
    assert_eq!(world.refused(Entry::AgentRegistered(agent(&west(), "iw"))), "foreign-installation");
    let moved = Agent { peer_address: "127.0.0.1:2".into(), ..agent(&west(), "new") };
    world.done(Entry::AgentRegistered(moved));
}

#[test]
fn it_is_no_target_before_it_has_rejoined_and_the_primary_knows_it() {
    let mut world = World::protected();
    for observer in [1, 2] {
        world.vote(observer, &central(), 1, Span::ZERO);
    }
    world.done(replaced(&central(), "new"));
    assert!(world.known().excluded.contains_key(&central()));
    let newest = world.known().terms.last().unwrap();
    assert_eq!(newest.clusters[&central()].installation, Some(InstallationId("new".into())));
    assert!(
        newest.clusters[&central()].excluded && world.known().terms.len() == 2,
        "the primary's agent may count by the old ones"
    );
    let votes = [world.vote(1, &west(), 1, Span::ZERO), world.vote(2, &west(), 1, Span::ZERO)];
    assert_eq!(world.refused(world.lost(&votes)), "not-a-target");
}

#[test]
fn the_bound_must_have_passed_since_the_old_one_was_last_heard() {
    let mut world = World::protected();
    let votes = [1, 2].map(|observer| world.vote(observer, &central(), 1, Span::from_secs(3)));
    let judge = |now: Moment| {
        let evidence =
            Evidence { votes_applied: votes.iter().map(|vote| (*vote, NOW)).collect(), ..Evidence::default() };
        let new = InstallationId("new".into());
        preflight(&world.state, &evidence, now, &central(), &new).map_err(|rule| (rule.code, rule.detail))
    };
    let (code, detail) = judge(NOW.after(Span::from_millis(6_999))).unwrap_err();
    assert_eq!(code, "installation-heard");
    assert!(detail.contains("another 1ms"), "{detail}");
    assert_eq!(judge(NOW.after(Span::from_secs(7))), Ok(()));
}
