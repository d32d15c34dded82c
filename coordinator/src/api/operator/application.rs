//! Documents, and why a failover would or would not start.

use std::pin::Pin;

use regent_core::application::{Application, json_schema, parse, to_yaml};
use regent_core::decide::Viewpoint;
use regent_core::entry::{Entry, FORMAT, Record};
use regent_core::measured;
use regent_core::state::{Applied, State};
use regent_core::time::Span;
use regent_core::why;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use regent_proto::operator::v1::application_service_server::ApplicationService;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::sight::Look;
use super::{Operators, application_id, document, request_id, unknown_application, view};
use crate::api::auth::{self, Caller};
use crate::api::convert;
use crate::api::status::{Fault, NO_EFFECT, outcome};

#[tonic::async_trait]
impl ApplicationService for Operators {
    type LookAnewStream = Pin<Box<dyn Stream<Item = Result<wire::LookAnewResponse, Status>> + Send>>;

    async fn apply(&self, request: Request<wire::ApplyRequest>) -> Result<Response<wire::ApplyResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let application = parse(&asked.document).map_err(Fault::Document)?;
        let answer = if asked.dry_run {
            self.fresh(false).await?;
            self.preview(application, by)?
        } else {
            self.accept(request_id(&asked.request_id)?, application, by).await?
        };
        Ok(Response::new(answer))
    }

    async fn get(
        &self,
        request: Request<wire::ApplicationServiceGetRequest>,
    ) -> Result<Response<wire::ApplicationServiceGetResponse>, Status> {
        auth::operator(&request)?;
        let asked = request.into_inner();
        self.fresh(asked.stale_ok).await?;
        let id = application_id(&asked.application)?;
        let (me, now, wall) = (self.node().id, self.node().now(), self.node().wall());
        let found = self.node().replica.read(|state| {
            self.node().see(|evidence| {
                let known = state.applications.get(&id)?;
                let look = Look { me, state, evidence, now, wall };
                Some((view::application(&look, &id, known), to_yaml(&known.document)))
            })
        });
        let (application, document) = found.ok_or_else(|| unknown_application(&asked.application))?;
        Ok(Response::new(wire::ApplicationServiceGetResponse {
            application: Some(application),
            document,
            view: Some(self.view()),
        }))
    }

    async fn list(
        &self,
        request: Request<wire::ApplicationServiceListRequest>,
    ) -> Result<Response<wire::ApplicationServiceListResponse>, Status> {
        auth::operator(&request)?;
        self.fresh(request.get_ref().stale_ok).await?;
        let (me, now, wall) = (self.node().id, self.node().now(), self.node().wall());
        let applications = self.node().replica.read(|state| {
            self.node().see(|evidence| {
                let look = Look { me, state, evidence, now, wall };
                state.applications.iter().map(|(id, known)| view::application(&look, id, known)).collect()
            })
        });
        Ok(Response::new(wire::ApplicationServiceListResponse { applications, view: Some(self.view()) }))
    }

    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Result<Response<wire::ExplainResponse>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != Caller::Forwarded && !auth::is_forwarded(&request);
        let asked = request.into_inner();
        let mut notice = String::new();
        if pass_on && let Some(leader) = self.elsewhere() {
            let call =
                |channel, question| async move { ApplicationServiceClient::new(channel).explain(question).await };
            match self.ask(&leader, asked.clone(), call).await {
                Ok(answer) => return Ok(Response::new(answer)),
                // The leader knows the application or it does not; its word is better than a follower's.
                Err(status) if status.code() == tonic::Code::NotFound => return Err(status),
                Err(_) => notice = self.own_view_notice(&leader),
            }
        }
        let id = application_id(&asked.application)?;
        let viewpoint = Viewpoint { me: self.node().id, now: self.node().now(), wall: self.node().wall() };
        let explained = self
            .node()
            .replica
            .read(|state| self.node().see(|evidence| why::explain(state, evidence, viewpoint, &id)))
            .ok_or_else(|| unknown_application(&asked.application))?;
        let explanation = Some(convert::explanation(&explained));
        Ok(Response::new(wire::ExplainResponse { explanation, view: Some(noted(self.view(), &notice)) }))
    }

    async fn readiness(
        &self,
        request: Request<wire::ReadinessRequest>,
    ) -> Result<Response<wire::ReadinessResponse>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != Caller::Forwarded && !auth::is_forwarded(&request);
        self.look_at_readiness(request.into_inner(), pass_on).await.map(Response::new)
    }

    async fn look_anew(
        &self,
        request: Request<wire::LookAnewRequest>,
    ) -> Result<Response<Self::LookAnewStream>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != Caller::Forwarded && !auth::is_forwarded(&request);
        let application = request.into_inner().application;
        let (sender, receiver) = mpsc::channel(1);
        let operators = self.clone();
        tokio::spawn(async move { operators.follow_looks(&application, pass_on, &sender).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn validate(
        &self,
        request: Request<wire::ValidateRequest>,
    ) -> Result<Response<wire::ValidateResponse>, Status> {
        auth::operator(&request)?;
        let text = &request.get_ref().document;
        let answer = match parse(text) {
            Ok(application) => {
                wire::ValidateResponse { application: application.name.to_string(), mistakes: Vec::new() }
            }
            Err(mistakes) => wire::ValidateResponse {
                application: String::new(),
                mistakes: mistakes
                    .into_iter()
                    .map(|mistake| wire::Mistake {
                        path: mistake.path,
                        line: mistake.line,
                        column: mistake.column,
                        message: mistake.message,
                    })
                    .collect(),
            },
        };
        Ok(Response::new(answer))
    }

    async fn schema(&self, request: Request<wire::SchemaRequest>) -> Result<Response<wire::SchemaResponse>, Status> {
        auth::operator(&request)?;
        Ok(Response::new(wire::SchemaResponse { json_schema: json_schema().to_string() }))
    }
}

impl Operators {
    /// Asks the state machine itself what it would do, on a copy.
    fn preview(&self, application: Application, by: String) -> Result<wire::ApplyResponse, Fault> {
        let name = application.name.clone();
        self.suits_what_was_measured(&application)?;
        let mut copy = self.node().replica.read(Clone::clone);
        let before = copy.applications.get(&name).map(|known| known.document.clone());
        let changes = document::changes(before.as_ref(), &application);
        let entry = Entry::Applied { application: Box::new(application), by };
        let record = Record { format: FORMAT, at: self.node().wall(), request: None, entry };
        let (applied, _) = copy.apply(copy.applied.next(), &record);
        if !matches!(applied, Applied::Ignored(_)) {
            outcome(applied, name.as_str())?;
        }
        let revision = copy.applications.get(&name).map_or(0, |known| known.revision.0);
        Ok(wire::ApplyResponse {
            application: name.to_string(),
            index: 0,
            revision,
            created: before.is_none(),
            changes,
        })
    }

    /// The time bound against the fences that are on record and the ways to the agents as this coordinator knows them.
    fn suits_what_was_measured(&self, application: &Application) -> Result<(), Fault> {
        let round_trips = self.node().see(|evidence| {
            let contacts = evidence.contacts.iter();
            contacts.filter_map(|(cluster, contact)| Some((cluster.clone(), contact.round_trip?))).collect()
        });
        let millis = |heartbeat: std::time::Duration| u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
        let raft_heartbeat = self.leadership().heartbeat.map(|heartbeat| Span::from_millis(millis(heartbeat)));
        let checked = self.node().replica.read(|state| {
            measured::check(state, application, &round_trips)?;
            raft_heartbeat.map_or(Ok(()), |heartbeat| measured::check_replication(state, application, heartbeat))
        });
        let subject = application.name.to_string();
        checked.map_err(|rule| Fault::Refused { subject, rule: rule.code, detail: rule.detail })
    }

    async fn accept(
        &self,
        request: regent_core::id::RequestId,
        application: Application,
        by: String,
    ) -> Result<wire::ApplyResponse, Fault> {
        // Read where it is current: what it changes is told from the document that was there before.
        self.fresh(false).await?;
        let name = application.name.clone();
        let (before, repeated) = self.node().replica.read(|state| {
            let before = state.applications.get(&name).map(|known| known.document.clone());
            (before, state.requests.iter().any(|(id, _)| *id == request))
        });
        if !repeated {
            self.suits_what_was_measured(&application)?;
        }
        // A repeat finds its own work: it has the same index, and what it changed can no longer be told.
        let changes = if repeated { Vec::new() } else { document::changes(before.as_ref(), &application) };
        let unchanged = before.as_ref() == Some(&application);
        let entry = Entry::Applied { application: Box::new(application), by };
        let index = match self.propose(request, name.as_str(), entry).await {
            Ok(index) => index,
            // An unchanged document is as good as applied.
            Err(Fault::Refused { rule, .. }) if rule == NO_EFFECT && unchanged => 0,
            Err(fault) => return Err(fault),
        };
        let known = |state: &State| state.applications.get(&name).map_or(0, |known| known.revision.0);
        let revision = self.node().replica.read(known);
        let created = if repeated { revision == 1 && index != 0 } else { before.is_none() };
        Ok(wire::ApplyResponse { application: name.to_string(), index, revision, created, changes })
    }
}

/// Puts a notice before the one that a view has.
pub(super) fn noted(mut view: wire::View, notice: &str) -> wire::View {
    if !notice.is_empty() {
        view.notice = if view.notice.is_empty() { notice.to_owned() } else { format!("{notice}; {}", view.notice) };
    }
    view
}
