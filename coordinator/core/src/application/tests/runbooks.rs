//! The rules of runbooks: what a line may do, to which resources, and in which order.

use super::{SAMPLE, assert_told, changed, told};

#[test]
fn each_action_is_refused_for_kinds_that_cannot_do_it() {
    let kinds =
        [("orders-db", "postgres"), ("cache", "redis"), ("service", "command"), ("www", "dns"), ("checks", "http")];
    for (action, able) in [
        ("fence", "orders-db cache"),
        ("quiesce", "orders-db cache service"),
        ("catchUp", "orders-db cache"),
        ("promote", "orders-db cache service"),
        ("activate", "service"),
        ("deactivate", "service"),
        ("redirect", "www"),
        ("verify", "orders-db cache service www checks"),
        ("rejoin", "orders-db cache"),
        ("restore", "orders-db cache service"),
    ] {
        // A drill has no order of its own; what it has beside is in `drills.rs`.
        let text = format!("{SAMPLE}    drill:\n      - {action}: [orders-db, cache, service, www, checks]\n");
        let told = told(&text);
        let of_kind = told.iter().filter(|told| told.3.contains(" is for "));
        let refused: Vec<(String, String)> = of_kind.map(|told| (told.0.clone(), told.3.clone())).collect();
        let expected: Vec<_> = kinds
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| !able.split(' ').any(|able| able == *name))
            .map(|(index, (name, kind))| {
                (format!("spec.runbooks.drill[0].{action}[{index}]"), format!("{name} is of kind {kind}"))
            })
            .collect();
        assert_eq!(refused.len(), expected.len(), "{action}: {refused:?}");
        for ((path, message), (right_path, piece)) in refused.iter().zip(&expected) {
            assert!(path == right_path && message.contains(piece), "{action}: {path} {message}");
        }
    }
}

#[test]
fn a_resource_stands_once_in_a_line() {
    let text = changed("[checks]", "[checks, www, checks]");
    assert_told(&text, &[("spec.runbooks.failover[3].verify[2]", 25, 31, &["\"checks\" stands twice in this line"])]);
    let text = changed("promote: [orders-db, cache]", "promote: [orders-db, cache, cache]");
    assert_told(&text, &[("spec.runbooks.failover[0].promote[2]", 22, 37, &["\"cache\" stands twice in this line"])]);
}

#[test]
fn a_failover_promotes_every_database_exactly_once() {
    assert_told(
        &changed("promote: [orders-db, cache]", "promote: [service]"),
        &[
            ("spec.runbooks.failover", 21, 5, &["failover never promotes cache", "half promoted"]),
            ("spec.runbooks.failover", 21, 5, &["failover never promotes orders-db"]),
        ],
    );
    assert_told(
        &changed("- redirect: [www]", "- promote: [service, cache]"),
        &[("spec.runbooks.failover[1].promote[1]", 23, 28, &["cache stands under promote twice", "first in line 22"])],
    );
    assert_told(
        &changed(
            "- promote: [orders-db, cache]             # side by side",
            "- { promote: [orders-db, cache], when: graceful }",
        ),
        &[
            ("spec.runbooks.failover[0].when", 22, 46, &["cannot depend on when", "leave orders-db out"]),
            ("spec.runbooks.failover[0].when", 22, 46, &["leave cache out"]),
        ],
    );
    // A slip is told as that, and not once more as what it leaves out.
    assert_told(
        &changed("promote: [orders-db, cache]", "promote: [orders-db, cahce]"),
        &[("spec.runbooks.failover[0].promote[1]", 22, 30, &["no resource \"cahce\"; did you mean cache?"])],
    );
    assert_told(
        &changed(
            "    failover:\n      - promote: [orders-db, cache]             # side by side",
            "    drill: []\n    failover:",
        ),
        &[
            ("spec.runbooks.drill", 21, 12, &["the runbook drill has no steps"]),
            ("spec.runbooks.failover", 22, 5, &["never promotes cache"]),
            ("spec.runbooks.failover", 22, 5, &["never promotes orders-db"]),
        ],
    );
}

#[test]
fn a_switchover_has_its_order() {
    let text = format!(
        "{SAMPLE}    switchover:
      - promote: [orders-db, cache]
      - catchUp: [orders-db, cache]
      - quiesce: [service]
"
    );
    let order = "the order is quiesce, fence, catchUp, promote, rejoin";
    assert_told(
        &text,
        &[
            ("spec.runbooks.switchover[1].catchUp", 28, 18, &["catchUp comes after promote", order]),
            ("spec.runbooks.switchover[2].quiesce", 29, 18, &["quiesce comes after promote"]),
        ],
    );
    let text = format!("{SAMPLE}    switchover:\n      - catchUp: [cache]\n      - promote: [cache]\n");
    assert_told(
        &text,
        &[
            ("spec.runbooks.switchover", 26, 5, &["switchover never promotes orders-db"]),
            ("spec.runbooks.switchover", 26, 5, &["switchover never lets orders-db catch up"]),
        ],
    );
    let text = format!(
        "{SAMPLE}    switchover:
      - redirect: [www]
      - catchUp: [orders-db, cache]
      - promote: [orders-db, cache]
      - activate: [service]
"
    );
    assert_told(
        &text,
        &[("spec.runbooks.switchover[0].redirect", 27, 19, &["redirect stands before catchUp", "put it after"])],
    );
    let told = "spec.runbooks.switchover[0].run";
    assert_told(
        &text.replace("- redirect: [www]", "- run: { resource: service, command: warm-up }"),
        &[(told, 27, 14, &["run stands before catchUp", "nothing undoes a command", "put it after"])],
    );
    let text = text.replace("- redirect: [www]", "- restore: [orders-db]");
    assert_told(&text, &[("spec.runbooks.switchover[0].restore", 27, 18, &["restore is nothing for a switchover"])]);
}

#[test]
fn a_command_restores_what_does_not_run_yet() {
    let with = |line: &str| changed("- redirect: [www]", &format!("- {line}\n      - redirect: [www]"));
    assert_told(&with("restore: [service]"), &[]);
    let text = changed("      - activate: [service]", "      - activate: [service]\n      - restore: [service]");
    let told = "spec.runbooks.failover[3].restore[0]";
    assert_told(&text, &[(told, 25, 19, &["restore of service stands after activate", "put it before"])]);
    let text = with("promote: [service]").replace("- redirect: [www]", "- restore: [service]");
    let told = "spec.runbooks.failover[2].restore[0]";
    assert_told(&text, &[(told, 24, 19, &["restore of service stands after promote"])]);
    // What a failover never does starts nothing; and what a database needs its agent says.
    assert_told(
        &with("{ promote: [service], when: graceful }").replace("- redirect: [www]", "- restore: [service]"),
        &[],
    );
    assert_told(&with("restore: [orders-db]"), &[]);
}

#[test]
fn times_of_a_line_must_be_possible() {
    for (line, column, piece) in [
        ("- { wait: 5m, timeout: 5m }", 32, "a wait of 5m cannot end within 5m"),
        ("- { verify: [checks], timeout: 0s }", 40, "an attempt needs some time"),
    ] {
        let text = changed("- redirect: [www]", line);
        assert_told(&text, &[("spec.runbooks.failover[1].timeout", 23, column - 2, &[piece])]);
    }
    for (option, column, pieces) in [
        ("onFailure: skip", 20, ["\"skip\" is not one of", "stuck, continue, undo"]),
        ("when: gracefull", 15, ["\"gracefull\"", "did you mean graceful?"]),
    ] {
        let text = changed("- redirect: [www]", &format!("- redirect: [www]\n        {option}"));
        let key = option.split(':').next().unwrap_or_default();
        assert_told(&text, &[(&format!("spec.runbooks.failover[1].{key}"), 24, column, &pieces)]);
    }
}

#[test]
fn a_listed_command_has_a_name() {
    for (run, expected) in [
        ("{ resource: service, command: /bin/sh }", ("command", 44, "\"/bin/sh\" is not a name")),
        ("{ resource: servise, command: warm-up }", ("resource", 26, "no resource \"servise\"; did you mean service?")),
        (
            "{ resource: service, command: a, arguments: [] }",
            ("arguments", 47, "unknown key \"arguments\"; known here: resource, command"),
        ),
    ] {
        let (key, column, piece) = expected;
        let path = format!("spec.runbooks.failover[1].run.{key}");
        assert_told(&changed("- redirect: [www]", &format!("- run: {run}")), &[(&path, 23, column, &[piece])]);
    }
}
