//! A judge who cannot condemn is worth nothing: each promise broken, and a clean record.

use regent_deploy::config::{CACHE, DATABASE};
use regent_deploy::ctl::{Report, Run};
use regent_deploy::writer::Record;

use super::*;
use crate::crew::Way;

const OLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));
const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 1, 2));

/// A world in which every moment is so many milliseconds after the start.
struct Case {
    start: Instant,
    evidence: Evidence,
}

impl Case {
    /// The old side reigns from the start, each other one from the moment given; every report says that 4096 bytes may be
    /// missing of what was reported until a second before its decision.
    fn of(reigns: &[(IpAddr, u64)]) -> Self {
        let start = Instant::now();
        let first = Reign { epoch: 1, by: OLD, from: None, switched: false, said: BTreeMap::new() };
        let decided = reigns.iter().zip(2..).map(|((by, at), epoch)| {
            let from = start + Duration::from_millis(*at);
            let said = Said { bytes: Some(4096), counted_until: from.checked_sub(Duration::from_secs(1)) };
            let said = BTreeMap::from([(DATABASE.to_owned(), said), (CACHE.to_owned(), said)]);
            Reign { epoch, by: *by, from: Some(from), switched: false, said }
        });
        let reigns: Vec<Reign> = std::iter::once(first).chain(decided).collect();
        let (epoch, primary) = reigns.last().map(|last| (last.epoch, last.by)).unwrap();
        let evidence = Evidence {
            sheets: Vec::new(),
            epochs: Vec::new(),
            reigns,
            epoch,
            primary,
            rows: [BTreeSet::new(), BTreeSet::new()],
            cut_off: Vec::new(),
            tolerance: TOLERANCE,
        };
        Self { start, evidence }
    }

    /// One more writer, with rows that each took a millisecond: number, who acknowledged it, and when.
    fn writes(&mut self, way: Way, rows: &[(i64, IpAddr, u64)]) {
        let row = |(n, by, at): &(i64, IpAddr, u64)| {
            let at = self.start + Duration::from_millis(*at);
            Acknowledged { n: *n, sent: at.checked_sub(Duration::from_millis(1)).unwrap_or(at), at, by: *by }
        };
        let record = Record { acknowledged: rows.iter().map(row).collect(), ..Record::default() };
        for (of, there) in [Way::Postgres, Way::Redis].into_iter().zip(&mut self.evidence.rows) {
            if way == Way::Name || way == of {
                there.extend(rows.iter().map(|(n, _, _)| *n));
            }
        }
        self.evidence.sheets.push(Sheet { region: 2, way, record });
    }

    fn loses(&mut self, numbers: &[i64]) {
        for there in &mut self.evidence.rows {
            there.retain(|n| !numbers.contains(n));
        }
    }

    /// What the report of the second epoch says of both databases.
    fn says(&mut self, bytes: Option<u64>, counted_until: Option<u64>) {
        let counted_until = counted_until.map(|at| self.start + Duration::from_millis(at));
        for said in self.evidence.reigns[1].said.values_mut() {
            *said = Said { bytes, counted_until };
        }
    }

    fn broken(&self) -> Vec<String> {
        judge(&self.evidence)
    }
}

/// Rows 1 to 4 at the old side, a second apart; 5 and 6 at the new one, which reigns from 4.5 s on. Row 4 is lost.
fn failover() -> Case {
    let mut case = Case::of(&[(NEW, 4_500)]);
    let rows = [(1, OLD, 1_000), (2, OLD, 2_000), (3, OLD, 3_000), (4, OLD, 4_000), (5, NEW, 5_000), (6, NEW, 6_000)];
    case.writes(Way::Name, &rows);
    case.loses(&[4]);
    case
}

#[track_caller]
fn condemned(case: &Case, words: &[&str]) {
    let broken = case.broken();
    assert!(words.iter().all(|word| broken.iter().any(|line| line.contains(word))), "{broken:#?}");
}

#[track_caller]
fn acquitted(case: &Case) {
    assert_eq!(case.broken(), Vec::<String>::new());
}

#[test]
fn a_clean_failover_is_clean() {
    acquitted(&failover());
}

#[test]
fn two_writers_are_seen() {
    let mut case = failover();
    // A stubborn writer gets one more row at the old side, half a second after the first of the new one.
    case.writes(Way::Postgres, &[(1_000_001, OLD, 5_500)]);
    condemned(&case, &["S1: 1 rows were acknowledged in no reign of their cluster"]);
}

/// From A to B and back, while the epoch rose twice as often: the two epochs in which nobody wrote are no licence.
#[test]
fn an_overlap_is_seen_though_there_were_epochs_enough() {
    let mut case = Case::of(&[(NEW, 10_000), (OLD, 20_000), (NEW, 30_000), (OLD, 40_000)]);
    case.writes(Way::Name, &[(1, OLD, 9_000), (2, NEW, 12_000), (3, OLD, 45_000)]);
    acquitted(&case);
    // In the first reign of the new side the old one acknowledges, and the new one goes on.
    case.writes(Way::Postgres, &[(1_000_001, OLD, 13_000)]);
    case.writes(Way::Postgres, &[(2_000_001, NEW, 14_000)]);
    condemned(&case, &["S1: 1 rows", "row 1000001 of 10.77.0.2"]);
}

/// The same without a change of who acknowledges: too late is too late, whoever comes after it.
#[test]
fn a_row_after_the_end_of_a_reign_is_seen() {
    let mut case = Case::of(&[(NEW, 10_000)]);
    case.writes(Way::Name, &[(1, OLD, 9_000)]);
    acquitted(&case);
    case.writes(Way::Redis, &[(1_000_001, OLD, 10_100)]);
    acquitted(&case);
    case.writes(Way::Redis, &[(2_000_001, OLD, 10_500)]);
    condemned(&case, &["S1: 1 rows", "row 2000001"]);
}

/// The side that takes over writes before it was decided.
#[test]
fn a_row_before_its_reign_is_seen() {
    let mut case = failover();
    case.writes(Way::Postgres, &[(1_000_001, NEW, 4_200)]);
    condemned(&case, &["S1: 1 rows", "row 1000001 of 10.77.1.2"]);
}

#[test]
fn a_change_without_a_decision_is_seen() {
    let mut case = failover();
    case.evidence.reigns.pop();
    condemned(&case, &["S2: of the epochs 1 to 2, the first and [] were decided", "S1: 2 rows"]);
    let mut case = failover();
    case.evidence.primary = OLD;
    condemned(&case, &["S2: epoch 2 was decided for 10.77.1.2, and the primary is 10.77.0.2"]);
}

#[test]
fn a_silent_loss_is_seen() {
    let mut case = failover();
    // Nothing of what was reported until the last row is missing, it says.
    case.says(Some(0), Some(4_300));
    condemned(&case, &["not in orders-db, and no report admits it: [4]", "not in cache, and no report admits it: [4]"]);
    // It says that it counts nothing so late.
    case.says(Some(0), Some(3_500));
    acquitted(&case);
    // A run without a word of the resource admits nothing.
    case.evidence.reigns[1].said.remove(DATABASE);
    condemned(&case, &["not in orders-db, and no report admits it: [4]"]);
}

#[test]
fn a_switchover_loses_nothing() {
    let mut case = failover();
    case.says(None, None);
    acquitted(&case);
    case.evidence.reigns[1].switched = true;
    condemned(&case, &["not in orders-db, and no report admits it: [4]"]);
}

/// Only where its report does not say when the primary reported last.
#[test]
fn a_cut_dates_a_loss_that_its_report_does_not() {
    let mut case = failover();
    case.says(Some(0), None);
    condemned(&case, &["no report admits it: [4]"]);
    let at = |millis| case.start + Duration::from_millis(millis);
    // The cut of another act is not that of this reign's end.
    let (early, late, other) = (at(2_500), at(3_500), at(5_500));
    case.evidence.cut_off = vec![early, late, other];
    acquitted(&case);
    case.loses(&[3]);
    condemned(&case, &["no report admits it: [3]"]);
    case.says(Some(0), Some(4_300));
    condemned(&case, &["no report admits it: [3, 4]"]);
}

/// Whatever a report says: who has a row has everything before it.
#[test]
fn a_hole_is_seen_though_any_loss_is_admitted() {
    let mut case = failover();
    case.says(None, None);
    case.loses(&[2]);
    condemned(&case, &["1 rows that 10.77.0.2 acknowledged in epoch 1 are not in orders-db, though row 3 is"]);
    // The end of the reign is admitted, as much as it is.
    case.loses(&[3]);
    acquitted(&case);
    case.loses(&[1]);
    acquitted(&case);
}

#[test]
fn writers_side_by_side_have_no_order() {
    let mut case = failover();
    case.says(None, None);
    // Row 4 is lost, and this one is there: it was under way at the same time, or tried before.
    let (sent, at) = (Duration::from_millis(3_990), Duration::from_millis(4_050));
    let row = Acknowledged { n: 1_000_001, sent: case.start + sent, at: case.start + at, by: OLD };
    let record = Record { acknowledged: vec![row], ..Record::default() };
    case.evidence.sheets.push(Sheet { region: 0, way: Way::Postgres, record });
    case.evidence.rows[0].insert(row.n);
    acquitted(&case);
    case.evidence.sheets[1].record.acknowledged[0].sent = case.start + Duration::from_millis(4_010);
    condemned(&case, &["though row 1000001 is"]);
    case.evidence.sheets[1].record.failures = vec![case.start + Duration::from_millis(3_500)];
    acquitted(&case);
}

#[test]
fn more_than_the_bytes_of_a_report_is_seen() {
    let mut case = Case::of(&[(NEW, 10_000)]);
    let rows: Vec<_> = (1_i64..=100).map(|n| (n, OLD, 1_000 + 50 * n.unsigned_abs())).collect();
    case.writes(Way::Postgres, &rows);
    // Those of the last two seconds: forty rows, at least 5120 bytes.
    case.loses(&(61_i64..=100).collect::<Vec<_>>());
    condemned(&case, &["says that 4096 bytes of what was reported may be missing in orders-db; 40 rows of it are"]);
    // Some of them came after the last report, and are not counted.
    case.says(Some(4096), Some(5_500));
    acquitted(&case);
    case.says(Some(6000), Some(9_000));
    acquitted(&case);
}

#[test]
fn a_report_speaks_for_its_own_run_alone() {
    // There and back, and the report of the way back says that anything may be missing.
    let mut case = Case::of(&[(NEW, 4_500), (OLD, 10_000)]);
    case.writes(Way::Name, &[(1, OLD, 1_000), (2, OLD, 4_000), (3, NEW, 5_000), (4, NEW, 9_000), (5, OLD, 11_000)]);
    case.says(Some(0), Some(4_300));
    case.evidence.reigns[2].said.values_mut().for_each(|said| said.bytes = None);
    case.loses(&[4]);
    acquitted(&case);
    case.loses(&[2]);
    condemned(&case, &["epoch 1 are not in orders-db, and no report admits it: [2]"]);
    // Unless it lost everything since: then it may have lost that, too.
    case.loses(&[3]);
    acquitted(&case);
}

#[test]
fn a_loss_at_the_primary_itself_is_never_admitted() {
    let mut case = failover();
    case.evidence.rows[1].remove(&6);
    condemned(&case, &["not in cache, and its cluster is the primary: [6]"]);
}

#[test]
fn reigns_are_read_from_reports() {
    let text = r#"{ "run": { "id": 9, "application": "shop", "from": "a", "to": "b", "status": "RUN_STATUS_SUCCEEDED",
            "decision": { "at": "2026-03-01T10:00:10Z", "epoch": 2, "ground": "lost" },
            "finding": { "gaps": [ { "resource": "orders-db", "primaryAge": "3s" },
                                   { "resource": "cache", "primaryAge": "2s" } ] } },
        "losses": [ { "resource": "orders-db", "bytes": 80 },
                    { "resource": "cache", "bytes": 0, "completeUntil": "2026-03-01T10:00:07.500Z" } ] }"#;
    let failover: Report = serde_json::from_str(text).unwrap();
    let undone: Run =
        serde_json::from_str(r#"{ "id": 7, "application": "shop", "status": "RUN_STATUS_UNDONE" }"#).unwrap();
    let undone = Report { run: Some(undone), losses: Vec::new() };
    let address = |name: &str| [("a", OLD), ("b", NEW)].into_iter().find(|known| known.0 == name).map(|known| known.1);
    let now = (Instant::now() + Duration::from_secs(60), "2026-03-01T10:00:20Z".parse().unwrap());
    let ago = |seconds: f64| now.0.checked_sub(Duration::from_secs_f64(seconds));
    let found = reigns((1, OLD), &[failover, undone], address, now);
    assert_eq!(found.iter().map(|reign| (reign.epoch, reign.by)).collect::<Vec<_>>(), [(1, OLD), (2, NEW)]);
    assert_eq!((found[0].from, found[1].from, found[1].switched), (None, ago(10.0), false));
    // As old as the primary's last position was, and a second on its way.
    assert_eq!(found[1].said[DATABASE], Said { bytes: Some(80), counted_until: ago(14.0) });
    assert_eq!(found[1].said[CACHE], Said { bytes: Some(0), counted_until: ago(12.5) });
}

#[test]
fn a_falling_epoch_is_seen() {
    let mut case = failover();
    let sight = |process, epoch| Sighting { region: 0, process, epoch };
    case.evidence.epochs = vec![sight(7, 1), sight(7, 2), sight(7, 1)];
    condemned(&case, &["S2: the coordinator of region 0 went from epoch 2 to 1"]);
    // A coordinator that was started anew begins anew.
    case.evidence.epochs[2].process = 8;
    acquitted(&case);
}
