//! How far a standby is behind and whether that grows, out of the probes of the last minutes.

use regent_core::evidence::{Evidence, Health, Role, Sighting};
use regent_core::id::{ClusterId, SystemId};
use regent_core::readiness;
use regent_core::time::{Moment, Span};

use crate::fixture::*;
use crate::readying::{NOW, service, well};

/// What a probe tells: the lag in milliseconds, and the position.
type Told = (Option<u64>, Option<u64>);

/// What is known after a probe each half second for so long until now. Each tells what it is given for the milliseconds that
/// have passed; none: it fails.
fn probed(evidence: &mut Evidence, at: &ClusterId, name: &str, secs: u64, tell: impl Fn(u64) -> Option<Told>) {
    let like = service(evidence, at, name).clone();
    let begins = NOW.0 - secs * 1_000;
    let mut last: Option<Sighting> = None;
    for now in (begins..=NOW.0).step_by(500) {
        let mut seen = Sighting { at: Moment(now), ..like.clone() };
        if let Some((lag, position)) = tell(now - begins) {
            seen.position = position;
            seen.upstream.iter_mut().for_each(|upstream| upstream.lag = lag.map(Span::from_millis));
        } else {
            (seen.health, seen.role, seen.system_id) = (Health::Unknown, Role::Unknown, SystemId::default());
            (seen.position, seen.upstream) = (None, None);
        }
        seen.track = seen.track_after(last.as_ref());
        last = Some(seen);
    }
    *service(evidence, at, name) = last.unwrap();
}

/// The notes on lags, as "code: detail".
fn told(world: &World, evidence: &Evidence) -> Vec<String> {
    let all = readiness::notes(&world.state, evidence, view(NOW, world), &app()).unwrap();
    let lags = all.into_iter().map(|(_, note)| note).filter(|note| note.code.starts_with("lag-"));
    lags.map(|note| format!("{}: {}", note.code, note.detail)).collect()
}

/// Of a lag in time, in milliseconds by those that have passed.
fn of_lag(secs: u64, lag: impl Fn(u64) -> Option<u64>) -> Vec<String> {
    let (world, mut evidence) = well();
    probed(&mut evidence, &central(), "db", secs, |passed| Some((Some(lag(passed)?), Some(1000))));
    told(&world, &evidence)
}

const NONE: Vec<String> = Vec::new();

#[test]
fn a_lag_that_has_grown_for_a_minute_and_by_enough_is_told() {
    let growing = |passed: u64| Some(passed / 100);
    let grown = "lag-grows: its lag has grown from 297ms to 1s697ms within 2m40s; maxDataLoss is 5s";
    assert_eq!(of_lag(200, growing), [grown]);
    assert_eq!(of_lag(200, |passed| Some(passed / 200)), NONE, "by less than a second");
    assert_eq!(of_lag(60, |passed| Some(passed / 30)), NONE, "for less than a minute");
    // A tenth of what is allowed, where that is more than a second.
    let (mut world, mut evidence) = well();
    probed(&mut evidence, &central(), "db", 200, |passed| Some((growing(passed), Some(1000))));
    let mut limit = |span| {
        world.state.applications.get_mut(&app()).unwrap().document.automation.max_data_loss = span;
        told(&world, &evidence).len()
    };
    assert_eq!((limit(Span::from_secs(14)), limit(Span::from_secs(15))), (1, 0));
}

#[test]
fn single_probes_neither_end_a_trend_nor_make_one() {
    let growing = |passed: u64| Some(passed / 100);
    let codes = |told: Vec<String>| -> Vec<String> {
        told.iter().filter_map(|note| note.split(':').next()).map(str::to_owned).collect()
    };
    let dips = |passed: u64| if passed.is_multiple_of(30_000) { Some(0) } else { growing(passed) };
    assert_eq!(codes(of_lag(200, dips)), ["lag-grows"]);
    let fails = |passed: u64| if passed.is_multiple_of(30_000) { None } else { growing(passed) };
    assert_eq!(codes(of_lag(200, fails)), ["lag-grows"]);
    // One long transaction.
    assert_eq!(of_lag(200, |passed| Some(if passed < 190_000 { 0 } else { 2_000 })), NONE);
    // What falls again does not grow.
    let falls = |passed: u64| Some(if passed < 100_000 { passed / 50 } else { 2_000 - (passed - 100_000) / 100 });
    assert_eq!(of_lag(200, falls), NONE);
    // What is not known any more does not, either.
    assert_eq!(of_lag(200, |passed| (passed < 140_000).then_some(passed / 50)), NONE);
}

#[test]
fn only_the_last_ten_minutes_count() {
    let grown = "lag-grows: its lag has grown from 659ms to 1s739ms within 9m20s; maxDataLoss is 5s";
    assert_eq!(of_lag(900, |passed| Some(passed / 500)), [grown]);
}

#[test]
fn another_history_and_a_long_silence_begin_anew() {
    let (world, mut evidence) = well();
    probed(&mut evidence, &central(), "db", 200, |passed| Some((Some(passed / 100), Some(1000))));
    let before = service(&mut evidence, &central(), "db").clone();
    let after = |change: fn(&mut Sighting)| {
        let mut seen = Sighting { at: NOW.after(Span::from_millis(500)), ..before.clone() };
        change(&mut seen);
        seen.track_after(Some(&before)).lag().growth()
    };
    assert!(after(|_| {}).is_some());
    assert_eq!(after(|seen| seen.timeline = 2), None);
    assert_eq!(after(|seen| seen.role = Role::Primary), None);
    assert_eq!(after(|seen| seen.at = NOW.after(Span::from_millis(1_501))), None, "nobody has looked in between");
    // The same word, relayed once more.
    assert_eq!(before.clone().track_after(Some(&before)), before.track);
    assert_eq!(told(&world, &evidence).len(), 1);
}

/// Of a cache whose primary writes 100 bytes a millisecond, and whose standby lacks so many by the milliseconds that have passed.
fn of_bytes(lacks: impl Fn(u64) -> u64, change: impl Fn(&mut Evidence)) -> Vec<String> {
    let (world, mut evidence) = well();
    probed(&mut evidence, &west(), "cache", 200, |passed| Some((None, Some(passed * 100))));
    let had = |passed: u64| Some((passed * 100).saturating_sub(lacks(passed)));
    // Of a replica Redis says only that it has applied what it has read.
    probed(&mut evidence, &central(), "cache", 200, |passed| Some((Some(0), had(passed))));
    change(&mut evidence);
    told(&world, &evidence)
}

#[test]
fn where_no_lag_in_time_is_known_bytes_and_the_pace_of_the_primary_tell() {
    let grown = "lag-grows: it has fallen from 43 to 248 KiB behind within 2m40s: what the primary writes in about 1s600ms; its lag \
                 in time is not known, and maxDataLoss is 5s";
    assert_eq!(of_bytes(|passed| passed * 3 / 2, |_| {}), [grown]);
    let near = "lag-near-limit: cache is 390 KiB behind, what the primary writes in about 3s500ms; its lag in time is not known, \
                and maxDataLoss is 5s";
    assert_eq!(of_bytes(|_| 400_000, |_| {}), [near]);
    assert_eq!(of_bytes(|_| 200_000, |_| {}), NONE);
    // A standby that has lost its link: what it had stays.
    let cut = of_bytes(
        |passed| passed.saturating_sub(100_000) * 100,
        |evidence| {
            let upstream = service(evidence, &central(), "cache").upstream.as_mut().unwrap();
            (upstream.connected, upstream.lag) = (false, None);
        },
    );
    assert!(cut.len() == 2 && cut[0].starts_with("lag-grows: ") && cut[1].starts_with("lag-near-limit: "), "{cut:?}");
}

#[test]
fn bytes_that_cannot_be_compared_tell_nothing() {
    let growing = |passed: u64| passed * 30;
    assert!(!of_bytes(growing, |_| {}).is_empty());
    let another = |evidence: &mut Evidence| service(evidence, &west(), "cache").system_id = SystemId("other".into());
    assert_eq!(of_bytes(growing, another), NONE);
    let old = |evidence: &mut Evidence| service(evidence, &west(), "cache").at = NOW.before(Span::from_secs(2));
    assert_eq!(of_bytes(growing, old), NONE);
    let elsewhere = |evidence: &mut Evidence| {
        service(evidence, &central(), "cache").upstream.as_mut().unwrap().cluster = Some(cluster("north-1"));
    };
    assert_eq!(of_bytes(growing, elsewhere), NONE);
    // A keep-alive now and then is no load: a standby that lacks a few is not far behind.
    let (world, mut evidence) = well();
    probed(&mut evidence, &west(), "cache", 200, |passed| Some((None, Some(passed / 10_000 * 14))));
    probed(&mut evidence, &central(), "cache", 200, |_| Some((None, Some(0))));
    assert_eq!(told(&world, &evidence), NONE);
}
