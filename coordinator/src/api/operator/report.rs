//! What a run achieved: time without service and lost writes against the objectives, with their uncertainty.

use regent_core::application::{Action, Application};
use regent_core::entry::{Cause, Gap, Ground};
use regent_core::id::ResourceId;
use regent_core::run::{Run, RunStatus, StepKind, StepState};
use regent_core::state::State;
use regent_core::time::{Span, Timestamp};
use regent_proto::operator::v1 as wire;

use super::drill;
use super::view::objectives;
use crate::api::convert::{self, span, time};

const LONGEST_HEARTBEAT: Span = Span::from_secs(1);

/// The report of one run, as of now.
pub(super) fn report(state: &State, run: &Run, wall: Timestamp) -> wire::Report {
    let document = state.applications.get(&run.application).map(|known| &known.document);
    // A run that moves no primary takes no service away and loses nothing.
    let lost = service_lost(run);
    let restored = lost.and_then(|_| service_restored(run));
    let measured = document.filter(|_| run.cause.moves_primary());
    let drilled = document.filter(|_| run.is_drill());
    let rehearsed = || drilled.map(|document| drill::rto(document, run));
    let gaps = || run.finding.gaps.iter().filter(|_| !run.is_drill());
    let losses: Vec<wire::Loss> =
        gaps().map(|(resource, gap)| loss(run, resource, gap, on_its_way(document))).collect();
    wire::Report {
        run: Some(convert::run(state, run)),
        objectives: document.map(objectives),
        service_lost: lost.map(time),
        service_restored: restored.map(time),
        rto: measured
            .zip(lost)
            .map(|(document, lost)| rto(document.objectives.rto, lost, restored, wall))
            .or_else(rehearsed),
        rpo: measured.or(drilled).map(|document| rpo(document.objectives.rpo, run)),
        losses,
        remarks: drilled.map(|document| drill::remarks(document, run)).unwrap_or_default(),
        audit: state.audit.iter().filter(|record| record.run == Some(run.id)).map(convert::audit).collect(),
    }
}

/// When the old side was last known to serve: a lost region is silent before its run begins.
fn service_lost(run: &Run) -> Option<Timestamp> {
    match run.cause {
        Cause::RegionLost | Cause::Forced { .. } => {
            Some(run.finding.last_contact.unwrap_or(run.started).min(run.started))
        }
        Cause::ResourceFailed { .. } | Cause::AgentUnreachable | Cause::SelfFenced => Some(run.started),
        // A healthy side serves until it is told to stop.
        Cause::Switchover { .. } => Some(run.kept_out_since().unwrap_or(run.started)),
        Cause::Rejoin { .. } | Cause::Recovered | Cause::Drill { .. } => None,
    }
}

/// When the last step had ended that the service needs. Bringing the old side back is not one of them.
fn service_restored(run: &Run) -> Option<Timestamp> {
    match run.status {
        RunStatus::Undone => run.ended,
        // Of one that was aborted only the following was left.
        RunStatus::Succeeded | RunStatus::Aborted => {
            let needed = run.walk().filter(|(step, progress)| {
                !step.detached
                    && step.kind != StepKind::Action(Action::Rejoin)
                    && step.kind != StepKind::Unfence
                    && progress.state == StepState::Succeeded
            });
            needed.filter_map(|(_, progress)| progress.ended).max().or(run.ended)
        }
        RunStatus::Running | RunStatus::Undoing | RunStatus::Stuck | RunStatus::Superseded | RunStatus::Failed => None,
    }
}

fn rto(wanted: Span, lost: Timestamp, restored: Option<Timestamp>, wall: Timestamp) -> wire::Objective {
    let achieved = restored.map(|restored| restored.since(lost));
    let judgement = match achieved {
        Some(achieved) if achieved <= wanted => wire::Judgement::Met,
        Some(_) => wire::Judgement::Missed,
        None if wall.since(lost) > wanted => wire::Judgement::Missed,
        None => wire::Judgement::Unknown,
    };
    wire::Objective { wanted: Some(span(wanted)), achieved: achieved.map(span), judgement: judgement.into() }
}

fn rpo(wanted: Span, run: &Run) -> wire::Objective {
    let achieved = if run.finding.gaps.keys().any(|resource| from_backup(run, resource).is_some()) {
        None
    } else if switched(run) {
        Some(Span::ZERO)
    } else if run.finding.gaps.is_empty() {
        None
    } else {
        run.finding.gaps.values().map(|gap| gap.lag).try_fold(Span::ZERO, |most, lag| lag.map(|lag| most.max(lag)))
    };
    let judgement = match achieved {
        Some(achieved) if achieved <= wanted => wire::Judgement::Met,
        Some(_) => wire::Judgement::Missed,
        None => wire::Judgement::Unknown,
    };
    wire::Objective { wanted: Some(span(wanted)), achieved: achieved.map(span), judgement: judgement.into() }
}

/// What the step said that brought a resource of the new side back from a backup.
fn from_backup<'r>(run: &'r Run, resource: &ResourceId) -> Option<&'r str> {
    let mut done = run.walk().filter(|(_, progress)| progress.state == StepState::Succeeded);
    let found = done.find(|(step, _)| {
        step.kind == StepKind::Action(Action::Restore)
            && step.cluster == run.to
            && step.resource.as_ref() == Some(resource)
    });
    found.map(|(_, progress)| progress.report.as_ref().map_or("", |report| report.message.as_str()))
}

/// A switchover is decided only after the new side has everything.
fn switched(run: &Run) -> bool {
    matches!(run.decided.as_ref().map(|decided| &decided.ground), Some(Ground::Switched { .. }))
}

/// A report was made so long before it was heard, at most: a longer way is a silent stream, which is dropped.
fn on_its_way(document: Option<&Application>) -> Span {
    document.map_or(LONGEST_HEARTBEAT, |document| document.automation.bound.heartbeat())
}

fn loss(run: &Run, resource: &ResourceId, gap: &Gap, on_its_way: Span) -> wire::Loss {
    // Where the standby stood says nothing of what a backup has.
    if let Some(how) = from_backup(run, resource) {
        let sentence = format!(
            "{resource}: what was acknowledged after its backup was made is not there, and how much that is, is not known; {how}"
        );
        return wire::Loss { resource: resource.to_string(), sentence, ..wire::Loss::default() };
    }
    let bytes =
        if switched(run) { Some(0) } else { gap.primary.zip(gap.candidate).map(|(old, new)| old.saturating_sub(new)) };
    let known_age = gap.primary_age.filter(|_| bytes == Some(0) && !switched(run)).map(|age| age.plus(on_its_way));
    let decided = run.decided.as_ref().map_or(run.started, |decided| decided.at);
    let complete_until = known_age.map(|age| Timestamp(decided.0 - i64::try_from(age.millis()).unwrap_or(i64::MAX)));
    let seen =
        gap.primary_age.map_or_else(|| "at an unknown time".to_owned(), |age| format!("{age} before the decision"));
    let sentence = if switched(run) {
        format!("{resource}: nothing was lost; the new primary had everything before it was promoted")
    } else {
        match bytes {
            Some(0) => format!(
                "{resource}: the new primary had everything that the old one acknowledged until {} before the decision; what \
                 it acknowledged after that, until it stopped, may be missing",
                known_age.map_or_else(|| "an unknown time".to_owned(), |age| age.to_string())
            ),
            Some(bytes) => format!(
                "{resource}: at least {bytes} bytes that the old primary reported, {seen}, had not reached the new one"
            ),
            None => format!("{resource}: how much was lost is not known; a position is missing"),
        }
    };
    let complete_until = complete_until.map(time);
    wire::Loss { resource: resource.to_string(), bytes, lag: gap.lag.map(span), sentence, complete_until }
}

#[cfg(test)]
mod tests {
    use regent_core::application::OnFailure;
    use regent_core::id::{ApplicationId, ClusterId, Epoch, RunId, StepId};
    use regent_core::run::{Opening, Progress, Step};

    use super::*;

    fn run(gap: Gap) -> Run {
        let cluster = |name| ClusterId::new(name).unwrap();
        let mut opening = Opening {
            application: ApplicationId::new("shop").unwrap(),
            cause: Cause::RegionLost,
            from: cluster("eu-west-1"),
            to: cluster("eu-central-1"),
            epoch: Epoch(1),
            finding: regent_core::entry::Finding::default(),
            at: Timestamp(60_000),
        };
        opening.finding.last_contact = Some(Timestamp(50_000));
        opening.finding.gaps.insert(ResourceId::new("orders-db").unwrap(), gap);
        Run::begin(RunId(7), Vec::new(), opening)
    }

    fn gap(primary: Option<u64>, candidate: Option<u64>, lag: Option<u64>) -> Gap {
        Gap {
            primary,
            primary_age: Some(Span::from_secs(11)),
            candidate,
            lag: lag.map(Span::from_millis),
            text: String::new(),
        }
    }

    #[test]
    fn what_a_backup_lacks_is_no_known_loss() {
        let even = run(gap(Some(4_096), Some(4_096), Some(0)));
        let (resource, distance) = even.finding.gaps.first_key_value().unwrap();
        let mut restored = even.clone();
        restored.steps = vec![Step {
            id: StepId(0),
            stage: 0,
            after: Vec::new(),
            kind: StepKind::Action(Action::Restore),
            resource: Some(resource.clone()),
            cluster: even.to.clone(),
            timeout: Span::ZERO,
            retries: 0,
            on_failure: OnFailure::Stuck,
            detached: false,
            command: String::new(),
            duration: Span::ZERO,
            question: String::new(),
        }];
        restored.progress = vec![Progress::default()];
        assert_eq!(loss(&restored, resource, distance, LONGEST_HEARTBEAT).bytes, Some(0), "it was not done");
        restored.progress[0].state = StepState::Succeeded;
        let found = loss(&restored, resource, distance, LONGEST_HEARTBEAT);
        assert_eq!((found.bytes, found.complete_until), (None, None));
        assert!(found.sentence.contains("backup"), "{}", found.sentence);
        assert_eq!(rpo(Span::from_secs(1), &restored).judgement(), wire::Judgement::Unknown);
    }

    #[test]
    fn time_without_service_counts_from_the_last_contact() {
        let mut run = run(gap(Some(10), Some(10), Some(0)));
        let lost = service_lost(&run).unwrap();
        assert_eq!(lost, Timestamp(50_000));
        assert_eq!(service_restored(&run), None);
        run.status = RunStatus::Succeeded;
        run.ended = Some(Timestamp(63_000));
        let objective = rto(Span::from_secs(12), lost, service_restored(&run), Timestamp(99_000));
        assert_eq!(objective.achieved, Some(span(Span::from_secs(13))));
        assert_eq!(objective.judgement(), wire::Judgement::Missed);
    }

    #[test]
    fn a_switchover_takes_service_away_by_whatever_stops_first() {
        let mut switched = run(gap(Some(10), Some(10), Some(0)));
        let purpose = regent_core::switchover::Purpose::Switchover;
        switched.cause = Cause::Switchover { by: "ann".to_owned(), max_write_outage: Span::from_secs(30), purpose };
        let step = |kind: Action| Step {
            id: StepId(0),
            stage: 0,
            after: Vec::new(),
            kind: StepKind::Action(kind),
            resource: Some(ResourceId::new("orders").unwrap()),
            cluster: ClusterId::new("eu-west-1").unwrap(),
            timeout: Span::ZERO,
            retries: 0,
            on_failure: OnFailure::Stuck,
            detached: false,
            command: String::new(),
            duration: Span::ZERO,
            question: String::new(),
        };
        switched.steps = vec![step(Action::Wait), step(Action::Deactivate), step(Action::Fence)];
        let began = |at| Progress { started: Some(Timestamp(at)), ..Progress::default() };
        switched.progress = vec![began(61_000), began(66_000), began(96_000)];
        assert_eq!(service_lost(&switched), Some(Timestamp(66_000)), "not from the fence, half a minute later");
    }

    #[test]
    fn a_run_that_goes_on_has_missed_its_objective_once_the_time_is_over() {
        let judged = |wall| rto(Span::from_secs(20), Timestamp(0), None, Timestamp(wall)).judgement();
        assert_eq!(judged(19_000), wire::Judgement::Unknown);
        assert_eq!(judged(21_000), wire::Judgement::Missed);
    }

    #[test]
    fn an_unknown_position_is_an_unknown_loss() {
        let known = run(gap(Some(4_096), Some(1_024), Some(200)));
        let (resource, distance) = known.finding.gaps.first_key_value().unwrap();
        let found = loss(&known, resource, distance, LONGEST_HEARTBEAT);
        assert_eq!(found.bytes, Some(3_072));
        assert!(found.sentence.contains("at least 3072 bytes"), "{}", found.sentence);
        assert_eq!(rpo(Span::from_secs(1), &known).judgement(), wire::Judgement::Met);

        assert_eq!(found.complete_until, None);

        // As far as is known: what was reported 11 s before the decision, and was under way for up to a heartbeat.
        let even = run(gap(Some(4_096), Some(4_096), Some(0)));
        let (resource, distance) = even.finding.gaps.first_key_value().unwrap();
        let found = loss(&even, resource, distance, LONGEST_HEARTBEAT);
        assert_eq!(found.complete_until, Some(time(Timestamp(48_000))));
        assert!(found.sentence.contains("until 12s before the decision"), "{}", found.sentence);

        let unknown = run(gap(Some(4_096), None, None));
        let (resource, distance) = unknown.finding.gaps.first_key_value().unwrap();
        assert_eq!(loss(&unknown, resource, distance, LONGEST_HEARTBEAT).bytes, None);
        assert_eq!(rpo(Span::from_secs(1), &unknown).judgement(), wire::Judgement::Unknown);
    }
}
