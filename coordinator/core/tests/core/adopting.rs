//! Which cluster is taken as the primary when nothing is known: the one that is written, if it is the only one.

use regent_core::decide::{self, decide};
use regent_core::entry::Entry;
use regent_core::evidence::Role;
use regent_core::time::Moment;

use crate::fixture::*;

#[test]
fn exactly_one_writable_cluster_is_adopted() {
    let world = World::fresh();
    let now = Moment(200_000);
    let entries = decide(&world.state, &evidence(now, now), view(now, &world));
    let [Entry::Adopt { primary, .. }] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(*primary, west());
}

#[test]
fn two_writable_clusters_or_none_are_named() {
    let world = World::fresh();
    let now = Moment(200_000);
    let mut two = evidence(now, now);
    let mut none = evidence(now, now);
    for seen in two.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap().values_mut() {
        (seen.role, seen.writable) = (Role::Primary, true);
    }
    for seen in none.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap().values_mut() {
        (seen.role, seen.writable) = (Role::Standby, false);
    }
    for (evidence, code) in [(two, "two-primaries"), (none, "no-primary")] {
        let error = decide::adopt(&world.state, &evidence, view(now, &world), &app(), world.known()).unwrap_err();
        assert_eq!(error.code, code);
    }
}
