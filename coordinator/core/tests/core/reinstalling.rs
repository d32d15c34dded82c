//! A new installation of an agent while the group recovers from a backup: nobody knows yet what the old one may do.

use std::collections::BTreeMap;

use regent_core::entry::Entry;
use regent_core::evidence::Evidence;
use regent_core::id::{ClusterId, Epoch, InstallationId, LogIndex};
use regent_core::installation::preflight;
use regent_core::restore::AgentReport;
use regent_core::terms::Terms;
use regent_core::time::Moment;

use crate::fixture::*;
use crate::recovering::{begin, report};

fn replaced(at: &ClusterId, by: &str) -> Entry {
    Entry::InstallationReplaced { cluster: at.clone(), installation: InstallationId(by.into()), by: "ann".into() }
}

fn off(at: &ClusterId) -> Entry {
    let reason = "its volumes are detached".into();
    Entry::AttestedOff { application: app(), cluster: at.clone(), by: "ann".into(), reason }
}

fn reported(by_west: AgentReport, by_central: AgentReport) -> Entry {
    Entry::Recovered { application: app(), reports: BTreeMap::from([(west(), by_west), (central(), by_central)]) }
}

/// A protected world, lost and restored, and the terms that its agents have stored.
fn restored() -> (World, Terms) {
    let backup = World::protected().state;
    let terms = backup.applications[&app()].terms.last().unwrap().clone();
    (begin(&backup), terms)
}

#[test]
fn it_is_not_taken_while_an_application_recovers_unless_its_databases_are_off() {
    let (mut world, _) = restored();
    let new = InstallationId("new".into());
    for at in [west(), central()] {
        assert_eq!(world.refused(replaced(&at, "new")), "recovering", "{at}");
        let refusal = preflight(&world.state, &Evidence::default(), Moment(1), &at, &new).unwrap_err();
        assert!(refusal.code == "recovering" && refusal.detail.contains("--database-off"), "{refusal:?}");
        assert!(refusal.detail.contains("if new was taken in its place after the backup was made"), "{refusal:?}");
    }
    world.done(off(&west()));
    assert_eq!(world.refused(replaced(&central(), "new")), "recovering", "another one is off");
    world.done(replaced(&west(), "new"));
    assert_eq!(world.state.agents[&west()].installation, new);
}

#[test]
fn what_has_stored_nothing_and_was_not_there_before_has_not_reported() {
    let (mut world, terms) = restored();
    world.state.agents.get_mut(&west()).unwrap().installation = InstallationId("new".into());
    // The centre names the west as primary: it would be given the lease, while the old installation may write on.
    assert_eq!(world.refused(reported(report("new", None), report("ic", Some(&terms)))), "recovering");
    assert_eq!(world.refused(reported(report("new", None), report("ic", None))), "recovering", "by the backup alone");
    // Terms that list it show that the lost group had taken it.
    let later = taken(&terms);
    world.done(reported(report("new", Some(&later)), report("ic", Some(&terms))));
    assert_eq!(world.known().primary, Some(west()));
}

/// Terms of the lost group after it took another installation of the west.
fn taken(before: &Terms) -> Terms {
    let mut later = before.clone();
    (later.epoch, later.number.index) = (Epoch(3), LogIndex(before.number.index.0 + 10));
    later.clusters.get_mut(&west()).unwrap().installation = Some(InstallationId("new".into()));
    later
}

#[test]
fn one_that_the_lost_group_had_replaced_does_not_count_for_its_successor() {
    let (mut world, terms) = restored();
    // The backup still knows it, and it has terms of its time. The newest ones lead the west by another installation.
    let later = taken(&terms);
    assert_eq!(world.refused(reported(report("iw", Some(&terms)), report("ic", Some(&later)))), "recovering");
    world.done(reported(report("iw", Some(&terms)), report("ic", Some(&terms))));
}

#[test]
fn a_backup_that_knew_no_agents_goes_by_the_terms_of_the_others() {
    let (_, terms) = restored();
    let mut backup = World::protected().state;
    backup.agents.clear();
    let mut world = begin(&backup);
    world.done(Entry::AgentRegistered(agent(&west(), "new")));
    world.done(Entry::AgentRegistered(agent(&central(), "ic")));
    assert_eq!(world.refused(reported(report("new", None), report("ic", Some(&terms)))), "recovering");
    world.done(off(&west()));
    // A human decides who takes over from a primary that is off.
    let only_central = BTreeMap::from([(central(), report("ic", Some(&terms)))]);
    let recovered = Entry::Recovered { application: app(), reports: only_central };
    assert_eq!(world.refused(recovered), "recovering-primary");
}

#[test]
fn restored_twice_the_first_backups_word_is_kept() {
    let (mut world, _) = restored();
    world.done(off(&west()));
    world.done(replaced(&west(), "new"));
    let mut again = begin(&world.state);
    assert_eq!(again.known().recovering.as_ref().unwrap().installations[&west()], InstallationId("iw".into()));
    assert_eq!(again.refused(reported(report("new", None), report("ic", None))), "recovering");
}
