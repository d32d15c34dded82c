//! What speaks against moving an application: the leader's word, since it has heard all.

use regent_core::preflight::Note;
use regent_core::readiness::{self, Place};
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use tonic::Status;

use super::application::noted;
use super::{Operators, application_id, unknown_application};

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
        let id = application_id(&asked.application)?;
        let view = self.viewpoint();
        let notes = self
            .node()
            .replica
            .read(|state| self.node().see(|evidence| readiness::notes(state, evidence, view, &id)))
            .ok_or_else(|| unknown_application(&asked.application))?;
        let notes = notes.iter().map(note).collect();
        Ok(wire::ReadinessResponse { notes, view: Some(noted(self.view(), &notice)) })
    }
}

/// One note on the wire.
pub(super) fn note((place, note): &(Place, Note)) -> wire::ReadinessNote {
    let said = super::plan::note(note);
    wire::ReadinessNote {
        severity: said.severity,
        code: said.code,
        detail: said.detail,
        cluster: place.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        resource: place.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}
