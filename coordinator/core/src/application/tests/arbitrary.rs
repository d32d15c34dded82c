//! Whatever the text, there is an answer; and what is printed is read as the same application.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::SAMPLE;
use crate::application::resource::TTL_BOUNDS;
use crate::application::runbook::fits;
use crate::application::{
    Action, Application, Automation, Beyond, DnsName, DnsProvider, Drills, Line, Manner, Mode, Objectives,
    OnCoordinatorLoss, OnFailure, OnSilence, Resource, ResourceKind, Runbook, parse, to_yaml,
};
use crate::id::{ApplicationId, ClusterId, ResourceId};
use crate::lease::TimeBound;
use crate::time::Span;

/// Names, those too that YAML would take for something else.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?",
        select(vec!["true", "null", "no", "y", "1", "0x1f", "1e5", "2001-01-01", "e5", "inf"]).prop_map(str::to_owned),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![0..100_000_u64, any::<u64>()].prop_map(Span::from_millis)
}

fn objectives() -> impl Strategy<Value = Objectives> {
    (span(), span()).prop_map(|(rto, rpo)| Objectives { rto, rpo })
}

fn automation() -> impl Strategy<Value = Automation> {
    let beyond =
        prop_oneof![Just(Beyond::Refuse), span().prop_map(Beyond::Wait), Just(Beyond::Ask), Just(Beyond::Accept)];
    let modes = (select(Mode::ALL), beyond, select(OnCoordinatorLoss::ALL));
    let humans = (any::<bool>(), (1..u64::MAX).prop_map(Span::from_millis), select(OnSilence::ALL));
    let outages = (100..=86_400_000_u64, option::of((1..u64::MAX).prop_map(Span::from_millis)));
    ((modes, humans), 2000..u64::MAX, span(), span(), outages, 1..=100_u32).prop_map(
        |((modes, humans), bound, cooldown, max_data_loss, (outage, commit_within), probe_failures)| {
            let (mode, beyond_max_data_loss, on_coordinator_loss) = modes;
            let (two_person, approve_within, on_silence) = humans;
            let bound = TimeBound::new(Span::from_millis(bound));
            Automation {
                mode,
                bound,
                cooldown,
                max_data_loss,
                beyond_max_data_loss,
                max_write_outage: Span::from_millis(outage),
                commit_within,
                two_person,
                approve_within,
                on_silence,
                on_coordinator_loss,
                probe_failures,
            }
        },
    )
}

/// Resources of which each stands only after earlier ones, so that there is no cycle.
fn resources() -> impl Strategy<Value = BTreeMap<ResourceId, Resource>> {
    let one = (
        select(ResourceKind::ALL),
        vec(any::<Index>(), 0..3),
        1..=TTL_BOUNDS.1.millis() / 1000,
        select(DnsProvider::ALL),
    );
    (btree_set(name(), 1..8), vec(one, 8)).prop_map(|(names, ones)| {
        let names: Vec<ResourceId> = names.iter().filter_map(|name| ResourceId::new(name).ok()).collect();
        let resource =
            |(number, (kind, after, ttl, provider)): (usize, &(ResourceKind, Vec<Index>, u64, DnsProvider))| {
                let before = &names[..number];
                let after = after.iter().filter(|_| number > 0).map(|index| index.get(before).clone()).collect();
                let dns = (*kind == ResourceKind::Dns).then(|| DnsName {
                    name: format!("{}.1.", names[number]),
                    ttl: Span::from_secs(*ttl),
                    provider: *provider,
                });
                Resource { kind: *kind, after, dns }
            };
        names.iter().cloned().zip(ones.iter().enumerate().map(resource)).collect()
    })
}

/// A line of an action; none if no resource has it.
fn line(action: Action, resources: &BTreeMap<ResourceId, Resource>) -> Option<BoxedStrategy<Line>> {
    let able: Vec<ResourceId> =
        resources.iter().filter(|(_, resource)| fits(action, resource.kind)).map(|(id, _)| id.clone()).collect();
    let named = match action {
        Action::Wait | Action::Approve => Just(Vec::new()).boxed(),
        _ if able.is_empty() => return None,
        Action::Run => subsequence(able, 1).boxed(),
        _ => subsequence(able.clone(), 1..=able.len()).prop_shuffle().boxed(),
    };
    let options = (1..10_000_000_u64, 0..1000_u32, select(OnFailure::ALL), option::of(select(Manner::ALL)));
    let words = (name(), "[^\\p{C}\\p{Z}][^\\p{C}\u{2028}\u{2029}]{0,30}[^\\p{C}\\p{Z}]", 0..1_000_000_u64);
    let line = (named, options, words).prop_map(move |(resources, options, (command, question, duration))| {
        let (timeout, retries, on_failure, when) = options;
        let duration = (action == Action::Wait).then_some(Span::from_millis(duration));
        Line {
            action,
            resources,
            timeout: Span::from_millis(timeout).plus(duration.unwrap_or_default()),
            retries,
            on_failure,
            when,
            duration,
            command: if action == Action::Run { command } else { String::new() },
            question: if action == Action::Approve { question } else { String::new() },
            always: false,
        }
    });
    Some(line.boxed())
}

/// A drill of any lines, and a failover that promotes every database and then does anything but promote.
fn runbooks(resources: &BTreeMap<ResourceId, Resource>) -> impl Strategy<Value = BTreeMap<String, Runbook>> + use<> {
    let databases = resources.iter().filter(|(_, one)| one.kind.is_guarded());
    let databases: BTreeMap<ResourceId, Resource> = databases.map(|(id, one)| (id.clone(), one.clone())).collect();
    // A drill restores databases only.
    let of = |action: Action| if action == Action::Restore { &databases } else { resources };
    let lines = |actions: &[Action]| {
        let strategies: Vec<_> = actions.iter().filter_map(|action| line(*action, of(*action))).collect();
        vec(proptest::strategy::Union::new(strategies), 1..6)
    };
    let guarded: Vec<ResourceId> =
        resources.iter().filter(|(_, one)| one.kind.is_guarded()).map(|(id, _)| id.clone()).collect();
    let free = [Action::Activate, Action::Redirect, Action::Verify, Action::Run, Action::Approve, Action::Wait];
    let drill = [Action::Restore, Action::Run, Action::Approve, Action::Wait];
    (lines(&drill), lines(&free), any::<bool>()).prop_map(move |(mut drill, rest, one_line)| {
        for line in drill.iter_mut().filter(|line| line.action == Action::Run) {
            line.always = one_line;
        }
        let promote = |resources: Vec<ResourceId>| Line {
            action: Action::Promote,
            resources,
            timeout: Span::from_secs(5),
            retries: 3,
            on_failure: OnFailure::Stuck,
            when: None,
            duration: None,
            command: String::new(),
            question: String::new(),
            always: false,
        };
        let mut lines: Vec<Line> = if one_line && !guarded.is_empty() {
            vec![promote(guarded.clone())]
        } else {
            guarded.iter().map(|one| promote(vec![one.clone()])).collect()
        };
        lines.extend(rest);
        BTreeMap::from([("failover".to_owned(), Runbook { lines }), ("drill".to_owned(), Runbook { lines: drill })])
    })
}

prop_compose! {
    fn application()(resources in resources())(
        runbooks in runbooks(&resources),
        name in name(),
        clusters in btree_set(name(), 2..5).prop_map(Vec::from_iter).prop_shuffle(),
        objectives in objectives(),
        automation in automation(),
        resources in Just(resources),
        every in option::of(3_600_000..10_000_000_u64),
    ) -> Application {
        Application {
            name: ApplicationId::new(&name).unwrap(),
            objectives,
            clusters: clusters.iter().map(|name| ClusterId::new(name).unwrap()).collect(),
            resources,
            automation,
            runbooks,
            drills: every.map(|every| Drills {
                every: Span::from_millis(every),
                cluster: clusters.first().filter(|_| every % 2 == 0).and_then(|name| ClusterId::new(name).ok()),
            }),
        }
    }
}

/// One edit of a text: a piece is cut, doubled, put elsewhere, or replaced by something that YAML has a meaning for.
fn mutated(text: &str, edits: &[(Index, Index, u8, String)]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for (from, length, how, other) in edits {
        if letters.is_empty() {
            break;
        }
        let start = from.index(letters.len());
        let end = (start + length.index(30)).min(letters.len());
        let piece: Vec<char> = letters[start..end].to_vec();
        match how % 4 {
            0 => drop(letters.drain(start..end)),
            1 => drop(letters.splice(start..start, piece)),
            2 => drop(letters.splice(start..end, other.chars())),
            _ => {
                letters.drain(start..end);
                let to = length.index(letters.len() + 1);
                letters.splice(to..to, piece);
            }
        }
    }
    letters.into_iter().collect()
}

/// Whatever the answer is, it is one: an application that can be printed and read, or mistakes with places.
fn check_answer(text: &str) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(application) => prop_assert_eq!(parse(&to_yaml(&application)), Ok(application)),
        Err(mistakes) => {
            prop_assert!(!mistakes.is_empty());
            for mistake in mistakes {
                prop_assert!(mistake.line >= 1 && mistake.column >= 1 && !mistake.path.is_empty());
                prop_assert!(mistake.line <= text.matches(['\n', '\r']).count() as u64 + 1, "{}", mistake);
                prop_assert!(!mistake.message.is_empty() && !mistake.message.contains('\n'), "{}", mistake);
                prop_assert!(!mistake.message.contains("report this"), "a mistake got lost in {text}");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_is_read_as_the_same(application in application()) {
        let text = to_yaml(&application);
        prop_assert_eq!(parse(&text).map_err(|mistakes| format!("{mistakes:?} in\n{text}")), Ok(application));
    }

    #[test]
    fn any_text_is_answered(text in "\\PC*|[ \\n\\t\\-:,{}\\[\\]&*!|>'\"%@`#?a-z0-9~]{0,200}|(?s).{0,100}") {
        check_answer(&text)?;
    }

    #[test]
    fn mutations_of_a_document_are_answered(
        edits in vec((any::<Index>(), any::<Index>(), any::<u8>(), "[ \\n\\t\\-:,{}\\[\\]&*!|>'\"%#?~a-z0-9]{0,8}"), 1..5),
    ) {
        check_answer(&mutated(SAMPLE, &edits))?;
    }

    #[test]
    fn mutations_of_values_are_answered(
        lines in btree_set(0..25_usize, 1..4),
        value in select(vec!["~", "[]", "{}", "[[a]]", "{a: b}", "5", "true", "''", "*a", "!t x", "&a b", "|\n  x", "-", "1s", "orders-db"]),
    ) {
        check_answer(&with_values(SAMPLE, &lines, value))?;
    }
}

/// The value of the last key in each of these lines replaced.
fn with_values(text: &str, lines: &BTreeSet<usize>, value: &str) -> String {
    let replaced = text.lines().enumerate().map(|(number, line)| match line.rfind(':') {
        Some(colon) if lines.contains(&number) => format!("{}: {value}\n", &line[..colon]),
        _ => format!("{line}\n"),
    });
    replaced.collect()
}
