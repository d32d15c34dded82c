//! Who belongs to the group, what it protects, and by which terms: everything but votes and changes of primary.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Applying, ignored, refused};
use super::recovery::refuse_recovering;
use super::{Answer, ApplicationState, Applied, Pause, Rehearsed, State, two_person};
use crate::application::Application;
use crate::blast::{self, Limit};
use crate::copied;
use crate::effect::Effect;
use crate::entry::{Agent, Coordinator, Database};
use crate::id::{ApplicationId, ClusterId, Epoch, GroupId, Incarnation, InstallationId, ResourceId, Revision, Token};
use crate::installation;
use crate::restore::Recovering;
use crate::terms::{Listed, Terms};
use crate::time::Span;

pub(super) fn group_created(applying: &mut Applying<'_>, group: &GroupId) -> Applied {
    if !applying.state.group.0.is_empty() {
        return ignored("the group exists");
    }
    applying.state.group = group.clone();
    applying.audit("group-created", None, None, "coordinator", group.0.clone());
    applying.done()
}

/// A raft id belongs to one data directory for good: a wiped one must come back under another id, because it has
/// forgotten what it granted and voted.
pub(super) fn coordinator_joined(applying: &mut Applying<'_>, coordinator: &Coordinator) -> Applied {
    match applying.state.coordinators.get(&coordinator.id) {
        Some(known) if known == coordinator => return ignored("known"),
        Some(known) if known.identity != coordinator.identity => {
            return refused(
                "foreign-identity",
                format!(
                    "coordinator {} is bound to another data directory; add this one under a new id",
                    coordinator.id
                ),
            );
        }
        Some(_) | None => {}
    }
    if applying.state.removed.contains_key(&coordinator.id) {
        return refused(
            "id-used-up",
            format!("coordinator {} was removed from the group; add this one under a new id", coordinator.id),
        );
    }
    applying.state.coordinators.insert(coordinator.id, coordinator.clone());
    applying.effects.push(Effect::CoordinatorsChanged);
    let actor = format!("coordinator {}", coordinator.id);
    applying.audit("coordinator-joined", None, None, &actor, format!("region {}", coordinator.region));
    applying.done()
}

/// One installation for each cluster: another one has not stored what the first one promised. And of its processes the
/// newest: what an older one proposed may arrive late.
pub(super) fn agent_registered(applying: &mut Applying<'_>, agent: &Agent) -> Applied {
    match applying.state.agents.get(&agent.cluster) {
        Some(known) if known == agent => return ignored("known"),
        Some(known) if known.installation != agent.installation => {
            return refused(
                "foreign-installation",
                format!("cluster {} belongs to another installation of the agent", agent.cluster),
            );
        }
        Some(known) => {
            if let Some(why) = known.overtakes(agent.incarnation, &agent.boot) {
                return refused("agent-doubled", why);
            }
        }
        None => {}
    }
    if copied::take(applying.state, agent) {
        return applying.done();
    }
    applying.state.dns_serial = applying.state.dns_serial.wrapping_add(1);
    let actor = format!("agent {}", agent.cluster);
    applying.audit("agent-registered", None, None, &actor, format!("region {}", agent.region));
    let listing: Vec<ApplicationId> = applying
        .state
        .applications
        .iter()
        .filter(|(_, known)| known.document.clusters.contains(&agent.cluster))
        .map(|(id, _)| id.clone())
        .collect();
    for application in listing {
        renew_terms(applying, &application);
        // Addresses and keys travel with the terms, also where the terms themselves stay the same.
        applying.effects.push(Effect::TermsChanged(application));
    }
    applying.done()
}

/// The new one has stored nothing of what the old one was told, so its cluster is no candidate before it has rejoined.
pub(super) fn installation_replaced(
    applying: &mut Applying<'_>,
    cluster: &ClusterId,
    installation: &InstallationId,
    by: &str,
) -> Applied {
    if let Err(rule) = installation::check(applying.state, cluster, installation) {
        return refused(&rule.code, rule.detail);
    }
    let Some(agent) = applying.state.agents.get_mut(cluster) else { return ignored("no agent") };
    let old = std::mem::replace(&mut agent.installation, installation.clone());
    // It counts its processes anew.
    (agent.incarnation, agent.boot) = (Incarnation::default(), String::new());
    let mut listing = Vec::new();
    for (id, known) in &mut applying.state.applications {
        if known.primary.is_some() && known.document.clusters.contains(cluster) {
            let reason = "a new installation of its agent; quarantined until it rejoins";
            known.excluded.entry(cluster.clone()).or_insert_with(|| reason.to_owned());
            listing.push(id.clone());
        }
    }
    for application in listing {
        renew_terms(applying, &application);
    }
    let detail = format!("{cluster}: {installation} takes the place of {old}");
    applying.audit("installation-replaced", None, None, by, detail);
    applying.done()
}

pub(super) fn document(applying: &mut Applying<'_>, document: &Application, by: &str) -> Applied {
    if let Some(answer) = two_person::confirmed(applying, document, by).or_else(|| conflict(applying, document)) {
        return answer;
    }
    let name = &document.name;
    if let Some(known) = applying.state.applications.get_mut(name) {
        let before = std::mem::replace(&mut known.document, document.clone());
        known.revision = known.revision.next();
        known.rehearsed.begun = known.rehearsed.begun.or(document.drills.as_ref().map(|_| applying.at));
        let revision = known.revision;
        point_new_names(applying, name);
        renew_terms(applying, name);
        applying.audit("applied", Some(name), None, by, format!("revision {revision}"));
        two_person::note(applying, name, before.automation.two_person, by);
    } else {
        let fresh = ApplicationState {
            document: document.clone(),
            revision: Revision(1),
            epoch: Epoch(0),
            primary: None,
            databases: BTreeMap::new(),
            terms: Vec::new(),
            confirmed: false,
            excluded: BTreeMap::new(),
            answers: BTreeMap::new(),
            paused: None,
            cooling_since: None,
            refusal: None,
            run: None,
            rogues: BTreeMap::new(),
            // Agents may know a former life of it: their epochs and numbers only rise.
            recovering: (applying.state.restoration > 0).then(Recovering::default),
            stuck: BTreeMap::new(),
            rehearsed: Rehearsed { begun: document.drills.as_ref().map(|_| applying.at), ..Rehearsed::default() },
            held: None,
            window: None,
            order: None,
            dropped: None,
            rebooted: Epoch(0),
        };
        applying.state.applications.insert(name.clone(), fresh);
        applying.audit("applied", Some(name), None, by, "revision 1");
    }
    applying.effects.push(Effect::TermsChanged(name.clone()));
    applying.done()
}

/// Why a document cannot be taken as it is.
fn conflict(applying: &Applying<'_>, document: &Application) -> Option<Applied> {
    let names = |application: &Application| -> BTreeSet<String> {
        application
            .resources
            .values()
            .filter_map(|resource| resource.dns.as_ref())
            .map(|dns| dns.name.clone())
            .collect()
    };
    let mine = names(document);
    for (id, other) in &applying.state.applications {
        if *id != document.name
            && let Some(name) = names(&other.document).intersection(&mine).next()
        {
            return Some(refused("name-taken", format!("{name} belongs to application {id}")));
        }
    }
    let known = applying.state.applications.get(&document.name)?;
    if known.document == *document {
        return Some(ignored("unchanged"));
    }
    if known.run.is_some() {
        return Some(refused(
            "run-under-way",
            "the plan of the run was made from the present document; apply it afterwards",
        ));
    }
    let primary = known.primary.as_ref()?;
    if !document.clusters.contains(primary) {
        return Some(refused(
            "would-move-primary",
            format!("{primary} is the primary; switch over before it is removed"),
        ));
    }
    for resource in known.document.guarded() {
        let same = known.document.resources.get(&resource).map(|r| r.kind)
            == document.resources.get(&resource).map(|r| r.kind);
        if !same {
            return Some(refused(
                "would-release-database",
                format!("{resource} is guarded in {primary}; a database leaves an application only by a release"),
            ));
        }
    }
    None
}

/// The first epoch. Which cluster is primary was read from the databases; two or none never get here.
pub(super) fn adopt(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    primary: &ClusterId,
    databases: &BTreeMap<ResourceId, Database>,
) -> Applied {
    let Some(known) = applying.state.applications.get(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    if let Err(not) = refuse_recovering(known) {
        return not;
    }
    if known.epoch != Epoch(0) {
        return ignored("adopted before");
    }
    if !known.document.clusters.contains(primary) {
        return refused("unlisted-cluster", format!("{primary} is not listed"));
    }
    if let Some(missing) = known.document.clusters.iter().find(|cluster| !applying.state.agents.contains_key(*cluster))
    {
        return refused("agent-missing", format!("no agent of {missing} has registered"));
    }
    if let Some(other) = database_taken(applying.state, application, databases) {
        return refused("database-taken", format!("application {other} has the same database"));
    }
    let Some(known) = applying.state.applications.get_mut(application) else {
        return ignored("gone");
    };
    known.epoch = Epoch(1);
    known.primary = Some(primary.clone());
    known.databases.insert(primary.clone(), databases.clone());
    point_new_names(applying, application);
    renew_terms(applying, application);
    applying.audit("adopted", Some(application), None, "leader", format!("primary {primary}"));
    applying.done()
}

/// The other application that has one of these databases: two leases must never govern one server.
fn database_taken(
    state: &State,
    application: &ApplicationId,
    databases: &BTreeMap<ResourceId, Database>,
) -> Option<ApplicationId> {
    let same = |theirs: &ApplicationState| {
        theirs.databases.values().flat_map(BTreeMap::values).any(|database| {
            !database.system_id.0.is_empty() && databases.values().any(|mine| mine.system_id == database.system_id)
        })
    };
    let mut others = state.applications.iter().filter(|(other, _)| *other != application);
    others.find(|(_, theirs)| same(theirs)).map(|(other, _)| other.clone())
}

pub(super) fn terms_confirmed(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    number: Token,
    cluster: &ClusterId,
    installation: &InstallationId,
    databases: &BTreeMap<ResourceId, Database>,
) -> Applied {
    let registered = applying.state.agents.get(cluster).map(|agent| agent.installation.clone());
    let Some(known) = applying.state.applications.get_mut(application) else {
        return ignored("unknown application");
    };
    let Some(position) = known.terms.iter().position(|terms| terms.number == number) else {
        return ignored("terms are no longer in question");
    };
    let Some(terms) = known.terms.get(position) else {
        return ignored("terms are no longer in question");
    };
    let theirs = terms.epoch == known.epoch && terms.primary == *cluster && registered.as_ref() == Some(installation);
    if !theirs {
        return ignored("not from the primary of this epoch");
    }
    if position == 0 && known.confirmed {
        return ignored("confirmed before");
    }
    if let Some(other) = database_taken(applying.state, application, databases) {
        return refused(
            "database-taken",
            format!("application {other} has the same database; take it out of one of them"),
        );
    }
    let Some(known) = applying.state.applications.get_mut(application) else {
        return ignored("unknown application");
    };
    known.terms.drain(..position);
    known.confirmed = true;
    if !databases.is_empty() {
        known.databases.insert(cluster.clone(), databases.clone());
    }
    applying.audit("terms-confirmed", Some(application), None, &format!("agent {cluster}"), format!("terms {number}"));
    applying.done()
}

pub(super) fn paused(
    applying: &mut Applying<'_>,
    application: Option<&ApplicationId>,
    by: &str,
    reason: &str,
) -> Applied {
    let pause = Pause { by: by.to_owned(), reason: reason.to_owned(), at: applying.at };
    if let Some(id) = application {
        let Some(known) = applying.state.applications.get_mut(id) else {
            return refused("unknown-application", format!("{id} does not exist"));
        };
        known.paused = Some(pause);
        renew_terms(applying, id);
    } else {
        applying.state.paused = Some(pause);
        renew_all_terms(applying);
    }
    applying.audit("paused", application, None, by, reason);
    applying.done()
}

pub(super) fn resumed(applying: &mut Applying<'_>, application: Option<&ApplicationId>, by: &str) -> Applied {
    if let Some(id) = application {
        let Some(known) = applying.state.applications.get_mut(id) else {
            return refused("unknown-application", format!("{id} does not exist"));
        };
        known.paused = None;
        renew_terms(applying, id);
    } else {
        applying.state.paused = None;
        renew_all_terms(applying);
    }
    applying.audit("resumed", application, None, by, "");
    applying.done()
}

pub(super) fn acknowledged(applying: &mut Applying<'_>, application: Option<&ApplicationId>, by: &str) -> Applied {
    if let Some(id) = application {
        let Some(known) = applying.state.applications.get_mut(id) else {
            return refused("unknown-application", format!("{id} does not exist"));
        };
        known.cooling_since = None;
        known.refusal = None;
    } else {
        let clusters = applying.state.frozen.take().unwrap_or_default();
        applying.state.acknowledged.extend(clusters);
        applying.state.begun.clear();
    }
    applying.audit("acknowledged", application, None, by, "");
    applying.done()
}

pub(super) fn limit_set(applying: &mut Applying<'_>, limit: Limit, by: &str) -> Applied {
    if limit.window.is_some_and(|window| window == Span::ZERO || window > blast::LONGEST_WINDOW) {
        return refused(
            "limit-senseless",
            format!("the window must be longer than none and at most {}", blast::LONGEST_WINDOW),
        );
    }
    if applying.state.limit == limit {
        return ignored("unchanged");
    }
    applying.state.limit = limit;
    let (events, window) = blast::limit(applying.state);
    applying.audit("limit-set", None, None, by, format!("{events} automatic failovers within {window}"));
    applying.done()
}

pub(super) fn refusal(applying: &mut Applying<'_>, application: &ApplicationId, rule: &str, detail: &str) -> Applied {
    let Some(known) = applying.state.applications.get_mut(application) else {
        return ignored("unknown application");
    };
    let refusal = (!rule.is_empty()).then(|| (rule.to_owned(), detail.to_owned()));
    if known.refusal.as_ref().map(|(rule, _)| rule) == refusal.as_ref().map(|(rule, _)| rule) {
        return ignored("audited before");
    }
    known.refusal = refusal;
    if rule.is_empty() {
        applying.audit("refusal-ended", Some(application), None, "leader", detail);
    } else {
        applying.audit("refused", Some(application), None, "leader", format!("{rule}: {detail}"));
    }
    applying.done()
}

pub(super) fn frozen(applying: &mut Applying<'_>, clusters: &BTreeSet<ClusterId>) -> Applied {
    if applying.state.frozen.as_ref() == Some(clusters) {
        return ignored("frozen before");
    }
    applying.state.frozen = Some(clusters.clone());
    let names: Vec<&str> = clusters.iter().map(ClusterId::as_str).collect();
    applying.audit("frozen", None, None, "leader", format!("lost at once: {}", names.join(", ")));
    applying.done()
}

pub(super) fn thawed(applying: &mut Applying<'_>) -> Applied {
    let known = applying.state.frozen.take().is_some() || !applying.state.acknowledged.is_empty();
    if !known {
        return ignored("not frozen");
    }
    applying.state.acknowledged.clear();
    applying.audit("thawed", None, None, "leader", "");
    applying.done()
}

/// Points names that answer nothing yet to the primary.
fn point_new_names(applying: &mut Applying<'_>, application: &ApplicationId) {
    let since = applying.token();
    let Some(known) = applying.state.applications.get_mut(application) else { return };
    let Some(primary) = known.primary.clone() else { return };
    let mut changed = Vec::new();
    for (resource, spec) in &known.document.resources {
        if spec.dns.is_some() && !known.answers.contains_key(resource) {
            known.answers.insert(resource.clone(), Answer { cluster: primary.clone(), since });
            changed.push(resource.clone());
        }
    }
    known.answers.retain(|resource, _| known.document.resources.get(resource).is_some_and(|spec| spec.dns.is_some()));
    applying.state.dns_serial = applying.state.dns_serial.wrapping_add(1);
    for resource in changed {
        applying.effects.push(Effect::AnswerChanged(application.clone(), resource));
    }
}

/// New terms for all: the voters or the global pause changed.
pub(super) fn renew_all_terms(applying: &mut Applying<'_>) {
    let all: Vec<ApplicationId> = applying.state.applications.keys().cloned().collect();
    for application in all {
        renew_terms(applying, &application);
    }
}

/// Makes new terms if what they say has changed.
pub(crate) fn renew_terms(applying: &mut Applying<'_>, application: &ApplicationId) {
    let number = applying.token();
    let state = &mut *applying.state;
    let Some(known) = state.applications.get_mut(application) else { return };
    let Some(primary) = known.primary.clone() else { return };
    let listed = |cluster: &ClusterId| Listed {
        installation: state.agents.get(cluster).map(|agent| agent.installation.clone()),
        excluded: known.excluded.contains_key(cluster),
    };
    let terms = Terms {
        number,
        epoch: known.epoch,
        primary,
        bound: known.document.automation.bound,
        clusters: known.document.clusters.iter().map(|cluster| (cluster.clone(), listed(cluster))).collect(),
        guarded: known.document.guarded(),
        voters: state.voters.clone(),
        on_coordinator_loss: known.document.automation.on_coordinator_loss,
        paused: known.paused.is_some() || state.paused.is_some(),
    };
    if known.terms.last().is_some_and(|last| Terms { number, ..last.clone() } == terms) {
        return;
    }
    known.terms.push(terms);
    applying.effects.push(Effect::TermsChanged(application.clone()));
}
