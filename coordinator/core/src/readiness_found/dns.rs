//! Notes on a name: what would lead clients to the old side after a redirect, or to nobody.

use std::collections::BTreeSet;

use super::note;
use crate::application::DnsName;
use crate::facts::{AuthorityFacts, DnsFacts, ResolverFacts};
use crate::preflight::{Note, Severity};

pub(super) fn of_name(found: &DnsFacts, name: &DnsName) -> Vec<Note> {
    let mut notes = Vec::new();
    for one in &found.authorities {
        notes.extend(of_authority(one, name));
    }
    if !found.update.is_empty() {
        let detail = format!("no update could be tried: {}", found.update);
        notes.push(note(Severity::Warning, "dns-unreachable", detail));
    }
    let serials: BTreeSet<u32> = found.authorities.iter().filter_map(|one| one.serial).collect();
    if serials.len() > 1 {
        let each = found.authorities.iter().filter_map(|one| Some(format!("{} at {}", one.serial?, one.server)));
        let each: Vec<String> = each.collect();
        let detail = format!("the authorities have different versions of {}: {}", found.zone, each.join(", "));
        notes.push(note(Severity::Warning, "dns-serial-differs", detail));
    }
    notes.extend(of_delegation(found));
    notes
}

fn of_authority(one: &AuthorityFacts, name: &DnsName) -> Vec<Note> {
    let server = &one.server;
    if !one.problem.is_empty() {
        let detail = format!("the authority {server} gives no answer: {}", one.problem);
        return vec![note(Severity::Warning, "dns-unreachable", detail)];
    }
    let mut notes = Vec::new();
    if !one.authoritative {
        let detail = format!("{server} is listed as an authority, and does not say that it is one");
        notes.push(note(Severity::Warning, "dns-not-authoritative", detail));
    }
    // While a run is about to change the answer the embedded servers give it with 0.
    if let Some(ttl) = one.ttl.filter(|ttl| *ttl > name.ttl) {
        let detail = format!(
            "{server} gives {} with a TTL of {ttl}, and the document says {}: so long it leads to the old side",
            name.name, name.ttl
        );
        notes.push(note(Severity::Warning, "dns-ttl", detail));
    }
    notes
}

fn of_delegation(found: &DnsFacts) -> Vec<Note> {
    let unknown = |why: &str| vec![note(Severity::Info, "dns-delegation-unknown", format!("not looked at: {why}"))];
    let own: BTreeSet<&String> = found.authorities.iter().flat_map(|one| &one.name_servers).collect();
    if found.authorities.is_empty() {
        return unknown("the agent does not know the name yet; set `name` in agent.yaml");
    }
    if found.resolvers.is_empty() {
        return unknown("agent.yaml names no resolvers");
    }
    if own.is_empty() {
        return unknown("no authority named the zone's name servers");
    }
    found.resolvers.iter().filter_map(|one| of_resolver(one, &found.zone, &own)).collect()
}

fn of_resolver(one: &ResolverFacts, zone: &str, own: &BTreeSet<&String>) -> Option<Note> {
    let server = &one.server;
    if !one.problem.is_empty() {
        let detail = format!("the resolver {server} gives no answer: {}", one.problem);
        return Some(note(Severity::Warning, "dns-unreachable", detail));
    }
    let detail = if one.name_servers.is_empty() {
        format!("the resolver {server} finds no name servers of {zone}; the authorities name {}", list(own))
    } else if one.name_servers.iter().all(|name| own.contains(name)) {
        return None;
    } else {
        let theirs = one.name_servers.iter().collect();
        format!("the resolver {server} finds {} for {zone}; the authorities name {}", list(&theirs), list(own))
    };
    Some(note(Severity::Warning, "dns-not-delegated", detail))
}

fn list(names: &BTreeSet<&String>) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}
