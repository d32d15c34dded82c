//! A made-up group: three coordinators, three clusters, two applications; quiet, or in the middle of a failover.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use regent_coordinator::node::Node;
use regent_coordinator::replica::{Leadership, Propose, ProposeError, Replica, Shared};
use regent_core::entry::Record;
use regent_core::evidence::{LeaseState, Role, UpstreamSight, WitnessSight};
use regent_core::id::{ApplicationId, ClusterId, CoordinatorId, Epoch, Incarnation, LogIndex, ResourceId, VoteNumber};
use regent_core::state::{Answer, Applied, AuditRecord, Ballot, StandingVote, State};
use regent_core::time::{Span, Timestamp};
use tokio::time::Instant;

#[path = "fixture/group.rs"]
mod group;
#[path = "fixture/runs.rs"]
mod runs;
#[path = "fixture/seen.rs"]
mod seen;

use group::state;
use runs::current_run;
use seen::{beat, contact};

/// A node over a state that the test changes at will.
pub struct World {
    pub shared: Arc<Shared>,
    pub node: Node,
}

struct NoProposals;

impl Propose for NoProposals {
    fn propose(&self, _record: Record) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async { Err(ProposeError::NoQuorum) })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), ProposeError>> {
        Box::pin(async { Err(ProposeError::NoQuorum) })
    }
}

pub fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

pub fn resource(name: &str) -> ResourceId {
    ResourceId::new(name).unwrap()
}

pub fn application(name: &str) -> ApplicationId {
    ApplicationId::new(name).unwrap()
}

pub const WEST: &str = "eu-west-1";
pub const CENTRAL: &str = "eu-central-1";
pub const NORTH: &str = "eu-north-1";

impl World {
    /// Healthy everywhere, seen by the leader in eu-central.
    pub fn quiet() -> Self {
        let shared = Shared::new(state());
        let me = CoordinatorId(2);
        let node = Node::new(me, Replica::new(shared.clone(), Arc::new(NoProposals)));
        let world = Self { shared, node };
        world.lead(Instant::now());
        world.see_everyone();
        world
    }

    /// Region eu-west is gone; `shop` is being promoted in eu-central.
    pub fn failover() -> Self {
        let world = Self::quiet();
        world.lose_west();
        world.run();
        world
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.shared.write(|state| {
            state.applied = state.applied.next();
            change(state);
            ((), Vec::new())
        });
    }

    /// Changes what `shop`'s name points to.
    pub fn point_to(&self, name: &str) {
        self.change(|state| {
            state.dns_serial += 1;
            let since = state.token(state.applied);
            let shop = state.applications.get_mut(&application("shop")).unwrap();
            shop.answers.insert(resource("www"), Answer { cluster: cluster(name), since });
        });
    }

    /// The coordinator in eu-west was heard last then, the others now.
    fn lead(&self, west: Instant) {
        let now = Instant::now();
        let me = CoordinatorId(2);
        let heard = BTreeMap::from([(CoordinatorId(1), west), (me, now), (CoordinatorId(3), now)]);
        self.shared.lead(Leadership {
            me,
            term: 14,
            leader: Some(me),
            heard,
            quorum_at: Some(now),
            ..Leadership::default()
        });
    }

    /// The quorum was lost so long ago.
    pub fn lose_quorum(&self, ago: Duration) {
        let then = Instant::now().checked_sub(ago).unwrap();
        let me = CoordinatorId(2);
        self.shared.lead(Leadership { me, term: 15, quorum_at: Some(then), ..Leadership::default() });
    }

    /// Whoever was heard a moment ago is heard now.
    pub fn live_on(&self) {
        let now = self.node.now();
        let recent = Span::from_secs(5);
        self.node.note(|evidence| {
            let own = evidence.contacts.values_mut().map(|contact| (contact, now));
            let later = now.before(Span::from_millis(90));
            let relayed =
                evidence.relayed.values_mut().flat_map(|all| all.values_mut()).map(|contact| (contact, later));
            for (contact, at) in relayed.chain(own) {
                if contact.two_way.is_none_or(|at| now.since(at) > recent) {
                    continue;
                }
                contact.two_way = Some(at);
                contact.last_beat = Some(at);
                for seen in contact.resources.values_mut().flat_map(|all| all.values_mut()) {
                    seen.at = at;
                }
            }
        });
        let mut leadership = self.node.replica.leadership().borrow().clone();
        if leadership.leader.is_some() {
            let instant = Instant::now();
            for heard in leadership.heard.values_mut().filter(|heard| heard.elapsed().as_secs() < 5) {
                *heard = instant;
            }
            leadership.quorum_at = Some(instant);
            self.shared.lead(leadership);
        }
    }

    fn see_everyone(&self) {
        let now = self.node.now();
        let ago = |millis| now.before(Span::from_millis(millis));
        self.node.note(|evidence| {
            for (name, lease, millis) in
                [(WEST, LeaseState::Held, 210), (CENTRAL, LeaseState::None, 340), (NORTH, LeaseState::None, 120)]
            {
                let primary = name == WEST;
                let mut contact = contact(name, ago(millis), primary);
                contact.beats = ["shop", "billing"]
                    .into_iter()
                    .map(|app| {
                        let mine = if app == "shop" {
                            lease
                        } else if name == CENTRAL {
                            LeaseState::Held
                        } else {
                            LeaseState::None
                        };
                        (application(app), beat(mine))
                    })
                    .collect();
                evidence.contacts.insert(cluster(name), contact.clone());
                for other in [1, 3] {
                    let mut theirs = contact.clone();
                    theirs.two_way = Some(ago(millis + 90 * other));
                    theirs.last_beat = theirs.two_way;
                    evidence.relayed.entry(CoordinatorId(other)).or_default().insert(cluster(name), theirs);
                }
            }
            evidence.leading_since = Some(ago(3_600_000));
            evidence.led_since = Some(ago(3_600_000));
        });
    }

    fn lose_west(&self) {
        let ago = |millis| self.node.now().before(Span::from_millis(millis));
        let gone = ago(18_400);
        self.node.note(|evidence| {
            evidence.relayed.remove(&CoordinatorId(1));
            evidence.contacts.insert(cluster(WEST), contact(WEST, gone, true));
            if let Some(beats) = evidence.contacts.get_mut(&cluster(WEST)).map(|contact| &mut contact.beats) {
                beats.insert(application("shop"), beat(LeaseState::Held));
            }
            if let Some(theirs) = evidence.relayed.get_mut(&CoordinatorId(3)) {
                theirs.insert(cluster(WEST), contact(WEST, ago(18_700), true));
            }
            if let Some(central) = evidence.contacts.get_mut(&cluster(CENTRAL)) {
                central.beats.insert(application("shop"), beat(LeaseState::Held));
                let here = central.resources.get_mut(&application("shop")).unwrap();
                let db = here.get_mut(&resource("orders-db")).unwrap();
                db.role = Role::Primary;
                db.writable = true;
                db.timeline = 4;
                db.upstream = None;
                db.detail = "accepts writes on timeline 4".to_owned();
                let cache = here.get_mut(&resource("cache")).unwrap();
                cache.upstream = Some(UpstreamSight {
                    connected: false,
                    last_heard: Some(gone),
                    lag_bytes: None,
                    lag: None,
                    cluster: None,
                });
                cache.detail = "link to 10.1.0.7:6379 is <b>down</b> & waiting".to_owned();
            }
            evidence
                .contacts
                .get_mut(&cluster(NORTH))
                .unwrap()
                .witnesses
                .insert(cluster(WEST), WitnessSight { at: ago(900), answered: false, leases: BTreeMap::new() });
        });
        self.lead(Instant::now().checked_sub(Duration::from_millis(18_300)).unwrap());
        let wall = self.node.wall().0;
        self.change(|state| {
            let votes = [2, 3].map(|observer| {
                let standing = StandingVote {
                    index: LogIndex(4_700 + observer),
                    silence: Span::from_millis(2_500),
                    at: Timestamp(wall - 15_800 - 90 * i64::try_from(observer).unwrap()),
                };
                (
                    CoordinatorId(observer),
                    Ballot { incarnation: Incarnation(3), number: VoteNumber(1), standing: Some(standing) },
                )
            });
            state.votes.insert(cluster(WEST), BTreeMap::from(votes));
        });
    }

    fn run(&self) {
        let wall = self.node.wall().0;
        self.change(|state| {
            let run = current_run(wall);
            for (at, event, detail) in [
                (wall - 15_900, "voted", "eu-west-1 silent for 2.5s"),
                (wall - 15_700, "voted", "eu-west-1 silent for 2.5s"),
                (wall - 8_100, "decided", "eu-west-1 → eu-central-1, epoch 8 <lost by a majority>"),
            ] {
                state.audit.push_back(AuditRecord {
                    index: LogIndex(4_709),
                    at: Timestamp(at),
                    event: event.to_owned(),
                    application: Some(application("shop")),
                    run: Some(run.id),
                    actor: "coordinator 2".to_owned(),
                    detail: detail.to_owned(),
                });
            }
            let shop = state.applications.get_mut(&application("shop")).unwrap();
            shop.run = Some(run.id);
            shop.epoch = Epoch(8);
            shop.primary = Some(cluster(CENTRAL));
            shop.cooling_since = Some(run.started);
            shop.excluded.insert(cluster(WEST), "lost in epoch 8: rejoin it when it is back".to_owned());
            state.runs.insert(run.id, run);
        });
    }
}
