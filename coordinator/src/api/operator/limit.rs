//! The blast-radius limit: what it is, and how it is set.

use regent_core::blast::{self, Limit};
use regent_core::entry::Entry;
use regent_core::state::State;
use regent_core::time::{Span, Timestamp};
use regent_proto::operator::v1 as wire;
use tonic::{Request, Response, Status};

use super::{Operators, request_id};
use crate::api::auth;
use crate::api::convert::{span, time};
use crate::api::status::Fault;

impl Operators {
    pub(super) async fn change_limit(
        &self,
        request: Request<wire::SetLimitRequest>,
    ) -> Result<Response<wire::SetLimitResponse>, Status> {
        let by = auth::operator(&request)?;
        let asked = request.into_inner();
        let id = request_id(&asked.request_id)?;
        let window = asked
            .window
            .map(std::time::Duration::try_from)
            .transpose()
            .map_err(|_| Fault::Field { field: "window", problem: "give a positive length of time".to_owned() })?;
        let millis = |window: std::time::Duration| u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let limit = Limit { events: asked.events, window: window.map(|window| Span::from_millis(millis(window))) };
        self.fresh(false).await?;
        let index = self.propose(id, "the limit", Entry::LimitSet { limit, by }).await?;
        Ok(Response::new(wire::SetLimitResponse { index }))
    }
}

/// What holds now, and what counts for it.
pub(super) fn shown(state: &State, wall: Timestamp) -> wire::Limit {
    let (events, window) = blast::limit(state);
    let recent = state.begun.iter().filter(|begun| wall.since(begun.at) < window);
    wire::Limit {
        events,
        window: Some(span(window)),
        begun: recent
            .map(|begun| wire::LimitedFailover {
                application: begun.application.to_string(),
                at: Some(time(begun.at)),
                lost: begun.lost.as_ref().map(ToString::to_string).unwrap_or_default(),
            })
            .collect(),
    }
}
