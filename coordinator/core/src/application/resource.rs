//! The checks of `spec.resources`: names, kinds, what only DNS names have, and what `after` refers to.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{DnsDraft, ResourceDraft};
use super::mistake::{Mistakes, Placed, list, quote};
use super::{DnsName, Resource, ResourceKind, decode, default, order};
use crate::id::{NAME_LIMIT, ResourceId};
use crate::time::Span;

/// Longest DNS name in text, with the final dot.
const DNS_LIMIT: usize = 254;
/// Shortest and longest time to live.
pub(super) const TTL_BOUNDS: (Span, Span) = (Span::from_secs(1), Span::from_secs(3600));

/// The declared names; without a kind where that has a mistake.
pub(super) type Known<'d> = BTreeMap<&'d str, Option<ResourceKind>>;

/// What other parts may refer to.
pub(super) fn known(drafts: &[ResourceDraft]) -> Known<'_> {
    drafts.iter().map(|draft| (draft.name.value.as_str(), draft.kind)).collect()
}

/// Checks all resources.
pub(super) fn check(
    drafts: &Placed<Vec<ResourceDraft>>,
    mistakes: &mut Mistakes,
) -> Option<BTreeMap<ResourceId, Resource>> {
    if drafts.value.is_empty() {
        mistakes.add(&drafts.at, "there is no resource; name at least one, e.g. orders-db: { kind: postgres }");
    }
    let known = known(&drafts.value);
    let mut resources = BTreeMap::new();
    let mut answered = BTreeMap::new();
    for draft in &drafts.value {
        let id = decode::name(&draft.name, |text| ResourceId::new(text).ok(), mistakes);
        let after = after(draft, &known, mistakes);
        let dns = dns(draft, mistakes);
        if let (Some(Some(dns)), Some(given)) = (&dns, draft.dns.name.given()) {
            let first = answered.entry(dns.name.clone()).or_insert(draft.name.value.as_str());
            if *first != draft.name.value {
                let message = format!("the resources {first} and {} answer for the same name", draft.name.value);
                mistakes.add(&given.at, message);
            }
        }
        if let (Some(id), Some(kind), Some(dns)) = (id, draft.kind, dns) {
            resources.insert(id, Resource { kind, after, dns });
        }
    }
    order::check(&drafts.value, mistakes);
    Some(resources)
}

fn after(draft: &ResourceDraft, known: &Known<'_>, mistakes: &mut Mistakes) -> BTreeSet<ResourceId> {
    let mut after = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for name in &draft.after {
        if !seen.insert(&name.value) {
            mistakes.add(&name.at, format_args!("{} stands here twice", quote(&name.value)));
        } else if !known.contains_key(name.value.as_str()) {
            mistakes.add(&name.at, unknown(&name.value, known, mistakes));
        } else if let Ok(id) = ResourceId::new(&name.value) {
            // A declared name that is none is reported where it is declared.
            after.insert(id);
        }
    }
    after
}

/// That there is no such resource, and what there is.
pub(super) fn unknown(name: &str, known: &Known<'_>, mistakes: &Mistakes) -> String {
    match mistakes.nearest(name, known.keys().copied()) {
        Some(near) => format!("there is no resource {}; did you mean {near}?", quote(name)),
        None => format!("there is no resource {}; known here: {}", quote(name), list(known.keys().copied())),
    }
}

/// What only DNS names have: `Some(None)` for other kinds, none for a mistake.
#[expect(clippy::option_option, reason = "a mistake and a resource without a DNS name are not the same")]
fn dns(draft: &ResourceDraft, mistakes: &mut Mistakes) -> Option<Option<DnsName>> {
    let DnsDraft { name, ttl, provider, present } = &draft.dns;
    let kind = draft.kind?;
    if kind != ResourceKind::Dns {
        for (key, at) in present {
            mistakes.add(at, format_args!("{key} is for dns resources only, and this one is of kind {kind}"));
        }
        return present.is_empty().then_some(None);
    }
    let ttl = ttl.clone().then(mistakes, time_to_live).or(default::TTL);
    let provider = provider.clone().or(default::PROVIDER);
    let name = name.clone().then(mistakes, |text| absolute(&text));
    let name = name.required("name", &draft.name.at, mistakes)?;
    Some(Some(DnsName { name: name.value, ttl: ttl?, provider: provider? }))
}

fn time_to_live(ttl: Span) -> Result<Span, String> {
    let (least, most) = TTL_BOUNDS;
    if ttl.millis().is_multiple_of(1000) && (least..=most).contains(&ttl) {
        Ok(ttl)
    } else {
        Err(format!("a ttl is in whole seconds, from {least} to {most}, and this is {ttl}"))
    }
}

/// The name with its final dot, which may be left out: a relative name would have no meaning here.
fn absolute(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let refuse = |reason: &str| Err(format!("{} is not the absolute name of a host: {reason}", quote(text)));
    if name.chars().any(|letter| letter.is_ascii_uppercase()) {
        return refuse(&format!("write it in lower case, {}", quote(&text.to_ascii_lowercase())));
    }
    if name.len() >= DNS_LIMIT {
        return refuse(&format!("it is longer than {} characters", DNS_LIMIT - 1));
    }
    for label in name.split('.') {
        let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let good = !label.is_empty()
            && label.chars().all(|letter| inner(letter) || letter == '-')
            && label.starts_with(inner)
            && label.ends_with(inner);
        if !good || label.len() > NAME_LIMIT {
            let rule = "use 1 to 63 of a-z, 0-9 and '-' between two dots, with a letter or digit at both ends";
            return refuse(rule);
        }
    }
    if !name.contains('.') {
        return refuse("the zone is missing, e.g. www.example.");
    }
    Ok(format!("{name}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_get_their_final_dot() {
        assert_eq!(absolute("shop.regent.test"), Ok("shop.regent.test.".to_owned()));
        assert_eq!(absolute("shop.regent.test."), Ok("shop.regent.test.".to_owned()));
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(absolute(&longest), Ok(format!("{longest}.")));
    }

    #[test]
    fn what_is_no_host_name_is_refused_with_the_reason() {
        let label = "a".repeat(64);
        for (text, reason) in [
            ("", "between two dots"),
            (".", "between two dots"),
            ("www", "zone is missing"),
            ("www.", "zone is missing"),
            ("a..b", "between two dots"),
            ("-a.b", "between two dots"),
            ("a_b.c", "between two dots"),
            ("*.b.c", "between two dots"),
            ("ä.b", "between two dots"),
            ("Shop.Example.", "\"shop.example.\""),
            (&format!("{label}.b"), "between two dots"),
            (&format!("{0}.{0}.{0}.{0}", "a".repeat(63)), "longer than 253"),
        ] {
            let found = absolute(text);
            assert!(found.as_ref().is_err_and(|found| found.contains(reason)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_ttl_is_in_whole_seconds_of_an_hour() {
        for (ttl, good) in
            [(1, false), (999, false), (1000, true), (1500, false), (3_600_000, true), (3_601_000, false)]
        {
            assert_eq!(time_to_live(Span::from_millis(ttl)).is_ok(), good, "{ttl}");
        }
    }
}
