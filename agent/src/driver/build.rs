//! From the configuration of a resource to its driver.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use regent_core::id::{ApplicationId, ClusterId, ResourceId};

use super::command::CommandDriver;
use super::dns::DnsDriver;
use super::http::HttpDriver;
use super::{Driver, DriverError, Health, Probe};
use crate::config::ResourceConfig;

/// Makes the driver of one resource. Nothing is contacted yet.
///
/// # Errors
/// If the options cannot be used; the message names the resource.
pub fn build(
    _cluster: &ClusterId,
    application: &ApplicationId,
    resource: &ResourceId,
    config: &ResourceConfig,
    resolvers: &[SocketAddr],
) -> Result<Arc<dyn Driver>, DriverError> {
    let driver: Result<Arc<dyn Driver>, DriverError> = match config {
        ResourceConfig::Command(options) => Ok(Arc::new(CommandDriver::new(options.clone()))),
        ResourceConfig::Dns(options) => match DnsDriver::new(options.clone(), resolvers.to_vec()) {
            Ok(driver) => Ok(Arc::new(driver)),
            Err(error) => Err(error),
        },
        ResourceConfig::Http(options) => match HttpDriver::new(options.clone()) {
            Ok(driver) => Ok(Arc::new(driver)),
            Err(error) => Err(error),
        },
        // INTEGRATION: one line each for the drivers of `driver/postgres.rs` and `driver/redis.rs`.
        ResourceConfig::Postgres(_) | ResourceConfig::Redis(_) => Ok(Arc::new(WithoutDriver { kind: config.kind() })),
    };
    driver.map_err(|error| DriverError {
        message: format!("resource {resource} of application {application}: {}", error.message),
        ..error
    })
}

/// A kind that this build has no driver for: nothing is known of it, and it can do nothing.
struct WithoutDriver {
    kind: &'static str,
}

#[async_trait]
impl Driver for WithoutDriver {
    fn kind(&self) -> &'static str {
        self.kind
    }

    async fn probe(&self) -> Probe {
        Probe::without_answer(Health::Unknown, format!("this build has no driver for {}", self.kind))
    }
}
