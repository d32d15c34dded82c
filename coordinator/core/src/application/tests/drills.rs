//! A drill leaves the real things alone, whatever its runbook says; and when it begins by itself.

use super::{SAMPLE, told};
use crate::application::{Drills, parse};
use crate::id::ClusterId;
use crate::time::Span;

/// The sample with a drill of these lines: what it is told, as path and message.
fn drill(lines: &str) -> Vec<String> {
    let told = told(&format!("{SAMPLE}    drill:\n{lines}"));
    told.into_iter().map(|(path, _, _, message)| format!("{path}: {message}")).collect()
}

#[test]
fn what_is_done_with_copies_is_a_drill() {
    let lines = "      - promote: [orders-db, cache]
      - restore: [orders-db]
      - run: { resource: service, command: start-lab }
      - verify: [orders-db, cache, checks, service]
      - wait: 5s
      - approve: is it fine?
      - run: { resource: service, command: stop-lab }
        always: true
";
    assert_eq!(drill(lines), [""; 0]);
    let read = parse(&format!("{SAMPLE}    drill:\n{lines}")).unwrap();
    let runbook = &read.runbooks["drill"];
    assert_eq!(
        runbook.lines.iter().map(|line| line.always).collect::<Vec<_>>(),
        [false, false, false, false, false, false, true]
    );
    assert_eq!(runbook.lines[0].timeout, Span::from_secs(3600), "a promotion begins with a copy");
}

#[test]
fn what_would_touch_the_real_thing_is_refused() {
    for action in ["fence", "quiesce", "catchUp", "rejoin"] {
        let told = drill(&format!("      - {action}: [orders-db]\n"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(&format!("spec.runbooks.drill[0].{action}: {action} is nothing for a drill")),
            "{told:?}"
        );
    }
    for (line, path, message) in [
        ("activate: [service]", "[0].activate", "activate is nothing for a drill"),
        ("deactivate: [service]", "[0].deactivate", "deactivate is nothing for a drill"),
        ("redirect: [www]", "[0].redirect", "redirect is nothing for a drill"),
        ("promote: [service]", "[0].promote[0]", "a drill promotes copies of databases"),
        ("restore: [service]", "[0].restore[0]", "a drill restores beside the database"),
        ("verify: [orders-db]", "[0].verify[0]", "there is no copy of orders-db yet"),
        ("verify: [www]", "[0].verify[0]", "www stays where it is"),
    ] {
        let told = drill(&format!("      - {line}\n"));
        assert_eq!(told.len(), 1, "{line}: {told:?}");
        assert!(told[0].starts_with(&format!("spec.runbooks.drill{path}: {message}")), "{line}: {told:?}");
    }
}

#[test]
fn always_is_for_the_end_of_drills() {
    let told = drill("      - wait: 5s\n        always: true\n");
    assert!(
        told.len() == 1 && told[0].starts_with("spec.runbooks.drill[0].always: always is for run lines"),
        "{told:?}"
    );
    let told = drill("      - wait: 5s\n        always: maybe\n");
    assert!(told.len() == 1 && told[0].contains("expected true or false"), "{told:?}");
    let text = SAMPLE.replace("      - verify: [checks]", "      - verify: [checks]\n        always: false");
    assert_ne!(text, SAMPLE);
    assert!(super::told(&text)[0].3.starts_with("always is for run lines"));
}

#[test]
fn a_schedule_needs_a_runbook_and_known_clusters() {
    let with = |drills: &str, runbook: &str| {
        let text = SAMPLE.replace("  runbooks:\n", &format!("  drills: {drills}\n  runbooks:\n"));
        assert_ne!(text, SAMPLE);
        format!("{text}{runbook}")
    };
    let runbook = "    drill:\n      - promote: [orders-db]\n";
    let read = parse(&with("{ every: 30d, in: eu-central-1 }", runbook)).unwrap();
    let every = Span::from_secs(30 * 24 * 3600);
    assert_eq!(read.drills, Some(Drills { every, cluster: Some(ClusterId::new("eu-central-1").unwrap()) }));
    for (drills, runbook, message) in [
        ("{ every: 30d }", "", "there is no runbook named drill"),
        ("{ every: 5m }", runbook, "drills are at least 1h apart"),
        ("{ every: 30d, in: eu-nord-1 }", runbook, "there is no cluster"),
        ("{}", runbook, "the key every is missing"),
        ("{ every: often }", runbook, "often"),
    ] {
        let told = told(&with(drills, runbook));
        assert!(told.len() == 1 && told[0].3.contains(message), "{drills}: {told:?}");
    }
}
