//! Backups of the group, and what humans say after one was restored.

use regent_core::entry::Entry;
use regent_core::id::ClusterId;
use regent_core::state::State;
use regent_proto::operator::v1 as wire;
use tonic::{Request, Response, Status};

use super::{Operators, request_id};
use crate::api::auth;
use crate::api::status::Fault;
use crate::backup;

/// So much goes into one message.
const CHUNK: usize = 256 << 10;

type Backup = <Operators as wire::cluster_service_server::ClusterService>::BackupStream;

impl Operators {
    /// Everything that was committed before the call is in it.
    pub(super) async fn make_backup(&self, request: Request<wire::BackupRequest>) -> Result<Response<Backup>, Status> {
        let by = auth::operator(&request)?;
        self.fresh(false).await?;
        let state = self.node().replica.read(State::clone);
        let (id, wall) = (self.node().id, self.node().wall());
        let bytes = backup::write(&state, id, wall).map_err(|error| Status::internal(error.to_string()))?;
        tracing::info!(operator = by, index = state.applied.0, bytes = bytes.len(), "a backup was made");
        let chunks: Vec<_> =
            bytes.chunks(CHUNK).map(|chunk| Ok(wire::BackupResponse { chunk: chunk.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    pub(super) async fn note_recovery(
        &self,
        request: Request<wire::RecoverRequest>,
    ) -> Result<Response<wire::RecoverResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let reason = asked.reason.trim().to_owned();
        if reason.is_empty() {
            let problem = "say how that is known; others will read it".to_owned();
            return Err(Fault::Field { field: "reason", problem }.into());
        }
        let named = |field, name: &str| {
            ClusterId::new(name).map_err(|error| Fault::Field { field, problem: error.to_string() })
        };
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let entry = match (asked.database_off.as_str(), asked.primary.as_str()) {
            (off, "") if !off.is_empty() => {
                Entry::AttestedOff { application, cluster: named("database_off", off)?, by, reason }
            }
            ("", primary) if !primary.is_empty() => {
                Entry::PrimaryChosen { application, cluster: named("primary", primary)?, by, reason }
            }
            _ => {
                let problem = "name either a cluster whose databases are off, or the primary".to_owned();
                return Err(Fault::Field { field: "primary", problem }.into());
            }
        };
        let index = self.propose(id, &asked.application, entry).await?;
        Ok(Response::new(wire::RecoverResponse { index }))
    }
}
