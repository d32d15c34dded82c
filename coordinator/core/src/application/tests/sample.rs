//! The sample document says what it looks like it says, and what it leaves out has the documented defaults.

use super::SAMPLE;
use crate::application::{
    Action, Beyond, DnsProvider, Line, Manner, Mode, OnCoordinatorLoss, OnFailure, ResourceKind, parse, to_yaml,
};
use crate::time::Span;

#[test]
fn the_sample_is_read_as_written() {
    let shop = parse(SAMPLE).unwrap();
    assert_eq!(shop.name.as_str(), "shop");
    assert_eq!((shop.objectives.rto, shop.objectives.rpo), (Span::from_secs(60), Span::from_secs(5)));
    let clusters: Vec<_> = shop.clusters.iter().map(|cluster| cluster.as_str()).collect();
    assert_eq!(clusters, ["eu-west-1", "eu-central-1"]);
    let kinds: Vec<_> = shop.resources.iter().map(|(id, resource)| (id.as_str(), resource.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("cache", ResourceKind::Redis),
            ("checks", ResourceKind::Http),
            ("orders-db", ResourceKind::Postgres),
            ("service", ResourceKind::Command),
            ("www", ResourceKind::Dns),
        ]
    );
    let dns: Vec<_> = shop.resources.values().filter_map(|resource| resource.dns.as_ref()).collect();
    assert_eq!(dns.len(), 1);
    assert_eq!((dns[0].name.as_str(), dns[0].ttl), ("shop.regent.test.", Span::from_secs(5)));
    assert_eq!(shop.automation.mode, Mode::Automatic);
    assert_eq!(shop.automation.bound.fail_over_after, Span::from_secs(10));
    let lines: Vec<_> = shop.runbooks["failover"]
        .lines
        .iter()
        .map(|line| (line.action, line.resources.iter().map(|id| id.as_str()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        lines,
        [
            (Action::Promote, vec!["orders-db", "cache"]),
            (Action::Redirect, vec!["www"]),
            (Action::Activate, vec!["service"]),
            (Action::Verify, vec!["checks"]),
        ]
    );
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let document = "\
apiVersion: regent/v1
kind: Application
metadata: { name: a }
spec:
  objectives: { rto: 1h, rpo: 7s }
  clusters: [a, b]
  resources:
    db: { kind: postgres }
    www: { kind: dns, name: www.example }
    tool: { kind: command }
  runbooks:
    failover:
      - promote: [db]
      - redirect: [www]
      - activate: [tool]
      - verify: [db]
      - wait: 5m
      - approve: Is it so?
      - run: { resource: tool, command: warm-up }
";
    let application = parse(document).unwrap();
    let automation = &application.automation;
    assert_eq!(automation.mode, Mode::Approve);
    assert_eq!(automation.bound.fail_over_after, Span::from_secs(60));
    assert_eq!(automation.bound.fence_budget, Span::from_secs(10));
    assert_eq!(automation.cooldown, Span::from_secs(3600));
    assert_eq!(automation.max_data_loss, Span::from_secs(7));
    assert_eq!(automation.beyond_max_data_loss, Beyond::Ask);
    assert_eq!(automation.on_coordinator_loss, OnCoordinatorLoss::Failsafe);
    assert_eq!(automation.probe_failures, 3);
    let dns = application.resources.values().find_map(|resource| resource.dns.clone()).unwrap();
    assert_eq!(
        (dns.name.as_str(), dns.ttl, dns.provider),
        ("www.example.", Span::from_secs(30), DnsProvider::Embedded)
    );
    let lines = &application.runbooks["failover"].lines;
    let times: Vec<_> = lines.iter().map(|line| (line.timeout.millis() / 1000, line.retries)).collect();
    assert_eq!(times, [(60, 3), (120, 3), (120, 3), (60, 10), (360, 3), (3600, 0), (60, 3)]);
    assert!(lines.iter().all(|line| line.on_failure == OnFailure::Stuck && line.when.is_none()));
    assert_eq!(lines[4].duration, Some(Span::from_secs(300)));
    assert_eq!(lines[5].question, "Is it so?");
    assert_eq!((lines[6].command.as_str(), lines[6].resources[0].as_str()), ("warm-up", "tool"));
}

#[test]
fn options_of_a_line_are_read() {
    let text = SAMPLE.replace(
        "- verify: [checks]",
        "- { verify: [checks], timeout: 9s, retries: 0, onFailure: continue, when: ungraceful }",
    );
    let Line { timeout, retries, on_failure, when, .. } = parse(&text).unwrap().runbooks["failover"].lines[3].clone();
    assert_eq!(
        (timeout, retries, on_failure, when),
        (Span::from_secs(9), 0, OnFailure::Continue, Some(Manner::Ungraceful))
    );
}

#[test]
fn a_switchover_in_its_order_is_accepted() {
    let text = format!(
        "{SAMPLE}    switchover:
      - quiesce: [service, orders-db, cache]
      - catchUp: [orders-db, cache]
      - promote: [orders-db]
      - promote: [cache]
      - redirect: [www]
      - activate: [service]
      - rejoin: [orders-db, cache]
    drill:
      - restore: [orders-db]
"
    );
    assert_eq!(parse(&text).map(|application| application.runbooks.len()), Ok(3));
}

#[test]
fn the_printed_sample_can_be_read_by_humans() {
    let printed = to_yaml(&parse(SAMPLE).unwrap());
    assert_eq!(
        printed,
        "\
apiVersion: regent/v1
kind: Application
metadata:
  name: shop
spec:
  objectives: { rto: 1m, rpo: 5s }
  clusters: [eu-west-1, eu-central-1]
  resources:
    cache: { kind: redis }
    checks: { kind: http }
    orders-db: { kind: postgres }
    service: { kind: command }
    www: { kind: dns, name: shop.regent.test., ttl: 5s, provider: embedded }
  automation:
    mode: automatic
    failoverAfter: 10s
    cooldown: 1h
    maxDataLoss: 5s
    beyondMaxDataLoss: ask
    maxWriteOutage: 30s
    twoPerson: false
    approveWithin: 1h
    onSilence: refuse
    onCoordinatorLoss: failsafe
    probeFailures: 3
  runbooks:
    failover:
      - promote: [orders-db, cache]
      - redirect: [www]
      - activate: [service]
      - verify: [checks]
"
    );
}

#[test]
fn the_application_survives_the_log() {
    let shop = parse(SAMPLE).unwrap();
    let stored = serde_json::to_string(&shop).unwrap();
    assert_eq!(serde_json::from_str::<crate::application::Application>(&stored).unwrap(), shop);
}
