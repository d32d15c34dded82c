//! An operator's word against what is under way.

use regent_core::advice;
use regent_core::entry::Entry;
use regent_core::id::RunId;
use regent_proto::operator::v1 as wire;
use tonic::Status;

use super::{Operators, reason, request_id};
use crate::api::convert;

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
}
