//! A report in forms that can be handed on. What is told is the same in each; here is what each tells.

use regent_proto::operator::v1 as wire;

use crate::words;

mod drill;
pub(crate) mod html;
pub(crate) mod markdown;

/// In a sentence or two: what happened, and how it went.
fn summary(report: &wire::Report) -> String {
    let Some(run) = &report.run else { return "The run is not known.".to_owned() };
    if is_drill(run) {
        return drill::summary(report, run);
    }
    if !moves_primary(run) {
        return format!(
            "Regent takes {} back as a standby of {} for the application {}: {}.",
            run.from,
            run.to,
            run.application,
            words::status(run)
        );
    }
    let moved = format!("the application {} from {} to {}", run.application, run.from, run.to);
    let cause = words::cause(run.cause.as_ref());
    let took = report.rto.as_ref().and_then(|rto| rto.achieved.as_ref()).map(words::span);
    match run.status() {
        wire::RunStatus::Succeeded => {
            let took = took
                .map(|took| format!(" Service was restored {took} after it was last known to be there."))
                .unwrap_or_default();
            format!("Regent moved {moved}, because {cause}.{took}")
        }
        wire::RunStatus::Running => format!("Regent is moving {moved}, because {cause}."),
        wire::RunStatus::Stuck if run.advice.as_ref().is_some_and(|advice| advice.state == "undo-stuck") => {
            format!(
                "Regent gave up moving {moved}. What was done cannot be undone yet: the run is stuck and needs a human."
            )
        }
        wire::RunStatus::Stuck => {
            format!("Regent was moving {moved}, because {cause}. The run is stuck and needs a human.")
        }
        wire::RunStatus::Undoing => format!("Regent gave up moving {moved} and is undoing what was done."),
        wire::RunStatus::Undone => {
            format!("Regent gave up moving {moved} and has undone it; {} serves again.", run.from)
        }
        wire::RunStatus::Aborted => {
            format!("Regent moved {moved}, because {cause}; an operator ended the run before the old side followed.")
        }
        wire::RunStatus::Superseded => format!("A later decision replaced the run that moved {moved}."),
        wire::RunStatus::Failed | wire::RunStatus::Unspecified => {
            format!("Regent tried to move {moved}, because {cause}, and failed.")
        }
    }
}

/// A run that takes a cluster back moves no primary: there is nothing to measure it by.
fn moves_primary(run: &wire::Run) -> bool {
    run.cause.as_ref().is_none_or(|cause| cause.kind != "rejoin" && cause.kind != "drill")
}

/// A failover that was rehearsed.
fn is_drill(run: &wire::Run) -> bool {
    run.cause.as_ref().is_some_and(|cause| cause.kind == "drill")
}

/// What stands where nothing is known of a loss.
fn no_losses(run: &wire::Run) -> &'static str {
    if moves_primary(run) {
        "No position of any database is recorded, so nothing can be said of it."
    } else if is_drill(run) {
        "A drill loses nothing: it worked with copies."
    } else {
        "The primary stays where it is. What the cluster had and the primary never got is gone from it."
    }
}

/// Key and value, in the order in which they are asked for.
fn facts(run: &wire::Run) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Application", run.application.clone()),
        ("Run", run.id.to_string()),
        ("Status", words::status(run).to_owned()),
        ("Cause", words::cause(run.cause.as_ref())),
        ("From", run.from.clone()),
        ("To", run.to.clone()),
        ("Started", words::time(run.started.as_ref())),
        ("Ended", words::time(run.ended.as_ref())),
    ];
    if let Some(decision) = &run.decision {
        let ground = format!("{} ({})", decision.ground, decision.detail);
        facts.push(("Decided", format!("{}, on ground {ground}", words::time(decision.at.as_ref()))));
        facts.push(("Epoch", format!("{} → {}", run.epoch_before, decision.epoch)));
    }
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// Objective, wanted, achieved, judgement.
fn objectives(report: &wire::Report) -> Vec<[String; 4]> {
    let row = |name: &str, objective: &wire::Objective| {
        let known =
            |duration: Option<&prost_types::Duration>| duration.map_or_else(|| "not known".to_owned(), words::span);
        [
            name.to_owned(),
            known(objective.wanted.as_ref()),
            known(objective.achieved.as_ref()),
            words::judgement(objective).to_owned(),
        ]
    };
    let (rto, rpo) = match report.run.as_ref().is_some_and(is_drill) {
        true => ("RTO: time without service, had it been a failover", "RPO: how far the standby was behind"),
        false => ("RTO: time without service", "RPO: time of lost writes"),
    };
    [(rto, &report.rto), (rpo, &report.rpo)]
        .into_iter()
        .filter_map(|(name, objective)| Some(row(name, objective.as_ref()?)))
        .collect()
}

/// Headings of the timeline.
const TIMELINE: [&str; 8] =
    ["Time (UTC)", "After start", "Step", "Cluster", "State", "Took", "Of it the driver", "Detail"];

/// What happened when: the last contact, the decision and every step, by their times.
fn timeline(report: &wire::Report) -> Vec<[String; 8]> {
    let Some(run) = &report.run else { return Vec::new() };
    let mut rows: Vec<(i64, [String; 8])> = Vec::new();
    let start = run.started.as_ref();
    let mut event = |at: Option<&prost_types::Timestamp>, what: &str, cluster: &str| {
        rows.extend(at.map(|at| (words::instant(at), point(start, at, what, cluster))));
    };
    event(
        run.finding.as_ref().and_then(|finding| finding.last_contact.as_ref()),
        "last contact with the primary",
        &run.from,
    );
    event(start, "the run began", "");
    event(run.decision.as_ref().and_then(|decision| decision.at.as_ref()), "decided: the point of no return", "");
    for step in run.steps.iter().filter(|step| step.kind != "decide") {
        let report = step.report.as_ref();
        let at = step.started.as_ref();
        let detail = match (&step.failure, report) {
            (Some(failure), _) => format!("{}: {}", failure.code, failure.message),
            (None, Some(report)) => report.message.clone(),
            (None, None) => String::new(),
        };
        let awaited = if step.detached { " (not awaited)" } else { "" };
        // What was never begun stands at the end.
        rows.push((
            at.map_or(i64::MAX, words::instant),
            [
                words::clock(at),
                at.map(|at| after(start, at)).unwrap_or_default(),
                format!("{}{awaited}", words::step(step)),
                step.cluster.clone(),
                words::step_state(step).to_owned(),
                words::maybe(words::between(at, step.ended.as_ref()).as_ref()),
                words::maybe(report.and_then(|report| report.driver.as_ref())),
                detail,
            ],
        ));
    }
    if let Some(at) = &report.service_restored {
        rows.push((words::instant(at), point(start, at, "service restored", &run.to)));
    }
    // Stable: what has the same time stays in the order of the plan.
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// A moment that is no step.
fn point(
    start: Option<&prost_types::Timestamp>,
    at: &prost_types::Timestamp,
    what: &str,
    cluster: &str,
) -> [String; 8] {
    let mut row: [String; 8] = Default::default();
    let cells = [words::clock(Some(at)), after(start, at), what.to_owned(), cluster.to_owned()];
    for (cell, text) in row.iter_mut().zip(cells) {
        *cell = text;
    }
    row
}

fn after(start: Option<&prost_types::Timestamp>, at: &prost_types::Timestamp) -> String {
    match (words::between(start, Some(at)), words::between(Some(at), start)) {
        (Some(later), _) => format!("+{}", words::span(&later)),
        (None, Some(earlier)) => format!("−{}", words::span(&earlier)),
        (None, None) => String::new(),
    }
}

/// Headings of [`stale_answers`].
const STALE_ANSWERS: [&str; 4] = ["Name", "Server", "Old answer seen for", "At the end"];

/// Name, server, for how long it was seen to give an old answer, and what came from it at last.
fn stale_answers(run: &wire::Run) -> Vec<[String; 4]> {
    run.steps
        .iter()
        .flat_map(|step| {
            step.report.iter().flat_map(|report| &report.stale_answers).map(|answer| {
                let end = match (answer.cleared, answer.reached) {
                    (true, _) => "gave the new answer",
                    (false, true) => "did not give the new answer",
                    (false, false) => "could not be reached",
                };
                let seen = answer.lasted.as_ref().filter(|lasted| lasted.seconds != 0 || lasted.nanos != 0);
                [step.resource.clone(), answer.server.clone(), words::maybe(seen), end.to_owned()]
            })
        })
        .collect()
}

/// Time, actor, event, detail.
fn who(report: &wire::Report) -> Vec<[String; 4]> {
    report
        .audit
        .iter()
        .map(|record| {
            [words::time(record.at.as_ref()), record.actor.clone(), record.event.clone(), record.detail.clone()]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration, Timestamp};

    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
    }

    pub(super) fn sample() -> wire::Report {
        let stale = wire::StaleAnswer {
            server: "127.0.0.1:7303".into(),
            lasted: Some(Duration { seconds: 1, nanos: 200_000_000 }),
            cleared: true,
            reached: true,
        };
        // The server of the region that was lost.
        let silent = wire::StaleAnswer { server: "127.0.0.1:7313".into(), ..wire::StaleAnswer::default() };
        let step = |id, kind: &str, resource: &str, begun, ended| wire::Step {
            id,
            kind: kind.into(),
            resource: resource.into(),
            cluster: "eu-central-1".into(),
            state: wire::StepState::Succeeded.into(),
            attempts: 1,
            started: at(begun),
            ended: at(ended),
            ..wire::Step::default()
        };
        let mut redirect = step(1, "redirect", "www", 3, 4);
        redirect.report = Some(wire::StepReport { stale_answers: vec![stale, silent], ..wire::StepReport::default() });
        let run = wire::Run {
            id: 4711,
            application: "shop".into(),
            cause: Some(wire::Cause { kind: "region-lost".into(), ..wire::Cause::default() }),
            from: "eu-west-1".into(),
            to: "eu-central-1".into(),
            epoch_before: 1,
            decision: Some(wire::Decision {
                at: at(0),
                epoch: 2,
                ground: "lost".into(),
                detail: "votes 7, 8".into(),
                ..wire::Decision::default()
            }),
            finding: Some(wire::Finding {
                reasons: vec!["2 of 3 coordinators <lost> it".into()],
                last_contact: at(-10),
                gaps: Vec::new(),
            }),
            steps: vec![step(0, "promote", "orders-db", 1, 2), redirect],
            status: wire::RunStatus::Succeeded.into(),
            started: at(0),
            ended: at(4),
            ..wire::Run::default()
        };
        wire::Report {
            run: Some(run),
            service_lost: at(-10),
            service_restored: at(4),
            rto: Some(wire::Objective {
                wanted: Some(Duration { seconds: 3600, nanos: 0 }),
                achieved: Some(Duration { seconds: 14, nanos: 0 }),
                judgement: wire::Judgement::Met.into(),
            }),
            rpo: Some(wire::Objective { judgement: wire::Judgement::Unknown.into(), ..wire::Objective::default() }),
            losses: vec![wire::Loss {
                resource: "orders-db".into(),
                sentence: "orders-db: at least 5 bytes".into(),
                ..wire::Loss::default()
            }],
            audit: vec![wire::AuditRecord {
                actor: "quorum".into(),
                event: "decided".into(),
                ..wire::AuditRecord::default()
            }],
            ..wire::Report::default()
        }
    }

    #[test]
    fn the_timeline_is_in_the_order_of_time() {
        let rows = timeline(&sample());
        let steps: Vec<(&str, &str)> = rows.iter().map(|row| (row[1].as_str(), row[2].as_str())).collect();
        assert_eq!(
            steps,
            [
                ("−10s", "last contact with the primary"),
                ("+0s", "the run began"),
                ("+0s", "decided: the point of no return"),
                ("+1s", "promote orders-db"),
                ("+3s", "redirect www"),
                ("+4s", "service restored"),
            ]
        );
    }

    #[test]
    fn an_unknown_loss_is_said_to_be_unknown() {
        let rows = objectives(&sample());
        assert_eq!(rows[0], ["RTO: time without service", "1h", "14s", "met"]);
        assert_eq!(rows[1], ["RPO: time of lost writes", "not known", "not known", "unknown"]);
    }
}
