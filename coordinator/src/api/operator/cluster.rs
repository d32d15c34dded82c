//! The group as a whole: what it sees, its pauses and its members.

use std::pin::Pin;
use std::time::Duration;

use regent_core::entry::Entry;
use regent_core::id::{ClusterId, CoordinatorId, InstallationId, RequestId};
use regent_core::installation;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::cluster_service_client::ClusterServiceClient;
use regent_proto::operator::v1::cluster_service_server::ClusterService;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::application::noted;
use super::{Operators, request_id, view};
use crate::api::auth::{self, Caller};
use crate::api::status::Fault;

/// How often a watched status comes, if the caller does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Not more often than this, however much changes.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);
/// How long the handing over of leadership is awaited.
const TRANSFER: Duration = Duration::from_secs(5);

impl Operators {
    /// Takes the operator's word that the registered installation is gone. Repeated with the request, it changes nothing.
    async fn replace_installation(
        &self,
        request: &RequestId,
        cluster: &ClusterId,
        installation: &str,
        by: &str,
    ) -> Result<(), Fault> {
        let installation = InstallationId(installation.to_owned());
        let now = self.node().now();
        let judged = self.node().replica.read(|state| {
            let same = state.agents.get(cluster).is_some_and(|agent| agent.installation == installation);
            let judge = |evidence: &_| installation::preflight(state, evidence, now, cluster, &installation);
            (!same).then(|| self.node().see(judge))
        });
        let Some(judged) = judged else { return Ok(()) };
        let subject = format!("the agent of {cluster}");
        if let Err(refusal) = judged {
            return Err(Fault::Refused { subject, rule: refusal.code, detail: refusal.detail });
        }
        let entry = Entry::InstallationReplaced { cluster: cluster.clone(), installation, by: by.to_owned() };
        let request = RequestId(format!("{}-installation", request.0));
        self.propose(request, &subject, entry).await.map(drop)
    }
}

type Sender = mpsc::Sender<Result<wire::ClusterServiceWatchResponse, Status>>;

#[tonic::async_trait]
impl ClusterService for Operators {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<wire::BackupResponse, Status>> + Send>>;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::ClusterServiceWatchResponse, Status>> + Send>>;

    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != Caller::Forwarded && !auth::is_forwarded(&request);
        let status = if pass_on { self.best_status().await } else { self.own_status("") };
        Ok(Response::new(wire::StatusResponse { status: Some(status) }))
    }

    async fn watch(
        &self,
        request: Request<wire::ClusterServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        auth::operator(&request)?;
        let interval = match request.get_ref().interval {
            None => DEFAULT_INTERVAL,
            Some(wanted) => Duration::try_from(wanted)
                .map_err(|_| Fault::Field { field: "interval", problem: "give a positive length of time".into() })?
                .max(SHORTEST_INTERVAL),
        };
        let (sender, receiver) = mpsc::channel(1);
        let operators = self.clone();
        tokio::spawn(async move { operators.follow_status(interval, &sender).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn pause(&self, request: Request<wire::PauseRequest>) -> Result<Response<wire::PauseResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        if asked.reason.trim().is_empty() {
            let problem = "say why automatic action is switched off; others will read it".to_owned();
            return Err(Fault::Field { field: "reason", problem }.into());
        }
        self.fresh(false).await?;
        let application = self.known_or_all(&asked.application)?;
        let entry = Entry::Paused { application: application.clone(), by, reason: asked.reason };
        let index = self.propose(id, subject(&asked.application), entry).await?;
        Ok(Response::new(wire::PauseResponse { index, advice: Some(self.standing(application.as_ref())) }))
    }

    async fn resume(&self, request: Request<wire::ResumeRequest>) -> Result<Response<wire::ResumeResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        self.fresh(false).await?;
        let application = self.known_or_all(&asked.application)?;
        let entry = Entry::Resumed { application: application.clone(), by };
        let index = self.propose(id, subject(&asked.application), entry).await?;
        Ok(Response::new(wire::ResumeResponse { index, advice: Some(self.standing(application.as_ref())) }))
    }

    async fn acknowledge(
        &self,
        request: Request<wire::AcknowledgeRequest>,
    ) -> Result<Response<wire::AcknowledgeResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        self.fresh(false).await?;
        let application = self.known_or_all(&asked.application)?;
        let entry = Entry::Acknowledged { application, by };
        let index = self.propose(id, subject(&asked.application), entry).await?;
        Ok(Response::new(wire::AcknowledgeResponse { index }))
    }

    async fn rejoin(&self, request: Request<wire::RejoinRequest>) -> Result<Response<wire::RejoinResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let cluster = ClusterId::new(&asked.cluster)
            .map_err(|error| Fault::Field { field: "cluster", problem: error.to_string() })?;
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let subject = format!("{application} in {cluster}");
        if !asked.installation.is_empty() {
            self.replace_installation(&id, &cluster, &asked.installation, &by).await?;
        }
        let entry = Entry::RejoinStarted { application, cluster, reclone: asked.reclone, by };
        let index = self.propose(id, &subject, entry).await?;
        // A run has the number of the entry that began it.
        Ok(Response::new(wire::RejoinResponse { index, run: index }))
    }

    async fn members(&self, request: Request<wire::MembersRequest>) -> Result<Response<wire::MembersResponse>, Status> {
        self.list_members(request).await
    }

    async fn add_member(
        &self,
        request: Request<wire::AddMemberRequest>,
    ) -> Result<Response<wire::AddMemberResponse>, Status> {
        self.begin_adding(request).await
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberResponse>, Status> {
        self.begin_removing(request).await
    }

    async fn backup(&self, request: Request<wire::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.make_backup(request).await
    }

    async fn set_limit(
        &self,
        request: Request<wire::SetLimitRequest>,
    ) -> Result<Response<wire::SetLimitResponse>, Status> {
        self.change_limit(request).await
    }

    async fn recover(&self, request: Request<wire::RecoverRequest>) -> Result<Response<wire::RecoverResponse>, Status> {
        self.note_recovery(request).await
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != Caller::Forwarded && !auth::is_forwarded(&request);
        let asked = request.into_inner();
        request_id(&asked.request_id)?;
        let to = CoordinatorId(asked.to);
        if !self.node().replica.read(|state| state.is_voter(to)) {
            return Err(Fault::Unknown { kind: "coordinator", name: to.to_string() }.into());
        }
        if let Caller::Operator(operator) = &caller {
            tracing::info!(operator, to = to.0, "an operator hands over leadership");
        }
        if self.leadership().leader == Some(to) {
            return Ok(Response::new(wire::TransferLeaderResponse { leader: to.0 }));
        }
        match self.elsewhere() {
            Some(leader) if pass_on => {
                let call = |channel, question| async move {
                    ClusterServiceClient::new(channel).transfer_leader(question).await
                };
                self.ask(&leader, asked, call).await.map(Response::new)
            }
            Some(_) => Err(Fault::NoQuorum { coordinator: self.node().id.0, leader: None }.into()),
            None => self.hand_over(to).await,
        }
    }
}

impl Operators {
    async fn hand_over(&self, to: CoordinatorId) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let subject = format!("coordinator {to}");
        let refused =
            |detail| Fault::Refused { subject: subject.clone(), rule: "leader-not-transferred".into(), detail };
        if !self.leadership().is_leader() {
            return Err(Fault::NoQuorum { coordinator: self.node().id.0, leader: None }.into());
        }
        self.parts.transfer.transfer(to).await.map_err(refused)?;
        let mut leadership = self.node().replica.leadership();
        match tokio::time::timeout(TRANSFER, leadership.wait_for(|now| now.leader == Some(to))).await {
            Ok(Ok(_)) => Ok(Response::new(wire::TransferLeaderResponse { leader: to.0 })),
            Ok(Err(_)) | Err(_) => {
                Err(refused(format!("coordinator {to} did not take over within {TRANSFER:?}")).into())
            }
        }
    }

    /// By the leader's evidence if it answers, else by this coordinator's own. Needs no quorum.
    async fn best_status(&self) -> wire::Status {
        let Some(leader) = self.elsewhere() else { return self.own_status("") };
        let call = |channel, question| async move { ClusterServiceClient::new(channel).status(question).await };
        match self.ask(&leader, wire::StatusRequest {}, call).await {
            Ok(wire::StatusResponse { status: Some(status) }) => status,
            Ok(wire::StatusResponse { status: None }) | Err(_) => self.own_status(&self.own_view_notice(&leader)),
        }
    }

    fn own_status(&self, notice: &str) -> wire::Status {
        let leadership = self.leadership();
        let (now, wall) = (self.node().now(), self.node().wall());
        let mut status = self
            .node()
            .replica
            .read(|state| self.node().see(|evidence| view::status(state, evidence, &leadership, now, wall)));
        status.view = Some(noted(self.view(), notice));
        status
    }

    /// Sends the status whenever something was applied, and at least every interval: evidence changes without entries.
    async fn follow_status(&self, interval: Duration, sender: &Sender) {
        let mut applied = self.node().replica.applied();
        loop {
            applied.mark_unchanged();
            let began = Instant::now();
            let answer = wire::ClusterServiceWatchResponse { status: Some(self.best_status().await) };
            if sender.send(Ok(answer)).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                () = sleep_until(began + interval) => {}
                changed = applied.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
                () = self.parts.stop.cancelled() => return,
            }
            tokio::select! {
                biased;
                () = sleep_until(began + SHORTEST_INTERVAL) => {}
                () = sender.closed() => return,
                () = self.parts.stop.cancelled() => return,
            }
        }
    }
}

const fn subject(application: &str) -> &str {
    if application.is_empty() { "everything" } else { application }
}
