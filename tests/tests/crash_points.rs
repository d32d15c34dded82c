//! Crash points: the leader, the acting agent, or both are killed at every step of every kind of run, or the step is
//! commanded again by another leader; and nothing comes of it. The end is the same as without, and the databases, the service
//! and the name have seen every effect once; what a rejoin overwrites and sets aside, too. A listed command, of which nothing
//! shows whether it was run, is run again by an agent that died before it had stored its end, and only then.
//!
//! The points are made from the plan itself: a step that is added to a runbook is tried without being named here.
//!
//! ```text
//! REGENT_CRASH_POINT='switchover 4 After Both' cargo nextest run --profile full -E 'test(every_crash_point)'
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "tests")]

#[path = "crash_points/effects.rs"]
mod effects;
#[path = "crash_points/plan.rs"]
mod plan;
#[path = "crash_points/rebuilt.rs"]
mod rebuilt;
#[path = "crash_points/turn.rs"]
mod turn;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{self, APPLICATION};
use regent_deploy::net::Net;
use regent_deploy::script;
use regent_deploy::world::{Options, Programs, World};
use regent_tests::gate::Gate;
use regent_tests::rehearsal::{self, COMMAND, Happening, with_a_command, with_a_quiesce};
use regent_tests::stage::{CENTRAL, Stage, WEST, play};
use serde_json::{Value, json};

use plan::{Kind, Point, points};

/// Long enough that an agent that is killed comes back under its lease.
const D: Duration = Duration::from_secs(6);

/// Every step at least once, and every victim at every place, spread over the steps.
fn sample(kind: Kind) -> Vec<Point> {
    let all = points(kind);
    let per_step = all.iter().filter(|point| point.step == all[0].step).count();
    // The next step of the plan takes the next but four: five and the number of points of a step have no divisor in common.
    let chosen = all.iter().enumerate().filter(|(index, _)| index % per_step == index / per_step * 5 % per_step);
    chosen.map(|(_, point)| *point).collect()
}

/// The one that was asked for, or all.
fn asked(all: Vec<Point>) -> Vec<Point> {
    match std::env::var("REGENT_CRASH_POINT") {
        Ok(name) => all.into_iter().filter(|point| point.to_string() == name).collect(),
        Err(_) => all,
    }
}

#[test]
fn a_sample_of_the_crash_points_of_a_switchover() -> Result<()> {
    let points = [sample(Kind::Switchover), sample(Kind::Undo)].concat();
    play(|net| pass(net, D, points))
}

#[test]
fn a_sample_of_the_crash_points_of_a_failover_and_a_rejoin() -> Result<()> {
    let points = [sample(Kind::Failover), sample(Kind::Rejoin)].concat();
    play(|net| pass(net, D, points))
}

#[test]
fn a_sample_of_the_crash_points_of_a_drill() -> Result<()> {
    play(|net| pass(net, D, sample(Kind::Drill)))
}

#[test]
fn every_crash_point_of_a_drill() -> Result<()> {
    play(|net| pass(net, D, asked(points(Kind::Drill))))
}

#[test]
fn every_crash_point_of_a_switchover() -> Result<()> {
    play(|net| pass(net, D, asked(points(Kind::Switchover))))
}

#[test]
fn every_crash_point_of_a_quiesce() -> Result<()> {
    play(|net| pass(net, D, asked(points(Kind::Quiesced))))
}

#[test]
fn every_crash_point_of_a_switchover_that_is_undone() -> Result<()> {
    play(|net| pass(net, D, asked(points(Kind::Undo))))
}

#[test]
fn every_crash_point_of_a_failover_from_a_dead_database() -> Result<()> {
    play(|net| pass(net, D, asked(points(Kind::Failover))))
}

#[test]
fn every_crash_point_of_a_failover_from_a_lost_region() -> Result<()> {
    play(|net| pass(net, Duration::from_secs(4), asked(points(Kind::Loss))))
}

#[test]
fn every_crash_point_of_a_rejoin() -> Result<()> {
    play(|net| pass(net, D, asked(points(Kind::Rejoin))))
}

/// One run after the other in one world, there and back again.
async fn pass(net: Net, failover_after: Duration, points: Vec<Point>) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("regent-gate-").tempdir_in("/var/tmp")?;
    let gate = Gate::new(folder.path())?;
    let change = |options: &mut Options| {
        options.programs = Programs { agent: "gated-agent", coordinator: "gated-coordinator" };
        options.environment = gate.environment();
        // Before a rejoin the side that dies has rows of its own, and some of them are older than they may be by default.
        options.max_data_loss = Duration::from_secs(60);
    };
    let quiesced = points.iter().any(|point| point.kind == Kind::Quiesced);
    let mut stage = Stage::start_on(net, failover_after, change, async |world: &World| {
        list_a_command(world)?;
        if quiesced { stop_the_service_first(world) } else { Ok(()) }
    })
    .await?;
    let mut sides = [WEST, CENTRAL];
    for (number, point) in points.iter().enumerate() {
        let began = std::time::Instant::now();
        let moved = turn::turn(&mut stage, &gate, *point, sides).await;
        let moved = moved.with_context(|| {
            format!("point {number}; again: REGENT_CRASH_POINT='{point}' … -E 'test(every_crash_point)'")
        })?;
        if moved {
            sides.reverse();
        }
        stage.keep_reports().await?;
        println!("{point}: the same, in {:.1} s", began.elapsed().as_secs_f32());
    }
    ensure!(!points.is_empty(), "there is no such point");
    println!("{} crash points", points.len());
    stage.judge().await?;
    Ok(())
}

/// Has every runbook run a command that leaves a line whenever it is run.
fn list_a_command(world: &World) -> Result<()> {
    for cluster in world.regions().iter().filter_map(|region| region.cluster().ok()) {
        let notes = effects::notes(cluster);
        let body = format!("echo done >> {}\n", script::quote_path(&notes));
        let script = script::write(&notes.with_extension("sh"), &body)?;
        let text = std::fs::read_to_string(cluster.agent.config())?;
        let mut file: Value = serde_saphyr::from_str(&text)?;
        file["applications"][APPLICATION]["service"]["commands"] = json!({ COMMAND: [script] });
        config::write(cluster.agent.config(), &file)?;
    }
    let document = with_a_command(&std::fs::read_to_string(world.document())?)?;
    std::fs::write(world.document(), document).context("cannot write the document")
}

/// Has a switchover quiesce the service.
fn stop_the_service_first(world: &World) -> Result<()> {
    let document = with_a_quiesce(&std::fs::read_to_string(world.document())?)?;
    std::fs::write(world.document(), document).context("cannot write the document")
}

#[test]
fn a_sample_has_every_step_and_every_manner() {
    for kind in Kind::ALL {
        let (all, some) = (points(kind), sample(kind));
        let steps = |points: &[Point]| points.iter().map(|point| point.step).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(steps(&all), steps(&some), "{kind:?}");
        assert!(all.len() >= some.len() * 5, "{kind:?}: {} of {}", some.len(), all.len());
    }
    assert!(points(Kind::Switchover).len() > 100);
}

/// Without processes: every moment of every kind of run with every happening.
#[test]
fn every_crash_point_in_a_rehearsal() -> Result<()> {
    let mut tried = 0;
    for kind in rehearsal::Kind::ALL {
        let (wanted, moments) = rehearse(kind, &[])?;
        for moment in 0..moments {
            for happening in Happening::ALL {
                tried += compare(kind, &[(moment, happening)], &wanted)?;
            }
        }
        println!("{kind:?}: {moments} moments");
    }
    println!("{tried} crash points");
    Ok(())
}

/// The second crash may come while what the first one left is being mended.
#[test]
fn every_pair_of_crash_points_in_a_rehearsal() -> Result<()> {
    let mut tried = 0;
    for kind in rehearsal::Kind::ALL {
        let (wanted, moments) = rehearse(kind, &[])?;
        for first in 0..moments {
            for second in first + 1..moments + 12 {
                for happenings in pairs() {
                    tried += compare(kind, &[(first, happenings[0]), (second, happenings[1])], &wanted)?;
                }
            }
        }
    }
    println!("{tried} pairs of crash points");
    Ok(())
}

/// All of them with `REGENT_EVERY_PAIR`; else those that lose most and those that repeat.
fn pairs() -> Vec<[Happening; 2]> {
    let some = match std::env::var_os("REGENT_EVERY_PAIR") {
        Some(_) => &Happening::ALL[..],
        None => &[Happening::Both, Happening::Twice],
    };
    some.iter().flat_map(|first| some.iter().map(|second| [*first, *second])).collect()
}

fn rehearse(kind: rehearsal::Kind, schedule: rehearsal::Schedule<'_>) -> Result<(rehearsal::Ending, usize)> {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("regent-rehearsal-").tempdir_in(parent)?;
    rehearsal::play(kind, schedule, folder.path()).with_context(|| format!("{kind:?} with {schedule:?}"))
}

fn compare(kind: rehearsal::Kind, schedule: rehearsal::Schedule<'_>, wanted: &rehearsal::Ending) -> Result<usize> {
    let (found, _) = rehearse(kind, schedule)?;
    ensure!(found == *wanted, "{kind:?} with {schedule:?}: without it {wanted:?}, with it {found:?}");
    Ok(1)
}
