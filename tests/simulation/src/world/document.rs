//! The documents that the operator hands in.

use crate::program;

/// What becomes of a failover whose loss is beyond the limit, or is not known.
#[derive(Clone, Copy)]
pub(super) enum Beyond {
    Refuse,
    Accept,
}

/// Of the first application: it has a name, and can be moved.
pub(super) fn first(clusters: &[String], bound: u64, beyond: Beyond) -> String {
    let (database, name) = (program::DATABASE, program::NAME);
    let resource = format!("    {name}: {{ kind: dns, name: shop.regent.test., ttl: 1s }}\n");
    let lines = format!(
        "      - redirect: [{name}]
    switchover:
      - catchUp: [{database}]
      - promote: [{database}]
      - redirect: [{name}]
      - rejoin: [{database}]
"
    );
    text(program::APPLICATION, clusters, (bound, beyond), &resource, &lines)
}

/// Of the second one: it has a database and nothing else.
pub(super) fn second(clusters: &[String], bound: u64) -> String {
    text(program::SECOND, clusters, (bound, Beyond::Refuse), "", "")
}

/// With more resources, and more lines after its promotion.
fn text(
    application: &str,
    clusters: &[String],
    (bound, beyond): (u64, Beyond),
    resources: &str,
    lines: &str,
) -> String {
    let beyond = match beyond {
        Beyond::Refuse => "refuse",
        Beyond::Accept => "accept",
    };
    format!(
        "apiVersion: regent/v1
kind: Application
metadata:
  name: {application}
spec:
  objectives: {{ rto: 1m, rpo: 5s }}
  clusters: [{clusters}]
  resources:
    {database}: {{ kind: postgres }}
{resources}  automation:
    mode: automatic
    failoverAfter: {bound}ms
    cooldown: 1s
    maxDataLoss: 1h
    beyondMaxDataLoss: {beyond}
    onCoordinatorLoss: failsafe
  runbooks:
    failover:
      - promote: [{database}]
{lines}",
        clusters = clusters.join(", "),
        database = program::DATABASE,
    )
}
