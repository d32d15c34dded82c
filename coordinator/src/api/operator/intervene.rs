//! An operator's word against what is under way.

use regent_core::advice;
use regent_core::entry::Entry;
use regent_core::id::{ApplicationId, RunId};
use regent_core::state::State;
use regent_core::switchover::no_window;
use regent_proto::operator::v1 as wire;
use tonic::Status;

use super::{Operators, reason, request_id};
use crate::api::convert;
use crate::api::status::Fault;

impl Operators {
    /// Ends a run; the answer says where it stands then.
    pub(super) async fn abort_run(&self, asked: wire::AbortRequest, by: String) -> Result<wire::AbortResponse, Status> {
        let request = request_id(&asked.request_id)?;
        let reason = reason(&asked.reason)?;
        self.fresh(false).await?;
        self.run(asked.run, |_, _| ())?;
        let entry = Entry::Aborted { run: RunId(asked.run), by, reason };
        let index = self.propose(request, &format!("run {}", asked.run), entry).await?;
        let advice = self.run(asked.run, |state, run| convert::advice(advice::of_run(state, run)))?;
        Ok(wire::AbortResponse { index, advice: Some(advice) })
    }

    /// Where an application stands now, or everything, and what is next.
    pub(super) fn standing(&self, application: Option<&ApplicationId>) -> wire::Advice {
        let wall = self.node().wall();
        let found = self.node().replica.read(|state| {
            match application.and_then(|id| Some((id, state.applications.get(id)?))) {
                Some((id, known)) => advice::of_application(state, id, known, wall),
                None => advice::of_group(state),
            }
        });
        convert::advice(found)
    }

    /// A finished switchover stands.
    pub(super) async fn commit_switchover(
        &self,
        asked: wire::CommitRequest,
        by: String,
    ) -> Result<wire::CommitResponse, Status> {
        let request = request_id(&asked.request_id)?;
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let window = |state: &State| Some(state.applications.get(&application)?.window.as_ref()?.run);
        let open = self.node().replica.read(window);
        // A repeat finds its own answer, whatever run it names.
        let run = match open {
            Some(run) => run,
            None if self.is_repeat(&request) => RunId::default(),
            None => {
                let rule = no_window(&application);
                let subject = application.to_string();
                return Err(Fault::Refused { subject, rule: rule.code, detail: rule.detail }.into());
            }
        };
        let entry = Entry::Committed { application: application.clone(), run, by: Some(by) };
        let index = self.propose(request, application.as_str(), entry).await?;
        Ok(wire::CommitResponse { index, run: run.0 })
    }

    /// No planned move begins until it is lifted.
    pub(super) async fn hold_application(
        &self,
        asked: wire::HoldRequest,
        by: String,
    ) -> Result<wire::HoldResponse, Status> {
        let request = request_id(&asked.request_id)?;
        let reason = reason(&asked.reason)?;
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let entry = Entry::Held { application: application.clone(), by, reason };
        let index = self.propose(request, application.as_str(), entry).await?;
        Ok(wire::HoldResponse { index })
    }

    /// Planned moves may begin again.
    pub(super) async fn unhold_application(
        &self,
        asked: wire::UnholdRequest,
        by: String,
    ) -> Result<wire::UnholdResponse, Status> {
        let request = request_id(&asked.request_id)?;
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let entry = Entry::Unheld { application: application.clone(), by };
        let index = self.propose(request, application.as_str(), entry).await?;
        Ok(wire::UnholdResponse { index })
    }
}
