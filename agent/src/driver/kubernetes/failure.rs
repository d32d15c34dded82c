//! One request to the API server, bounded, and what its failure means.

use std::time::Duration;

use kube::core::Status;

use crate::driver::DriverError;

/// A request that takes longer is given up: the server is not there, or as good as.
const CALL: Duration = Duration::from_secs(5);
/// How a conflict over a field says that somebody else owns it; one over the version has no such cause.
const OWNED: &str = "FieldManagerConflict";

/// What is asked for: every failure names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// As RBAC names it.
    pub(crate) verb: &'static str,
    /// Group and resource, as RBAC names them, e.g. `deployments.apps/scale`.
    pub(crate) resource: &'a str,
    /// Of the object; empty for all of them.
    pub(crate) name: &'a str,
    /// Where.
    pub(crate) namespace: &'a str,
}

/// Why there is no answer that helps.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such object.
    Missing(DriverError),
    /// The object has changed since it was read.
    Changed(DriverError),
    /// The version that was asked for is no longer kept.
    Expired,
    /// Anything else.
    Other(DriverError),
}

impl From<Refusal> for DriverError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing(error) | Refusal::Changed(error) | Refusal::Other(error) => error,
            Refusal::Expired => {
                Self::retryable("kubernetes-refused", "the API server no longer keeps the version that was asked for")
            }
        }
    }
}

impl Request<'_> {
    /// Sends it.
    pub(crate) async fn send<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.refusal(&error)),
            Err(_) => Err(Refusal::Other(self.unreachable(&format!("no answer within {} s", CALL.as_secs())))),
        }
    }

    /// What an error means.
    pub(crate) fn refusal(&self, error: &kube::Error) -> Refusal {
        match error {
            kube::Error::Api(status) => self.of_status(status),
            kube::Error::InferKubeconfig(_) | kube::Error::RustlsTls(_) | kube::Error::Auth(_) => {
                let message = format!("the kubeconfig cannot be used: {}; see what it refers to", root(error));
                Refusal::Other(DriverError::retryable("kubernetes-configuration", message))
            }
            other => Refusal::Other(self.unreachable(&root(other))),
        }
    }

    /// What a status of the server means.
    pub(crate) fn of_status(&self, status: &Status) -> Refusal {
        let Self { verb, resource, name, namespace } = self;
        let said = said(status);
        match status.code {
            401 => Refusal::Other(DriverError::retryable(
                "kubernetes-unauthenticated",
                format!("the API server does not know who the agent is{said}; renew the credentials of its kubeconfig"),
            )),
            403 => Refusal::Other(DriverError::permanent(
                "kubernetes-forbidden",
                format!("the agent may not {verb} {resource} in namespace {namespace}; grant it by RBAC{said}"),
            )),
            404 => Refusal::Missing(DriverError::retryable(
                "kubernetes-missing",
                format!("there is no {resource} {name} in namespace {namespace}; see agent.yaml and the cluster"),
            )),
            409 if is_owned(status) => Refusal::Other(DriverError::permanent(
                "kubernetes-conflict",
                format!("a field of {resource} {name} in namespace {namespace} belongs to another{said}"),
            )),
            409 => Refusal::Changed(DriverError::retryable(
                "kubernetes-conflict",
                format!("{resource} {name} in namespace {namespace} is being changed by others all the time{said}"),
            )),
            410 => Refusal::Expired,
            code => {
                let message = format!(
                    "the API server refused to {verb} {resource} {name} in namespace {namespace} ({code}){said}"
                );
                Refusal::Other(DriverError {
                    code: "kubernetes-refused",
                    message,
                    retryable: matches!(code, 408 | 429) || code >= 500,
                })
            }
        }
    }

    fn unreachable(&self, why: &str) -> DriverError {
        let Self { verb, resource, .. } = self;
        DriverError::retryable(
            "kubernetes-unreachable",
            format!("the API server cannot be asked to {verb} {resource} ({why}); see that it runs and is reachable"),
        )
    }
}

fn is_owned(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == OWNED)
}

fn said(status: &Status) -> String {
    if status.message.is_empty() { String::new() } else { format!(": {}", status.message) }
}

/// The innermost cause: the outer ones repeat it.
pub(super) fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
