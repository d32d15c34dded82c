//! Any coordinator answers: each endpoint is tried until one does. Safe for changes too, since they carry a request id.

use std::fmt::Write;
use std::future::Future;
use std::time::Duration;

use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use regent_proto::operator::v1::audit_service_client::AuditServiceClient;
use regent_proto::operator::v1::cluster_service_client::ClusterServiceClient;
use regent_proto::operator::v1::run_service_client::RunServiceClient;
use regent_proto::tls::{ChannelOptions, Tls, TlsFiles};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::failure::{Failure, chain, describe, is_answer, is_no_quorum};

/// A dead endpoint is given up after so long, so that the next one is tried soon.
const CONNECT: Duration = Duration::from_secs(2);

/// The coordinators of a group, and who we are to them.
pub(crate) struct Connection {
    endpoints: Vec<String>,
    tls: Tls,
    timeout: Duration,
}

/// The four services of one coordinator.
pub(crate) struct Services {
    pub(crate) applications: ApplicationServiceClient<Channel>,
    pub(crate) runs: RunServiceClient<Channel>,
    pub(crate) cluster: ClusterServiceClient<Channel>,
    pub(crate) audit: AuditServiceClient<Channel>,
}

impl Connection {
    pub(crate) fn new(endpoints: Vec<String>, files: &TlsFiles, timeout: Duration) -> Result<Self, Failure> {
        Ok(Self { endpoints, tls: files.load()?, timeout })
    }

    /// The answer of the first coordinator that gives one.
    pub(crate) async fn call<A, F, Fut>(&self, call: F) -> Result<A, Failure>
    where
        F: Fn(Services) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.best(call, |_| true).await
    }

    /// The first good answer; if there is none, the first answer.
    pub(crate) async fn best<A, F, Fut>(&self, call: F, good: impl Fn(&A) -> bool) -> Result<A, Failure>
    where
        F: Fn(Services) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let (mut second, mut no_quorum) = (None, None);
        let mut silent = String::from("no coordinator answered:");
        for endpoint in &self.endpoints {
            let services = match self.services(endpoint) {
                Ok(services) => services,
                Err(error) => {
                    let _ = write!(silent, "\n  {endpoint}: {error}");
                    continue;
                }
            };
            let answer = match tokio::time::timeout(self.timeout, call(services)).await {
                Ok(answer) => answer.map(Response::into_inner),
                Err(_) => Err(Status::new(Code::DeadlineExceeded, format!("no answer within {:?}", self.timeout))),
            };
            match answer {
                Ok(answer) if good(&answer) => return Ok(answer),
                Ok(answer) => second = second.or(Some(answer)),
                Err(status) if is_no_quorum(&status) => no_quorum = no_quorum.or(Some(status)),
                Err(status) if is_answer(&status) => return Err(status.into()),
                Err(status) => {
                    let _ = write!(silent, "\n  {endpoint}: {}", describe(&status));
                }
            }
        }
        match (second, no_quorum) {
            (Some(answer), _) => Ok(answer),
            (None, Some(status)) => Err(status.into()),
            (None, None) => Err(Failure::Failed(silent)),
        }
    }

    fn services(&self, endpoint: &str) -> Result<Services, String> {
        let options = ChannelOptions { connect_timeout: CONNECT.min(self.timeout), ..ChannelOptions::default() };
        let channel = self.tls.channel(endpoint, options).map_err(|error| chain(&error))?;
        Ok(Services {
            applications: ApplicationServiceClient::new(channel.clone()),
            runs: RunServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel),
        })
    }
}

/// Between the end of one stream and the dialling of the next: a coordinator that is going down is not hammered.
pub(crate) async fn breathe() {
    tokio::time::sleep(Duration::from_millis(250)).await;
}

/// A new id for one mutation.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
