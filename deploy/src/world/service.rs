//! The service of a cluster, started and stopped as its agent would.

use anyhow::Result;

use super::{PATIENCE, World};
use crate::keeper::Program;
use crate::place;
use crate::region::Region;

impl World {
    /// Starts a cluster's service, as its agent would.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_service(&self, region: &Region) -> Result<()> {
        self.tell_service(region, "start").await
    }

    /// Stops a cluster's service, as its agent would.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop_service(&self, region: &Region) -> Result<()> {
        self.tell_service(region, "stop").await
    }

    async fn tell_service(&self, region: &Region, action: &str) -> Result<()> {
        let cluster = region.cluster()?;
        let demo = place::binary("regent-demo")?.display().to_string();
        let command = [demo, action.into(), "--config".into(), cluster.service.display().to_string()];
        let folder = cluster.service.parent().unwrap_or(&self.options.folder);
        region.keeper().run(Program::new(&format!("{action}-service"), folder, command), PATIENCE).await
    }
}
