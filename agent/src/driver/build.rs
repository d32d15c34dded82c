//! From the configuration of a resource to its driver.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use regent_core::id::{ApplicationId, ClusterId, ResourceId};

use super::command::CommandDriver;
use super::dns::DnsDriver;
use super::http::HttpDriver;
use super::kubernetes::Kubernetes;
use super::postgres::Postgres;
use super::process::children::Children;
use super::redis::Redis;
use super::{Driver, DriverError};
use crate::config::ResourceConfig;

/// Makes the driver of one resource, whose programs are recorded among `children`, and what it must know after a restart
/// of the machine in the folder `data`. Nothing is contacted yet.
///
/// # Errors
/// If the options cannot be used; the message names the resource.
pub fn build(
    cluster: &ClusterId,
    application: &ApplicationId,
    resource: &ResourceId,
    config: &ResourceConfig,
    resolvers: &[SocketAddr],
    children: &Children,
    data: &Path,
) -> Result<Arc<dyn Driver>, DriverError> {
    let driver: Result<Arc<dyn Driver>, DriverError> = match config {
        ResourceConfig::Command(options) => Ok(Arc::new(CommandDriver::new(options.clone(), children))),
        ResourceConfig::Kubernetes(options) => Ok(Arc::new(Kubernetes::new(options.clone()))),
        ResourceConfig::Dns(options) => match DnsDriver::new(options.clone(), resolvers.to_vec()) {
            Ok(driver) => Ok(Arc::new(driver)),
            Err(error) => Err(error),
        },
        ResourceConfig::Http(options) => match HttpDriver::new(options.clone()) {
            Ok(driver) => Ok(Arc::new(driver)),
            Err(error) => Err(error),
        },
        ResourceConfig::Postgres(options) => {
            Ok(Arc::new(Postgres::new(options.clone(), cluster.as_str()).with_children(children)))
        }
        ResourceConfig::Redis(options) => {
            // Neither name has a dot.
            let record = data.join(format!("redis.{application}.{resource}.json"));
            Ok(Arc::new(Redis::new(options.clone(), cluster.as_str()).with_children(children).with_record(record)))
        }
    };
    driver.map_err(|error| DriverError {
        message: format!("resource {resource} of application {application}: {}", error.message),
        ..error
    })
}
