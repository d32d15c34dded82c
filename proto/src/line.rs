//! A line to somebody: what the clients of a service speak over.
//!
//! In operation it is a channel by mutual TLS ([`crate::tls`]); whoever has another way to carry requests, such as a
//! test with a network of its own, makes a line of that.

use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};
use tower::ServiceExt;
use tower::util::BoxCloneService;

/// Cheap to clone.
pub type Line = BoxCloneService<http::Request<Body>, http::Response<Body>, LineError>;

/// The carrier failed; it speaks for itself.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LineError(StdError);

/// Makes a line of a channel, or of anything that answers requests.
pub fn line<S>(carrier: S) -> Line
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Error: Into<StdError>,
    S::Future: Send + 'static,
{
    BoxCloneService::new(carrier.map_err(|error| LineError(error.into())))
}
