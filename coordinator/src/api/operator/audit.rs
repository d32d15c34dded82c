//! The audit: read only.

use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::audit_service_server::AuditService;
use tonic::{Request, Response, Status};

use super::{Operators, application_id};
use crate::api::{auth, convert};

/// So many records, if the caller does not say.
const DEFAULT_LIMIT: usize = 100;

#[tonic::async_trait]
impl AuditService for Operators {
    async fn list(
        &self,
        request: Request<wire::AuditServiceListRequest>,
    ) -> Result<Response<wire::AuditServiceListResponse>, Status> {
        auth::operator(&request)?;
        let asked = request.into_inner();
        let application = match asked.application.as_str() {
            "" => None,
            name => Some(application_id(name)?),
        };
        self.fresh(asked.stale_ok).await?;
        let limit = match asked.limit {
            0 => DEFAULT_LIMIT,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let mut records: Vec<wire::AuditRecord> = self.node().replica.read(|state| {
            let newest = state.audit.iter().rev().take_while(|record| record.index.0 > asked.after);
            // A name that no application has any more still has its history.
            let wanted = newest.filter(|record| application.is_none() || record.application == application);
            wanted.take(limit).map(convert::audit).collect()
        });
        records.reverse();
        Ok(Response::new(wire::AuditServiceListResponse { records, view: Some(self.view()) }))
    }
}
