//! What speaks against moving an application: the leader's word, since it has heard all.

use regent_core::decide::Viewpoint;
use regent_core::evidence::Evidence;
use regent_core::id::ApplicationId;
use regent_core::preflight::Note;
use regent_core::readiness::{self, Place};
use regent_core::state::State;
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use tonic::Status;

use super::application::noted;
use super::{Operators, application_id, unknown_application};
use crate::api::convert::span;
use crate::api::status::Fault;

impl Operators {
    pub(super) async fn look_at_readiness(
        &self,
        asked: wire::ReadinessRequest,
        pass_on: bool,
    ) -> Result<wire::ReadinessResponse, Status> {
        let mut notice = String::new();
        if pass_on && let Some(leader) = self.elsewhere() {
            let call =
                |channel, question| async move { ApplicationServiceClient::new(channel).readiness(question).await };
            match self.ask(&leader, asked.clone(), call).await {
                Ok(answer) => return Ok(answer),
                Err(status) if status.code() == tonic::Code::NotFound => return Err(status),
                Err(_) => notice = self.own_view_notice(&leader),
            }
        }
        self.own_readiness(&asked.application, &notice).map_err(Status::from)
    }

    /// By what this coordinator knows itself.
    pub(super) fn own_readiness(&self, application: &str, notice: &str) -> Result<wire::ReadinessResponse, Fault> {
        let id = application_id(application)?;
        let view = self.viewpoint();
        let notes = self
            .node()
            .replica
            .read(|state| self.node().see(|evidence| noted_of(state, evidence, view, &id)))
            .ok_or_else(|| unknown_application(application))?;
        Ok(wire::ReadinessResponse { notes, view: Some(noted(self.view(), notice)), looks: Vec::new() })
    }
}

/// Every note on an application; none if it does not exist.
pub(super) fn noted_of(
    state: &State,
    evidence: &Evidence,
    view: Viewpoint,
    id: &ApplicationId,
) -> Option<Vec<wire::ReadinessNote>> {
    let notes = readiness::notes(state, evidence, view, id)?;
    let noted = notes.iter().map(|(place, told)| {
        let age = readiness::age(state, evidence, view, id, place, &told.code);
        note(place, told, age)
    });
    Some(noted.collect())
}

fn note(place: &Place, note: &Note, age: Option<Span>) -> wire::ReadinessNote {
    let said = super::plan::note(note);
    wire::ReadinessNote {
        severity: said.severity,
        code: said.code,
        detail: said.detail,
        cluster: place.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        resource: place.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
        age: age.map(span),
    }
}
