//! Bounds for what agents say in words. It goes into the log and into the memory of every coordinator, so one faulty agent
//! must not fill them. Words are cut, with a mark that they were; what identifies something is refused instead, or taken for
//! not known, since a part of it identifies something else.

use regent_proto::agent::v1 as wire;

/// Longest text of a report that is kept, in bytes.
pub(super) const TEXT_LIMIT: usize = 1024;
/// Longest message of a step that is kept, in bytes: it has the last words of a program that failed.
const MESSAGE_LIMIT: usize = 4096;
/// Most items of one list that are kept: servers, slots, settings, what is lacking.
pub(super) const LIST_LIMIT: usize = 256;
/// At the end of a text that was longer.
const MARK: &str = " … (cut)";

/// A text of a report, as long as it may be.
pub(super) fn cut(text: &str) -> String {
    cut_to(text, TEXT_LIMIT)
}

/// What identifies something: whole, or none.
pub(super) fn whole(text: &str) -> String {
    if text.len() <= TEXT_LIMIT { text.to_owned() } else { String::new() }
}

/// A message of a step, as long as it may be.
pub(super) fn cut_message(text: &str) -> String {
    cut_to(text, MESSAGE_LIMIT)
}

/// A list of texts, as many and as long as they may be.
pub(super) fn cut_all<C: FromIterator<String>>(texts: &[String]) -> C {
    texts.iter().take(LIST_LIMIT).map(|text| cut(text)).collect()
}

fn cut_to(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub(MARK.len());
    let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{MARK}", text.get(..end).unwrap_or_default())
}

/// The first thing in an introduction that is longer than anything of its kind.
pub(super) fn too_long(hello: &wire::Hello) -> Option<&'static str> {
    let long = |text: &String| text.len() > TEXT_LIMIT;
    let many = |addresses: &Vec<String>| addresses.len() > LIST_LIMIT || addresses.iter().any(long);
    if long(&hello.installation) {
        Some("installation")
    } else if long(&hello.boot) {
        Some("boot")
    } else if long(&hello.peer_address) {
        Some("peer_address")
    } else if hello.witness_key.len() > TEXT_LIMIT {
        Some("witness_key")
    } else if hello.endpoints.iter().any(|one| long(&one.kind)) {
        Some("endpoints.kind")
    } else if hello.endpoints.iter().any(|one| many(&one.addresses)) {
        Some("endpoints.addresses")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use regent_core::entry::Outcome;
    use regent_core::evidence::Contact;
    use regent_core::id::{ApplicationId, ResourceId};
    use regent_core::time::Moment;

    use super::super::convert;
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_letter_and_says_so() {
        let just = "é".repeat(TEXT_LIMIT / 2);
        assert_eq!(cut(&just), just);
        for more in ["é", "x", "…"] {
            let long = format!("{}{}", more, "é".repeat(TEXT_LIMIT));
            let kept = cut(&long);
            assert!(kept.len() <= TEXT_LIMIT && kept.len() > TEXT_LIMIT - 16, "{} bytes", kept.len());
            let words = kept.strip_suffix(MARK).unwrap();
            assert!(long.starts_with(words));
            assert_eq!(cut(&kept), kept, "who passes it on changes nothing");
        }
        let many: Vec<String> = (0..LIST_LIMIT + 9).map(|n| n.to_string()).collect();
        assert_eq!(cut_all::<BTreeSet<_>>(&many).len(), LIST_LIMIT);
    }

    #[test]
    fn what_becomes_an_outcome_is_bounded() {
        let endless = "x".repeat(1 << 20);
        let failed = wire::StepStatus {
            phase: wire::StepPhase::Failed.into(),
            code: endless.clone(),
            message: endless.clone(),
            ..wire::StepStatus::default()
        };
        let Some(Outcome::Failed { code, message, .. }) = convert::outcome(&failed) else { panic!("{failed:?}") };
        assert!(code.len() <= TEXT_LIMIT && message.len() <= MESSAGE_LIMIT);
        assert!(code.ends_with(MARK) && message.ends_with(MARK));
        let stale = wire::StaleAnswer { server: endless.clone(), ..wire::StaleAnswer::default() };
        let succeeded = wire::StepStatus {
            phase: wire::StepPhase::Succeeded.into(),
            message: endless,
            stale_answers: vec![stale; LIST_LIMIT + 7],
            ..wire::StepStatus::default()
        };
        let Some(Outcome::Succeeded(report)) = convert::outcome(&succeeded) else { panic!("it has ended") };
        assert_eq!(report.stale_answers.len(), LIST_LIMIT);
        assert!(report.stale_answers.iter().all(|stale| stale.server.len() <= TEXT_LIMIT));
        assert!(report.message.ends_with("; and 7 more servers"), "{}", report.message);
        assert!(report.message.len() <= MESSAGE_LIMIT + 64);
    }

    #[test]
    fn what_becomes_evidence_is_bounded() {
        let endless = "x".repeat(1 << 20);
        let names = || ("shop".to_owned(), "db".to_owned());
        let (application, resource) = names();
        let seen = wire::ResourceReport {
            application,
            resource,
            system_id: endless.clone(),
            position_text: endless.clone(),
            detail: endless.clone(),
            ..wire::ResourceReport::default()
        };
        let (application, resource) = names();
        let lacks = vec![endless.clone(); LIST_LIMIT + 1];
        let dns = wire::DnsFacts { zone: endless.clone(), update: endless.clone(), ..wire::DnsFacts::default() };
        let found = wire::ResourceFacts {
            application,
            resource,
            problem: endless.clone(),
            listed: Some(wire::Listed { commands: lacks.clone(), ..wire::Listed::default() }),
            short: lacks.clone(),
            rights_unknown: endless.clone(),
            capacity_unknown: endless.clone(),
            lacks,
            dns: Some(dns),
            ..wire::ResourceFacts::default()
        };
        let mut contact = Contact::default();
        let report = wire::Report { resources: vec![seen], facts: vec![found], ..wire::Report::default() };
        convert::take_report(&mut contact, &report, Moment(1_000));
        let (application, resource) = (ApplicationId::new("shop").unwrap(), ResourceId::new("db").unwrap());
        let seen = &contact.resources[&application][&resource];
        let facts = &contact.facts[&application][&resource];
        let dns = facts.findings.dns.as_ref().unwrap();
        assert_eq!(seen.system_id.0, "", "cut, two databases would be one");
        let unknown = [&facts.findings.rights_unknown, &facts.findings.capacity_unknown];
        let texts = [&seen.position_text, &seen.detail, &facts.problem, &dns.zone, &dns.update];
        for text in texts.into_iter().chain(unknown).chain(&facts.findings.lacks).chain(&facts.findings.short) {
            assert!(text.len() <= TEXT_LIMIT && text.ends_with(MARK), "{} bytes", text.len());
        }
        assert_eq!((facts.findings.lacks.len(), facts.findings.short.len()), (LIST_LIMIT, LIST_LIMIT));
        assert_eq!(facts.findings.listed, None, "what is left out of it would seem not to be listed");
    }

    #[test]
    fn what_identifies_is_refused_and_not_cut() {
        let endless = || "x".repeat(TEXT_LIMIT + 1);
        let hello = wire::Hello { installation: "i".into(), ..wire::Hello::default() };
        assert_eq!(too_long(&hello), None);
        let boot = wire::Hello { boot: endless(), ..hello.clone() };
        assert_eq!(too_long(&boot), Some("boot"));
        let endpoint = |addresses| wire::Endpoint { addresses, ..wire::Endpoint::default() };
        for addresses in [vec![endless()], vec!["127.0.0.1".to_owned(); LIST_LIMIT + 1]] {
            let named = wire::Hello { endpoints: vec![endpoint(addresses)], ..hello.clone() };
            assert_eq!(too_long(&named), Some("endpoints.addresses"));
        }
        assert_eq!(too_long(&wire::Hello { installation: endless(), ..hello }), Some("installation"));
    }
}
