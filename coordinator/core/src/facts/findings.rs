//! What agents find out by trying, or by asking others, without a change: what a step would meet.

use std::collections::BTreeSet;

use crate::time::Span;

/// Of one resource in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Rights and programs that a step would need and lacks, each with what to do.
    pub lacks: Vec<String>,
    /// Of a name.
    pub dns: Option<DnsFacts>,
    /// What there is too little of to start the service here.
    pub short: Vec<String>,
    /// Other managers that look after the same database, each with what gives it away.
    pub managed: Vec<String>,
    /// What agent.yaml lists under a service; none: its kind lists nothing, or the agent does not say.
    pub listed: Option<Listed>,
    /// Why it is not known whether a step would be allowed; empty if it is, or the agent does not say.
    pub rights_unknown: String,
    /// Why it is not known whether there is room for the service here; the same.
    pub capacity_unknown: String,
}

/// The programs of a service by name. Coordinators name them, and agents alone have them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Of `activate`, `deactivate`, `status` and `restore` those that there are; empty for a kind that needs none.
    pub actions: BTreeSet<String>,
    /// What `run` steps may name.
    pub commands: BTreeSet<String>,
}

/// What DNS servers say of a name and its zone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsFacts {
    /// As the authorities name it; empty if none did, or the agent does not know the name yet.
    pub zone: String,
    /// Every server that must give the new answer.
    pub authorities: Vec<AuthorityFacts>,
    /// Every resolver that agent.yaml names.
    pub resolvers: Vec<ResolverFacts>,
    /// Why the server of updates could not be asked for one; empty if it could, or there is none.
    pub update: String,
}

/// What an authority says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthorityFacts {
    /// Its address.
    pub server: String,
    /// Why there is no answer; empty if there is one.
    pub problem: String,
    /// It says that it is one.
    pub authoritative: bool,
    /// The longest time to live among the name's addresses; none if it has none.
    pub ttl: Option<Span>,
    /// The zone's; none if it gives none.
    pub serial: Option<u32>,
    /// The zone's, in lower case.
    pub name_servers: BTreeSet<String>,
}

/// What a resolver says of the zone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolverFacts {
    /// Its address.
    pub server: String,
    /// Why there is no answer; empty if there is one.
    pub problem: String,
    /// The zone's name servers, in lower case; empty if it finds none.
    pub name_servers: BTreeSet<String>,
}
