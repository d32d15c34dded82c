//! Every rule but those of runbooks: a document that breaks one is told so, with path, line and column, and all mistakes at
//! once.

use super::{SAMPLE, assert_told, changed, told};

#[test]
fn all_mistakes_are_told_at_once() {
    let document = "\
apiVersion: regent/v2
kind: Aplication
metadata:
  name: Shop
  lables: {}
spec:
  objectives: { rto: 1 hour }
  clusters: [eu-west-1, eu-west-1, EU]
  resources:
    orders-db: { kind: postgre, ttl: 5s }
    cache: { kind: redis, after: [cache, nothing] }
    www: { kind: dns, ttl: 1500ms, provider: bind }
    www: { kind: http }
    service:
  automation:
    mode: auto
    failoverAfter: 1s
    maxDataLoss: 5
    beyondMaxDataLoss: wait
    probeFailures: 0
    onCoordinatorLos: fence
  runbooks:
    failover:
      - promot: [cache]
      - redirect: [cache, www, ww]
      - activate: [service]
        verify: [www]
      - timeout: 5s
      - wait: long
        retries: -1
      - run: { resource: cache }
    swichover: []
";
    assert_told(
        document,
        &[
            ("apiVersion", 1, 13, &["expected regent/v1", "\"regent/v2\""]),
            ("kind", 2, 7, &["expected Application", "\"Aplication\""]),
            ("metadata.name", 4, 9, &["\"Shop\" is not a name", "a-z"]),
            ("metadata.lables", 5, 3, &["unknown key \"lables\"", "known here: name"]),
            ("spec.objectives", 7, 15, &["the key rpo is missing"]),
            ("spec.objectives.rto", 7, 22, &["length of time", "\"1 hour\""]),
            ("spec.clusters[1]", 8, 25, &["eu-west-1 is listed twice"]),
            ("spec.clusters[2]", 8, 36, &["\"EU\" is not a name"]),
            ("spec.resources.orders-db.kind", 10, 24, &["\"postgre\" is not one of", "did you mean postgres?"]),
            ("spec.resources.cache.after[0]", 11, 35, &["a cycle", "cache → cache"]),
            ("spec.resources.cache.after[1]", 11, 42, &["no resource \"nothing\"", "known here: cache, orders-db"]),
            ("spec.resources.www", 12, 5, &["the key name is missing"]),
            ("spec.resources.www.ttl", 12, 28, &["whole seconds", "1s500ms"]),
            ("spec.resources.www.provider", 12, 46, &["\"bind\" is not one of embedded, rfc2136"]),
            ("spec.resources.www", 13, 5, &["twice", "first in line 12"]),
            ("spec.resources.service", 14, 5, &["expected a mapping, found nothing"]),
            ("spec.automation.mode", 16, 11, &["\"auto\" is not one of automatic, approve, manual"]),
            ("spec.automation.failoverAfter", 17, 20, &["1s is too short", "below 2s"]),
            ("spec.automation.maxDataLoss", 18, 18, &["length of time", "found the number 5"]),
            ("spec.automation.beyondMaxDataLoss", 19, 24, &["\"wait\" is not one of refuse, wait 2m, ask, accept"]),
            ("spec.automation.probeFailures", 20, 20, &["a whole number from 1 to 100, found the number 0"]),
            ("spec.automation.onCoordinatorLos", 21, 5, &["did you mean onCoordinatorLoss?"]),
            ("spec.runbooks.failover[0].promot", 24, 9, &["unknown key \"promot\"; did you mean promote?"]),
            ("spec.runbooks.failover[1].redirect[0]", 25, 20, &["redirect is for dns resources", "of kind redis"]),
            ("spec.runbooks.failover[1].redirect[2]", 25, 32, &["no resource \"ww\"; did you mean www?"]),
            ("spec.runbooks.failover[2]", 26, 9, &["a line does one thing", "activate, verify"]),
            ("spec.runbooks.failover[3]", 28, 9, &["this line does nothing", "promote"]),
            ("spec.runbooks.failover[4].wait", 29, 15, &["length of time", "\"long\""]),
            ("spec.runbooks.failover[4].retries", 30, 18, &["from 0 to 1000, found the number -1"]),
            ("spec.runbooks.failover[5].run", 31, 14, &["the key command is missing"]),
            (
                "spec.runbooks.failover[5].run.resource",
                31,
                26,
                &["run is for command and kubernetes resources; cache is of kind redis"],
            ),
            ("spec.runbooks.swichover", 32, 5, &["did you mean switchover?"]),
        ],
    );
}

#[test]
fn missing_parts_are_named_where_they_belong() {
    assert_told(
        "{}",
        &[
            ("document", 1, 1, &["the key apiVersion is missing"]),
            ("document", 1, 1, &["the key kind is missing"]),
            ("document", 1, 1, &["the key metadata is missing"]),
            ("document", 1, 1, &["the key spec is missing"]),
        ],
    );
    assert_told(
        "apiVersion: regent/v1\nkind: Application\nmetadata: {}\nspec: {}\n",
        &[
            ("metadata", 3, 11, &["the key name is missing"]),
            ("spec", 4, 7, &["the key objectives is missing"]),
            ("spec", 4, 7, &["the key clusters is missing"]),
            ("spec", 4, 7, &["the key resources is missing"]),
            ("spec", 4, 7, &["the key runbooks is missing"]),
        ],
    );
    assert_told("- a", &[("document", 1, 1, &["expected a mapping, found a list"])]);
    assert_told("regent", &[("document", 1, 1, &["expected a mapping, found the text \"regent\""])]);
    assert_told("", &[("document", 1, 1, &["the document is empty"])]);
    let text = changed("{ kind: http }", "{ after: [www] }");
    assert_told(&text, &[("spec.resources.checks", 13, 16, &["the key kind is missing"])]);
    let text = changed("    failover:\n", "    drill:\n");
    assert_told(
        &text,
        &[
            ("spec.runbooks", 20, 3, &["the key failover is missing"]),
            ("spec.runbooks.drill[1].redirect", 23, 19, &["redirect is nothing for a drill"]),
            ("spec.runbooks.drill[2].activate", 24, 19, &["activate is nothing for a drill"]),
        ],
    );
    assert_told(
        &changed("{ rto: 1m, rpo: 5s }", "[1m, 5s]"),
        &[("spec.objectives", 6, 15, &["expected a mapping, found a list"])],
    );
}

#[test]
fn wrong_types_are_told_with_what_was_found() {
    for (from, to, expected) in [
        (
            "name: shop\n",
            "name: 5\n",
            ("metadata.name", 4, 9, "expected a name, found the number 5; if meant, write \"5\""),
        ),
        ("name: shop\n", "name: true\n", ("metadata.name", 4, 9, "found the truth value true")),
        ("name: shop\n", "name: [shop]\n", ("metadata.name", 4, 9, "expected a name, found a list")),
        ("name: shop\n", "name: *shop\n", ("metadata.name", 4, 9, "found an alias")),
        ("name: shop\n", "name: !!str shop\n", ("metadata.name", 4, 15, "found a value with a tag")),
        ("name: shop\n", "name:\n", ("metadata.name", 4, 3, "expected a name, found nothing")),
        (
            "mode: automatic",
            "mode: 1",
            ("spec.automation.mode", 15, 11, "one of automatic, approve, manual, found the number 1"),
        ),
        ("failoverAfter: 10s", "failoverAfter: 10", ("spec.automation.failoverAfter", 16, 20, "found the number 10")),
        ("failoverAfter: 10s", "failoverAfter: {}", ("spec.automation.failoverAfter", 16, 20, "found a mapping")),
        ("[eu-west-1, eu-central-1]", "eu-west-1", ("spec.clusters", 7, 13, "expected a list of names")),
        (
            "mode: automatic",
            "probeFailures: 3.5",
            ("spec.automation.probeFailures", 15, 20, "from 1 to 100, found the number 3.5"),
        ),
        ("mode: automatic", "probeFailures: 101", ("spec.automation.probeFailures", 15, 20, "found the number 101")),
        ("mode: automatic", "probeFailures: '3'", ("spec.automation.probeFailures", 15, 20, "found the text \"3\"")),
        (
            "- redirect: [www]",
            "- redirect: www",
            ("spec.runbooks.failover[1].redirect", 23, 19, "list of names, e.g. [orders-db]"),
        ),
        (
            "- redirect: [www]",
            "- redirect",
            ("spec.runbooks.failover[1]", 23, 9, "expected a mapping, found the text \"redirect\""),
        ),
        (
            "- redirect: [www]",
            "- redirect: []",
            ("spec.runbooks.failover[1].redirect", 23, 19, "redirect names no resource"),
        ),
        (
            "- redirect: [www]",
            "- approve: 5",
            ("spec.runbooks.failover[1].approve", 23, 18, "expected the question to the human"),
        ),
        (
            "- redirect: [www]",
            "- approve: ' '",
            ("spec.runbooks.failover[1].approve", 23, 18, "one line of text with 1 to 500"),
        ),
        ("- redirect: [www]", "- approve: \"a\\nb\"", ("spec.runbooks.failover[1].approve", 23, 18, "one line")),
        ("- redirect: [www]", "- run: warm-up", ("spec.runbooks.failover[1].run", 23, 14, "expected a mapping")),
    ] {
        let (path, line, column, piece) = expected;
        assert_told(&changed(from, to), &[(path, line, column, &[piece])]);
    }
}

#[test]
fn text_that_is_no_yaml_is_one_mistake_with_its_line() {
    assert_told(&changed("mode: automatic", "mode: [automatic"), &[("document", 16, 18, &["not YAML"])]);
    assert_told(&changed("    mode: automatic", "\tmode: automatic"), &[("document", 15, 2, &["not YAML", "tabs"])]);
}

#[test]
fn clusters_are_two_and_distinct() {
    for (clusters, expected) in [
        ("[]", ("spec.clusters", 13, "at least two clusters")),
        ("[eu-west-1]", ("spec.clusters", 13, "at least two clusters")),
        ("[eu-west-1, eu-west-1]", ("spec.clusters[1]", 25, "the cluster eu-west-1 is listed twice")),
    ] {
        let (path, column, piece) = expected;
        assert_told(&changed("[eu-west-1, eu-central-1]", clusters), &[(path, 7, column, &[piece])]);
    }
}

#[test]
fn a_name_that_is_none_is_told_once_and_still_known() {
    let text = SAMPLE.replace("orders-db", "Orders_DB");
    assert_told(&text, &[("spec.resources.Orders_DB", 9, 5, &["\"Orders_DB\" is not a name"])]);
}

#[test]
fn only_dns_names_have_what_dns_names_have() {
    assert_told(
        &changed("{ kind: http }", "{ kind: http, name: a.b., ttl: 5s, provider: embedded }"),
        &[
            ("spec.resources.checks.name", 13, 36, &["name is for dns resources only", "of kind http"]),
            ("spec.resources.checks.ttl", 13, 47, &["ttl is for dns resources only"]),
            ("spec.resources.checks.provider", 13, 61, &["provider is for dns resources only"]),
        ],
    );
    assert_told(
        &changed("shop.regent.test.", "Shop.regent.test."),
        &[("spec.resources.www.name", 12, 35, &["lower case", "\"shop.regent.test.\""])],
    );
    assert_told(
        &changed("ttl: 5s", "ttl: 2h"),
        &[("spec.resources.www.ttl", 12, 59, &["from 1s to 1h", "this is 2h"])],
    );
}

#[test]
fn two_resources_cannot_answer_for_one_name() {
    let text = changed("{ kind: http }", "{ kind: dns, name: shop.regent.test }");
    let expected = "the resources www and checks answer for the same name";
    assert_told(&text, &[("spec.resources.checks.name", 13, 35, &[expected])]);
}

#[test]
fn cycles_are_named_each_once() {
    let document = changed(
        "    orders-db: { kind: postgres }\n    cache:     { kind: redis }\n    service:   { kind: command }\n",
        "    orders-db: { kind: postgres, after: [service] }
    cache:     { kind: redis, after: [orders-db] }
    service:   { kind: command, after: [checks, cache] }
    one:       { kind: command, after: [two] }
    two:       { kind: command, after: [service, one] }
    three:     { kind: command, after: [two, three, three] }
",
    );
    assert_told(
        &document,
        &[
            ("spec.resources.cache.after[0]", 10, 39, &["cycle", "orders-db → service → cache → orders-db"]),
            ("spec.resources.two.after[1]", 13, 50, &["cycle", "one → two → one"]),
            ("spec.resources.three.after[1]", 14, 46, &["cycle", "three → three"]),
            ("spec.resources.three.after[2]", 14, 53, &["\"three\" stands here twice"]),
        ],
    );
}

#[test]
fn nothing_of_a_hostile_document_is_repeated_at_length() {
    let long = "x".repeat(200_000);
    for text in
        [changed("name: shop\n", &format!("name: {long}\n")), changed("mode: automatic", &format!("'{long}': 1"))]
    {
        for (path, _, _, message) in told(&text) {
            assert!(path.len() < 300 && message.len() < 500, "{} {}", path.len(), message.len());
        }
    }
    let many: String = (0..20_000).map(|index| format!("x{index}: 1\n")).collect();
    assert_eq!(told(&many).len(), 201);
}

#[test]
fn a_large_hostile_document_is_answered_soon() {
    let head = "apiVersion: regent/v1\nkind: Application\nspec:\n  resources:\n";
    for step in [0, 1] {
        let resource = |index: usize| format!("    r{index}: {{ kind: http, after: [r{}] }}\n", (index + step) % 6000);
        let text = format!("{head}{}", (0..6000).map(resource).collect::<String>());
        let told = told(&text);
        assert!(told.iter().any(|told| told.3.contains("a cycle")), "{told:?}");
        assert!(told.iter().all(|told| told.3.len() < 200), "{told:?}");
    }
}

#[test]
fn a_write_outage_that_is_allowed_is_a_time_that_can_be_kept() {
    for (given, piece) in [("50ms", "100ms to 1d"), ("2d", "100ms to 1d"), ("soon", "length of time")] {
        let text = changed("mode: automatic", &format!("mode: automatic\n    maxWriteOutage: {given}"));
        assert_told(&text, &[("spec.automation.maxWriteOutage", 16, 21, &[piece])]);
    }
}
