//! A judge who cannot condemn is worth nothing: each promise broken once, and a clean record.

use std::time::Duration;

use regent_deploy::ctl::Loss;
use regent_deploy::writer::Record;

use super::*;

const OLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));
const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 1, 2));

/// Rows 1 and 2 at the old side, 3 and 4 at the new one, a second apart; row 2 is lost.
fn evidence() -> Evidence {
    let start = Instant::now();
    let row = |n: i64, by| {
        let at = start + Duration::from_secs(n.unsigned_abs());
        Acknowledged { n, sent: at - Duration::from_millis(5), at, by }
    };
    let record = Record { acknowledged: vec![row(1, OLD), row(2, OLD), row(3, NEW), row(4, NEW)], ..Record::default() };
    let rows = BTreeSet::from([1, 3, 4]);
    let loss = |resource: &str| Loss {
        complete_until: None,
        resource: resource.into(),
        bytes: Some(80),
        sentence: String::new(),
    };
    let sight = |epoch| Sighting { region: 0, process: 7, epoch };
    Evidence {
        sheets: vec![Sheet { region: 2, way: Way::Name, record }],
        epochs: vec![sight(1), sight(2)],
        changes: 1,
        primary: NEW,
        rows: [rows.clone(), rows],
        reports: vec![Report { losses: vec![loss(DATABASE), loss(CACHE)] }],
        cut_off: Vec::new(),
    }
}

#[test]
fn a_clean_failover_is_clean() {
    assert_eq!(judge(&evidence()), Vec::<String>::new());
}

#[test]
fn two_writers_are_seen() {
    let mut evidence = evidence();
    // A stubborn writer gets one more row at the old side, half a second after the first of the new one.
    let mut late = evidence.sheets[0].record.acknowledged[1];
    late.n = 1_000_001;
    late.at = evidence.sheets[0].record.acknowledged[2].at + Duration::from_millis(500);
    evidence.rows[0].insert(late.n);
    let record = Record { acknowledged: vec![late], ..Record::default() };
    evidence.sheets.push(Sheet { region: 0, way: Way::Postgres, record });
    let broken = judge(&evidence);
    assert!(broken.len() == 1 && broken[0].starts_with("S1: the epoch rose 1 times"), "{broken:?}");
}

#[test]
fn a_change_without_an_epoch_is_seen() {
    let evidence = Evidence { changes: 0, ..evidence() };
    assert!(judge(&evidence)[0].starts_with("S1"));
}

#[test]
fn a_silent_loss_is_seen() {
    let mut evidence = evidence();
    evidence.reports[0].losses[0].bytes = Some(0);
    let broken = judge(&evidence);
    assert!(broken.len() == 1 && broken[0].contains("not in orders-db, and no report admits it: [2]"), "{broken:?}");
    // Beyond the last report: the report says that it does not count those.
    evidence.cut_off = vec![evidence.sheets[0].record.acknowledged[1].at];
    assert!(judge(&evidence).is_empty());
    // But not beyond that of another reign.
    evidence.cut_off = vec![evidence.sheets[0].record.acknowledged[3].at];
    assert_eq!(judge(&evidence).len(), 1);
    // A run without a word of the resource admits nothing.
    evidence.cut_off.clear();
    evidence.reports[0].losses.remove(0);
    assert_eq!(judge(&evidence).len(), 1);
}

#[test]
fn a_loss_at_the_primary_itself_is_never_admitted() {
    let mut evidence = evidence();
    evidence.rows[1].remove(&4);
    evidence.cut_off = vec![evidence.sheets[0].record.acknowledged[0].at];
    let broken = judge(&evidence);
    assert!(broken.len() == 1 && broken[0].contains("not in cache, and its cluster is the primary: [4]"), "{broken:?}");
}

#[test]
fn a_loss_of_an_earlier_reign_is_judged_as_such() {
    let mut evidence = evidence();
    // The old side reigns again, and row 2 of its first reign is lost, admitted as before.
    let mut again = evidence.sheets[0].record.acknowledged[3];
    (again.n, again.by, again.at) = (5, OLD, again.at + Duration::from_secs(1));
    evidence.sheets[0].record.acknowledged.push(again);
    for rows in &mut evidence.rows {
        rows.insert(5);
    }
    (evidence.changes, evidence.primary) = (2, OLD);
    assert_eq!(judge(&evidence), Vec::<String>::new());
    // A row of its present reign is another matter.
    evidence.rows[0].remove(&5);
    let broken = judge(&evidence);
    assert!(broken.len() == 1 && broken[0].contains("its cluster is the primary: [5]"), "{broken:?}");
}

#[test]
fn a_falling_epoch_is_seen() {
    let mut evidence = evidence();
    evidence.epochs.push(Sighting { region: 0, process: 7, epoch: 1 });
    assert!(judge(&evidence)[0].starts_with("S2"));
    // A coordinator that was started anew begins anew.
    evidence.epochs[2].process = 8;
    assert!(judge(&evidence).is_empty());
}
