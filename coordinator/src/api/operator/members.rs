//! The members of the group, and changes of them.

use regent_core::entry::Entry;
use regent_core::id::{CoordinatorId, RequestId};
use regent_core::members::{self, MemberChange};
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::cluster_service_client::ClusterServiceClient;
use tonic::{Request, Response, Status};

use super::{Operators, request_id, view};
use crate::api::auth::{self, Caller};
use crate::api::convert;
use crate::api::status::Fault;

impl Operators {
    /// By the leader if a change is under way: it knows what that waits for.
    pub(super) async fn list_members(
        &self,
        request: Request<wire::MembersRequest>,
    ) -> Result<Response<wire::MembersResponse>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != Caller::Forwarded && !auth::is_forwarded(&request);
        let asked = request.into_inner();
        self.fresh(asked.stale_ok).await?;
        let changing = self.node().replica.read(|state| state.changing.is_some());
        if let Some(leader) = self.elsewhere().filter(|_| pass_on && changing && !asked.stale_ok) {
            let call = |channel, question| async move { ClusterServiceClient::new(channel).members(question).await };
            if let Ok(answer) = self.ask(&leader, asked, call).await {
                return Ok(Response::new(answer));
            }
        }
        Ok(Response::new(self.own_members()))
    }

    fn own_members(&self) -> wire::MembersResponse {
        let leadership = self.leadership();
        let awaits = self.parts.awaited.rule();
        self.node().replica.read(|state| wire::MembersResponse {
            coordinators: view::coordinators(state, &leadership),
            view: Some(self.view()),
            changing: state.changing.as_ref().map(|change| wire::MemberChange {
                id: change.id().0,
                address: match change {
                    MemberChange::Add { address, .. } => address.clone(),
                    MemberChange::Remove { .. } => String::new(),
                },
                awaits: awaits.as_ref().map(convert::rule),
            }),
            unconfirmed: members::unconfirmed(state).map(ToString::to_string).collect(),
        })
    }

    pub(super) async fn begin_adding(
        &self,
        request: Request<wire::AddMemberRequest>,
    ) -> Result<Response<wire::AddMemberResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let request = request_id(&asked.request_id)?;
        let good = asked.address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && asked.address.len() <= 255 && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !good {
            let problem = "write the host:port by which the others reach the new coordinator's gRPC server".to_owned();
            return Err(Fault::Field { field: "address", problem }.into());
        }
        let change = MemberChange::Add { id: member(asked.id)?, address: asked.address };
        let index = self.begin_change(request, change, by, asked.override_reason).await?;
        Ok(Response::new(wire::AddMemberResponse { index }))
    }

    pub(super) async fn begin_removing(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let request = request_id(&asked.request_id)?;
        let change = MemberChange::Remove { id: member(asked.id)? };
        let index = self.begin_change(request, change, by, asked.override_reason).await?;
        Ok(Response::new(wire::RemoveMemberResponse { index }))
    }

    async fn begin_change(
        &self,
        request: RequestId,
        change: MemberChange,
        by: String,
        reason: String,
    ) -> Result<u64, Status> {
        self.fresh(false).await?;
        let subject = format!("coordinator {}", change.id());
        let overridden = Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty());
        Ok(self.propose(request, &subject, Entry::MemberChange { change, by, overridden }).await?)
    }
}

fn member(id: u64) -> Result<CoordinatorId, Fault> {
    match id {
        0 => Err(Fault::Field { field: "id", problem: "ids of coordinators begin at 1".to_owned() }),
        id => Ok(CoordinatorId(id)),
    }
}
