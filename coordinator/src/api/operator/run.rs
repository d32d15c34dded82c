//! Runs: what is under way, what was, and an operator's word on a stuck step.

use std::pin::Pin;

use regent_core::advice;
use regent_core::entry::{Clearing, Entry};
use regent_core::id::{RunId, StepId};
use regent_core::run::Run;
use regent_core::state::State;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::run_service_server::RunService;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::switchover::{Move, Moving};
use super::{Operators, reason, report, request_id};
use crate::api::status::Fault;
use crate::api::{auth, convert};

#[tonic::async_trait]
impl RunService for Operators {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::RunServiceWatchResponse, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<wire::RunServiceListRequest>,
    ) -> Result<Response<wire::RunServiceListResponse>, Status> {
        auth::operator(&request)?;
        let asked = request.into_inner();
        self.fresh(asked.stale_ok).await?;
        let application = self.known_or_all(&asked.application)?;
        let runs = self.node().replica.read(|state| {
            let all = state.runs.values().rev();
            all.filter(|run| application.as_ref().is_none_or(|id| run.application == *id))
                .map(|run| convert::run(state, run))
                .collect()
        });
        Ok(Response::new(wire::RunServiceListResponse { runs, view: Some(self.view()) }))
    }

    async fn get(
        &self,
        request: Request<wire::RunServiceGetRequest>,
    ) -> Result<Response<wire::RunServiceGetResponse>, Status> {
        auth::operator(&request)?;
        let asked = request.into_inner();
        self.fresh(asked.stale_ok).await?;
        let run = self.run(asked.run, convert::run)?;
        Ok(Response::new(wire::RunServiceGetResponse { run: Some(run), view: Some(self.view()) }))
    }

    async fn watch(
        &self,
        request: Request<wire::RunServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        auth::operator(&request)?;
        let id = request.get_ref().run;
        self.run(id, |_, _| ())?;
        let (sender, receiver) = mpsc::channel(1);
        let operators = self.clone();
        tokio::spawn(async move { operators.follow(id, &sender).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn report(&self, request: Request<wire::ReportRequest>) -> Result<Response<wire::ReportResponse>, Status> {
        auth::operator(&request)?;
        let asked = request.into_inner();
        self.fresh(asked.stale_ok).await?;
        let wall = self.node().wall();
        let report = self
            .node()
            .replica
            .read(|state| state.runs.get(&RunId(asked.run)).map(|run| report::report(state, run, wall)));
        let report = report.ok_or_else(|| unknown(asked.run))?;
        Ok(Response::new(wire::ReportResponse { report: Some(report), view: Some(self.view()) }))
    }

    async fn preflight(
        &self,
        request: Request<wire::PreflightRequest>,
    ) -> Result<Response<wire::PreflightResponse>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != auth::Caller::Forwarded && !auth::is_forwarded(&request);
        self.preflight_switchover(request.into_inner(), pass_on).await.map(Response::new)
    }

    async fn switchover(
        &self,
        request: Request<wire::SwitchoverRequest>,
    ) -> Result<Response<wire::SwitchoverResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let wanted = Move {
            request_id: asked.request_id,
            application: asked.application,
            kind: wire::PlanKind::Switchover,
            to: asked.to,
            max_write_outage: asked.max_write_outage,
            plan: asked.plan,
        };
        let Moving { index, run, to } = self.begin_move(wanted, by).await?;
        Ok(Response::new(wire::SwitchoverResponse { index, run, to }))
    }

    async fn failback(
        &self,
        request: Request<wire::FailbackRequest>,
    ) -> Result<Response<wire::FailbackResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let wanted = Move {
            request_id: asked.request_id,
            application: asked.application,
            kind: wire::PlanKind::Failback,
            to: String::new(),
            max_write_outage: asked.max_write_outage,
            plan: asked.plan,
        };
        let Moving { index, run, to } = self.begin_move(wanted, by).await?;
        Ok(Response::new(wire::FailbackResponse { index, run, to }))
    }

    async fn rollback(
        &self,
        request: Request<wire::RollbackRequest>,
    ) -> Result<Response<wire::RollbackResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let wanted = Move {
            request_id: asked.request_id,
            application: asked.application,
            kind: wire::PlanKind::Rollback,
            to: String::new(),
            max_write_outage: asked.max_write_outage,
            plan: asked.plan,
        };
        let Moving { index, run, to } = self.begin_move(wanted, by).await?;
        Ok(Response::new(wire::RollbackResponse { index, run, to }))
    }

    async fn plan(&self, request: Request<wire::PlanRequest>) -> Result<Response<wire::PlanResponse>, Status> {
        let caller = auth::operator_or_forwarded(&request)?;
        let pass_on = caller != auth::Caller::Forwarded && !auth::is_forwarded(&request);
        self.look_at_plan(request.into_inner(), pass_on).await.map(Response::new)
    }

    async fn commit(&self, request: Request<wire::CommitRequest>) -> Result<Response<wire::CommitResponse>, Status> {
        let by = auth::operator(&request)?;
        self.commit_switchover(request.into_inner(), by).await.map(Response::new)
    }

    async fn hold(&self, request: Request<wire::HoldRequest>) -> Result<Response<wire::HoldResponse>, Status> {
        let by = auth::operator(&request)?;
        self.hold_application(request.into_inner(), by).await.map(Response::new)
    }

    async fn unhold(&self, request: Request<wire::UnholdRequest>) -> Result<Response<wire::UnholdResponse>, Status> {
        let by = auth::operator(&request)?;
        self.unhold_application(request.into_inner(), by).await.map(Response::new)
    }

    async fn failover(
        &self,
        request: Request<wire::FailoverRequest>,
    ) -> Result<Response<wire::FailoverResponse>, Status> {
        let by = auth::operator(&request)?;
        self.order_failover(request.into_inner(), by).await.map(Response::new)
    }

    async fn drill(&self, request: Request<wire::DrillRequest>) -> Result<Response<wire::DrillResponse>, Status> {
        let by = auth::operator(&request)?;
        self.begin_drill(request.into_inner(), by).await.map(Response::new)
    }

    async fn approve(&self, request: Request<wire::ApproveRequest>) -> Result<Response<wire::ApproveResponse>, Status> {
        let by = auth::operator(&request)?;
        self.say_yes(request.into_inner(), by).await.map(Response::new)
    }

    async fn clear(&self, request: Request<wire::ClearRequest>) -> Result<Response<wire::ClearResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let how = match asked.how() {
            wire::Clearing::Retry => Clearing::Retry,
            wire::Clearing::Done => Clearing::Done,
            wire::Clearing::Unspecified => {
                return Err(Fault::Field { field: "how", problem: "say CLEARING_RETRY or CLEARING_DONE".into() }.into());
            }
        };
        // That something was done by hand is a human's word, and nothing shows it but that.
        let reason = match how {
            Clearing::Retry if asked.reason.is_empty() => String::new(),
            Clearing::Retry | Clearing::Done => reason(&asked.reason)?,
        };
        self.fresh(false).await?;
        self.run(asked.run, |_, _| ())?;
        let entry = Entry::Cleared { run: RunId(asked.run), step: StepId(asked.step), how, by, reason };
        let index = self.propose(id, &format!("run {}", asked.run), entry).await?;
        let advice = self.run(asked.run, |state, run| convert::advice(advice::of_run(state, run)))?;
        Ok(Response::new(wire::ClearResponse { index, advice: Some(advice) }))
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<wire::AbortResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        self.fresh(false).await?;
        if let Some(answer) = self.take_back(&asked, &by).await {
            return answer.map(Response::new);
        }
        self.abort_run(asked, by).await.map(Response::new)
    }
}

impl Operators {
    pub(super) fn run<R>(&self, id: u64, look: impl FnOnce(&State, &Run) -> R) -> Result<R, Fault> {
        let found = self.node().replica.read(|state| state.runs.get(&RunId(id)).map(|run| look(state, run)));
        found.ok_or_else(|| unknown(id))
    }

    /// Sends the run whenever it has changed, until it has ended, the caller is gone or the process stops.
    async fn follow(&self, id: u64, sender: &mpsc::Sender<Result<wire::RunServiceWatchResponse, Status>>) {
        let mut applied = self.node().replica.applied();
        let mut last = None;
        loop {
            applied.mark_unchanged();
            let (run, ended) = match self.run(id, |state, run| (convert::run(state, run), run.status.is_final())) {
                Ok(found) => found,
                Err(fault) => {
                    let _ = sender.send(Err(fault.into())).await;
                    return;
                }
            };
            if last.as_ref() != Some(&run) {
                let answer = wire::RunServiceWatchResponse { run: Some(run.clone()), view: Some(self.view()) };
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
                last = Some(run);
            }
            if ended {
                return;
            }
            tokio::select! {
                biased;
                changed = applied.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
                () = self.parts.stop.cancelled() => return,
            }
        }
    }
}

fn unknown(run: u64) -> Fault {
    Fault::Unknown { kind: "run", name: run.to_string() }
}
