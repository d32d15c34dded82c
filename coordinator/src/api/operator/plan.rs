//! What would be done: looked at by the leader, since only it has heard all.

use regent_core::plan::{Asked, Estimate, Shown, show_failover, show_ordered, show_switchover};
use regent_core::preflight::{Note, Severity};
use regent_core::run::UNDO_STAGE;
use regent_core::state::{ApplicationState, Wish};
use regent_core::switchover::{Purpose, no_window};
use regent_core::verdict::Scene;
use regent_core::why::Rule;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::run_service_client::RunServiceClient;
use tonic::Status;

use super::switchover::{outage, wish};
use super::{Operators, application_id, unknown_application};
use crate::api::convert::{cause_kind, span, step_kind};
use crate::api::status::Fault;

impl Operators {
    /// Changes nothing.
    pub(super) async fn look_at_plan(
        &self,
        asked: wire::PlanRequest,
        pass_on: bool,
    ) -> Result<wire::PlanResponse, Status> {
        let id = application_id(&asked.application)?;
        let wish = wish("to", &asked.to)?;
        let max_write_outage = outage(asked.max_write_outage.as_ref())?;
        if pass_on && let Some(leader) = self.elsewhere() {
            let call = |channel, question| async move { RunServiceClient::new(channel).plan(question).await };
            match self.ask(&leader, asked.clone(), call).await {
                Ok(answer) => return Ok(answer),
                Err(status) if status.code() == tonic::Code::NotFound => return Err(status),
                Err(error) => tracing::debug!(%error, "the leader did not answer; this coordinator looks itself"),
            }
        }
        self.fresh(false).await?;
        let (view, kind) = (self.viewpoint(), asked.kind());
        let refused = |rule: Rule| Fault::Refused { subject: id.to_string(), rule: rule.code, detail: rule.detail };
        let shown = self.node().replica.read(|state| {
            self.node().see(|evidence| {
                let known = state.applications.get(&id).ok_or_else(|| unknown_application(&asked.application))?;
                let not_adopted = || Fault::Refused {
                    subject: id.to_string(),
                    rule: "not-adopted".to_owned(),
                    detail: "no primary is known yet".to_owned(),
                };
                let scene = Scene::new(state, evidence, view.now, view.me, &id).ok_or_else(not_adopted)?;
                if kind == wire::PlanKind::Failover {
                    return Ok(show_failover(&scene, view));
                }
                if kind == wire::PlanKind::OrderedFailover {
                    let to = wish.clone().ok_or(Fault::Field { field: "to", problem: "name a cluster".to_owned() })?;
                    let permission = |given: bool| given.then(|| "asked for a plan".to_owned());
                    let wish = Wish {
                        by: "an operator".to_owned(),
                        to,
                        reason: String::new(),
                        allow_data_loss: permission(asked.allow_data_loss),
                        attestation: permission(asked.attest_primary_off),
                    };
                    return Ok(show_ordered(&scene, view, &wish));
                }
                if kind == wire::PlanKind::Rollback && known.window.is_none() {
                    return Err(refused(no_window(&id)));
                }
                let purpose = purpose(kind, known);
                let asked = Asked { by: "", purpose, to: wish.as_ref(), max_write_outage };
                Ok(show_switchover(&scene, view, &asked))
            })
        })?;
        Ok(wire::PlanResponse { plan: Some(plan(&shown)), view: Some(self.view()) })
    }
}

/// What a planned move is for. Without an open window a rollback names no run, and is refused.
pub(super) fn purpose(kind: wire::PlanKind, known: &ApplicationState) -> Purpose {
    match kind {
        wire::PlanKind::Unspecified
        | wire::PlanKind::Switchover
        | wire::PlanKind::Failover
        | wire::PlanKind::OrderedFailover => Purpose::Switchover,
        wire::PlanKind::Failback => Purpose::Failback,
        wire::PlanKind::Rollback => {
            let of = known.window.as_ref().map(|window| window.run).unwrap_or_default();
            Purpose::Rollback { of }
        }
    }
}

fn plan(shown: &Shown) -> wire::Plan {
    let steps = shown.steps.iter().map(|step| {
        let expected = shown.forecast.steps.get(&step.id);
        wire::PlannedStep {
            id: step.id.0,
            stage: step.stage,
            after: step.after.iter().map(|before| before.0).collect(),
            kind: step_kind(step).to_owned(),
            resource: step.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
            cluster: step.cluster.to_string(),
            timeout: Some(span(step.timeout)),
            retries: step.retries,
            on_failure: step.on_failure.as_str().to_owned(),
            detached: step.detached,
            command: step.command.clone(),
            question: step.question.clone(),
            undo: step.stage == UNDO_STAGE,
            expected: expected.map(|(took, _)| span(*took)),
            samples: expected.map_or(0, |(_, samples)| u32::try_from(*samples).unwrap_or(u32::MAX)),
        }
    });
    wire::Plan {
        application: shown.application.to_string(),
        epoch: shown.epoch.0,
        kind: cause_kind(&shown.cause).to_owned(),
        from: shown.from.to_string(),
        to: shown.to.as_ref().map(ToString::to_string).unwrap_or_default(),
        digest: shown.name().map(|name| name.to_string()).unwrap_or_default(),
        steps: steps.collect(),
        notes: shown.notes.iter().map(note).collect(),
        expected_loss: shown.expected_loss.clone(),
        total: Some(expected(shown.forecast.total)),
        outage: Some(expected(shown.forecast.outage)),
        detection: shown.detection.map(span),
        since_contact: shown.detection.map(|_| expected(shown.outage())),
    }
}

pub(in crate::api) fn expected(estimate: Estimate) -> wire::Expected {
    let unknown = u32::try_from(estimate.unknown).unwrap_or(u32::MAX);
    wire::Expected { span: Some(span(estimate.span)), unknown }
}

pub(in crate::api) fn note(note: &Note) -> wire::Note {
    let severity = match note.severity {
        Severity::Blocker => wire::Severity::Blocker,
        Severity::Warning => wire::Severity::Warning,
        Severity::Info => wire::Severity::Info,
    };
    wire::Note { severity: severity.into(), code: note.code.clone(), detail: note.detail.clone() }
}
