//! What the journal holds, and the state that its records add up to.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::id::{
    ApplicationId, ClusterId, CoordinatorId, Epoch, GroupId, Incarnation, InstallationId, ResourceId, Token,
};
use regent_core::terms::Terms;
use regent_core::time::Span;
use serde::{Deserialize, Serialize};

/// How many ended steps of one resource are kept to answer repeated commands from.
const KEPT_STEPS: usize = 8;

/// One durable fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// First record: the random identity of this data directory.
    Installed {
        /// The identity.
        installation: InstallationId,
    },
    /// When the file that holds this record came into being; see [`crate::journal::JournalFile::open`].
    Born {
        /// In nanoseconds since 1970, by the file system's clock.
        nanos: u64,
    },
    /// Raised at every process start, stored before it is used.
    Started {
        /// The new incarnation.
        incarnation: Incarnation,
    },
    /// The group of coordinators this agent belongs to.
    Joined {
        /// Its UUID.
        group: GroupId,
    },
    /// The coordinators that the group last said it has.
    Coordinators {
        /// Who, and where.
        coordinators: Vec<KnownCoordinator>,
    },
    /// New terms.
    Terms {
        /// Of which application.
        application: ApplicationId,
        /// The terms.
        terms: Box<Terms>,
        /// Where the listed clusters' agents are.
        peers: BTreeMap<ClusterId, Peer>,
    },
    /// A higher epoch was seen without terms.
    Seen {
        /// Of which application.
        application: ApplicationId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The marker is about to stand beside the data: guarded for good, and leading this epoch.
    Led {
        /// Which application.
        application: ApplicationId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The marker stands beside the resource's data, and its next start comes up refusing writes.
    Marked {
        /// Of which application.
        application: ApplicationId,
        /// Which resource.
        resource: ResourceId,
    },
    /// A resource was opened for writes at this epoch: by adoption, promotion or unfence.
    Opened {
        /// Of which application.
        application: ApplicationId,
        /// Which resource.
        resource: ResourceId,
        /// At which epoch.
        epoch: Epoch,
    },
    /// A step is about to be carried out; its token is the highest of the resource from here on.
    Begun {
        /// The step.
        step: Begun,
    },
    /// A commanded fence or quiesce: stored before it is confirmed, kept over restarts.
    Commanded {
        /// Of which application.
        application: ApplicationId,
        /// Which resource.
        resource: ResourceId,
        /// Fence or quiesce.
        hold: Hold,
    },
    /// A commanded fence or quiesce of the resource has ended.
    Lifted {
        /// Of which application.
        application: ApplicationId,
        /// Which resource.
        resource: ResourceId,
    },
    /// A step has ended.
    Ended {
        /// Of which application.
        application: ApplicationId,
        /// Which resource.
        resource: ResourceId,
        /// By which token.
        token: Token,
        /// How.
        outcome: Outcome,
    },
    /// How far a restore by a listed command has come.
    Restoring {
        /// Of which application.
        application: ApplicationId,
        /// Which resource.
        resource: ResourceId,
        /// By which token.
        token: Token,
        /// How far.
        progress: RestoreProgress,
    },
    /// The largest D that a promise may rest on.
    LargestBound {
        /// D.
        fail_over_after: Span,
    },
    /// The application has ended for this agent.
    Released {
        /// Which.
        application: ApplicationId,
    },
}

/// Where a coordinator is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KnownCoordinator {
    /// Its raft id.
    pub id: CoordinatorId,
    /// host:port of its gRPC server.
    pub address: String,
}

/// Where another cluster's agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// host:port of its PeerAgentService; empty if unknown.
    pub address: String,
    /// Ed25519 public key; empty if unknown.
    pub witness_key: Vec<u8>,
}

/// What a commanded step holds closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// No writes.
    Fence,
    /// No new work.
    Quiesce,
}

/// How far a restore by a listed command has come. No driver can read that in reality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestoreProgress {
    /// It is about to run. What is found so was ended in the middle: with its agent, by a time-out or by a signal.
    Begun,
    /// It has exited by itself, and not well, or never began.
    Failed,
    /// It has ended well; what it brought back is still to be looked at.
    Ended,
}

/// A step as it began. The command itself is repeated by the coordinators; only its name is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Begun {
    /// Run.
    pub run: u64,
    /// Step of the run.
    pub step: u32,
    /// Attempt of the step.
    pub attempt: u32,
    /// Fencing token.
    pub token: Token,
    /// Application.
    pub application: ApplicationId,
    /// Resources it counts for.
    pub resources: BTreeSet<ResourceId>,
    /// Epoch.
    pub epoch: Epoch,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// Stable error code; empty if it succeeded.
    pub code: String,
    /// For humans.
    pub message: String,
    /// Failed, and another attempt may succeed.
    pub retryable: bool,
    /// Time the driver took.
    pub driver_ms: u64,
    /// Position afterwards.
    pub position: Option<u64>,
    /// Timeline afterwards; 0 if none.
    pub timeline: u64,
    /// Reality already was as asked.
    pub already: bool,
    /// A fence went hard.
    #[serde(default)]
    pub hard: bool,
    /// Servers that still gave an old answer, or from which no new one could be had.
    pub stale_answers: Vec<Stale>,
    /// Of a drill: how long the same would take in earnest. Steps of drills are in no journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed_ms: Option<u64>,
}

/// A server that still gave an old answer, or from which no new one could be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stale {
    /// Its address.
    pub server: String,
    /// For how long it was seen to give an old answer; zero if it never was.
    pub for_ms: u64,
    /// It gave the new answer at the end.
    pub cleared: bool,
    /// False if nothing came back from it when it was last asked; so it was in every uncleared record without this.
    #[serde(default)]
    pub reached: bool,
}

/// A step as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// How it began.
    pub begun: Begun,
    /// How it ended; none if it had not when this was read.
    pub outcome: Option<Outcome>,
    /// How far its listed restore has come, in this attempt or another; none if it runs none.
    pub restoring: Option<RestoreProgress>,
}

/// What the records say of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceView {
    /// Highest token.
    pub token: Token,
    /// A commanded fence or quiesce that stands.
    pub hold: Option<Hold>,
    /// Marked, and closed at rest: a lease may fence it and a lapse need not fear its next start.
    pub marked: bool,
    /// The epoch at which it was last opened; 0 for never.
    pub opened: Epoch,
    /// The last steps, oldest first.
    pub steps: Vec<StepRecord>,
}

/// What the records say of one application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplicationView {
    /// Newest terms.
    pub terms: Option<Terms>,
    /// Where the other agents are.
    pub peers: BTreeMap<ClusterId, Peer>,
    /// Highest epoch seen in any form.
    pub seen: Epoch,
    /// It ended for this agent, and no terms have come since.
    pub released: bool,
    /// Highest epoch led; 0 for none. Above 0 the cluster is guarded for good.
    pub led: Epoch,
    /// By resource.
    pub resources: BTreeMap<ResourceId, ResourceView>,
}

/// Everything the journal says. What stands here is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Identity of the data directory.
    pub installation: InstallationId,
    /// Of the process that stored last.
    pub incarnation: Incarnation,
    /// The group.
    pub group: Option<GroupId>,
    /// The coordinators that the group last said it has.
    pub coordinators: Vec<KnownCoordinator>,
    /// Largest D stored.
    pub largest_bound: Span,
    /// By application.
    pub applications: BTreeMap<ApplicationId, ApplicationView>,
}

impl View {
    /// Adds one record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Installed { installation } => self.installation = installation.clone(),
            // It tells of the file, not of the agent: a rewritten one says its own.
            Record::Born { .. } => {}
            Record::Started { incarnation } => self.incarnation = *incarnation,
            Record::Joined { group } => self.group = Some(group.clone()),
            Record::Coordinators { coordinators } => self.coordinators.clone_from(coordinators),
            Record::LargestBound { fail_over_after } => self.bound_at_least(*fail_over_after),
            Record::Terms { application, terms, peers } => {
                self.bound_at_least(terms.bound.fail_over_after);
                let view = self.application(application);
                view.seen = view.seen.max(terms.epoch);
                view.peers.clone_from(peers);
                view.terms = Some((**terms).clone());
                view.released = false;
            }
            Record::Seen { application, epoch } => {
                let view = self.application(application);
                view.seen = view.seen.max(*epoch);
            }
            Record::Led { application, epoch } => {
                let view = self.application(application);
                view.led = view.led.max(*epoch);
            }
            Record::Marked { application, resource } => self.resource(application, resource).marked = true,
            Record::Opened { application, resource, epoch } => self.resource(application, resource).opened = *epoch,
            Record::Begun { step } => self.begin(step),
            Record::Commanded { application, resource, hold } => {
                let view = self.resource(application, resource);
                // A quiesce does not weaken a fence that stands.
                view.hold = view.hold.filter(|standing| *standing == Hold::Fence).or(Some(*hold));
            }
            Record::Lifted { application, resource } => self.resource(application, resource).hold = None,
            Record::Ended { application, resource, token, outcome } => {
                let steps = &mut self.resource(application, resource).steps;
                if let Some(step) = steps.iter_mut().find(|step| step.begun.token == *token) {
                    step.outcome = Some(outcome.clone());
                }
            }
            Record::Restoring { application, resource, token, progress } => {
                let steps = &mut self.resource(application, resource).steps;
                let named = steps.iter().find(|step| step.begun.token == *token).map(|step| step.begun.clone());
                let same = steps.iter_mut().filter(|step| named.as_ref().is_some_and(|named| step.begun.is_of(named)));
                same.for_each(|step| step.restoring = Some(*progress));
            }
            Record::Released { application } => {
                // Tokens stay, and the highest epoch seen: a late command of the application's former life is still
                // refused, and a coordinator that lags may name that epoch again. Who takes up the name goes on above.
                let view = self.application(application);
                view.released = true;
                view.terms = None;
                view.peers.clear();
                view.led = Epoch(0);
                view.resources.values_mut().for_each(|resource| (resource.hold, resource.marked) = (None, false));
            }
        }
    }

    /// Records that add up to this view: what compaction writes.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut records = vec![
            Record::Installed { installation: self.installation.clone() },
            Record::Started { incarnation: self.incarnation },
            Record::LargestBound { fail_over_after: self.largest_bound },
        ];
        records.extend(self.group.clone().map(|group| Record::Joined { group }));
        if !self.coordinators.is_empty() {
            records.push(Record::Coordinators { coordinators: self.coordinators.clone() });
        }
        for (application, view) in &self.applications {
            let application = || application.clone();
            if view.released {
                records.push(Record::Released { application: application() });
            }
            if let Some(terms) = &view.terms {
                let (terms, peers) = (Box::new(terms.clone()), view.peers.clone());
                records.push(Record::Terms { application: application(), terms, peers });
            }
            records.push(Record::Seen { application: application(), epoch: view.seen });
            records.push(Record::Led { application: application(), epoch: view.led });
            for (resource, state) in &view.resources {
                let named = || (application(), resource.clone());
                for step in &state.steps {
                    let (application, resource) = named();
                    let begun = Begun { resources: BTreeSet::from([resource.clone()]), ..step.begun.clone() };
                    let token = begun.token;
                    records.push(Record::Begun { step: begun });
                    if let Some(progress) = step.restoring {
                        let (application, resource) = named();
                        records.push(Record::Restoring { application, resource, token, progress });
                    }
                    let ended = step.outcome.clone();
                    records.extend(ended.map(|outcome| Record::Ended { application, resource, token, outcome }));
                }
                if state.marked {
                    let (application, resource) = named();
                    records.push(Record::Marked { application, resource });
                }
                if state.opened > Epoch(0) {
                    let (application, resource) = named();
                    records.push(Record::Opened { application, resource, epoch: state.opened });
                }
                let (application, resource) = named();
                records.extend(state.hold.map(|hold| Record::Commanded { application, resource, hold }));
            }
        }
        records
    }

    fn begin(&mut self, step: &Begun) {
        let view = self.application(&step.application);
        view.seen = view.seen.max(step.epoch);
        for resource in &step.resources {
            let view = self.resource(&step.application, resource);
            view.token = view.token.max(step.token);
            let restoring = view.steps.iter().find(|known| known.begun.is_of(step)).and_then(|known| known.restoring);
            view.steps.retain(|known| known.begun.token != step.token);
            view.steps.push(StepRecord { begun: step.clone(), outcome: None, restoring });
            let surplus = view.steps.len().saturating_sub(KEPT_STEPS);
            view.steps.drain(..surplus);
        }
    }

    fn bound_at_least(&mut self, span: Span) {
        self.largest_bound = self.largest_bound.max(span);
    }

    fn application(&mut self, application: &ApplicationId) -> &mut ApplicationView {
        self.applications.entry(application.clone()).or_default()
    }

    fn resource(&mut self, application: &ApplicationId, resource: &ResourceId) -> &mut ResourceView {
        self.application(application).resources.entry(resource.clone()).or_default()
    }
}

impl Begun {
    /// Both are attempts at the same step.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        (self.run, self.step) == (other.run, other.step) && self.token.restoration == other.token.restoration
    }
}

impl ApplicationView {
    /// The step that began by this token, if it is still known.
    #[must_use]
    pub fn step(&self, resource: &ResourceId, token: Token) -> Option<&StepRecord> {
        self.resources.get(resource)?.steps.iter().find(|step| step.begun.token == token)
    }

    /// What is marked and closed at rest.
    #[must_use]
    pub fn marked(&self) -> BTreeSet<ResourceId> {
        self.resources.iter().filter(|(_, view)| view.marked).map(|(name, _)| name.clone()).collect()
    }

    /// What is held closed by command.
    #[must_use]
    pub fn holds(&self) -> BTreeMap<ResourceId, Hold> {
        self.resources.iter().filter_map(|(name, view)| Some((name.clone(), view.hold?))).collect()
    }
}
