//! An activated service stays activated while Argo CD self-heals, and one in a region that came back stays down.
//!
//! In each region the service is a Deployment in an API server of the region's own, which an Argo CD there heals by a
//! chart that says 0 replicas, unless the Application's parameters say otherwise. Its pods are the real service: it
//! runs only where one is ready. The API servers are ours (`regent_deploy::kubernetes`); no real Argo CD was there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::FutureExt;
use regent_deploy::config::APPLICATION;
use regent_deploy::kubernetes::{AGENT, ApiServer, Chart, Credential, application, deployment};
use regent_deploy::wait;
use regent_deploy::world::{REGIONS, World};
use serde_json::json;

use super::scene::Scene;

const D: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);
/// So many comparisons of Argo CD see what was reached.
const ROUNDS: u64 = 60;
const NAMESPACE: &str = APPLICATION;

/// One region's API server.
struct Side {
    api: Arc<ApiServer>,
    region: usize,
}

impl Side {
    async fn start(region: usize, kubeconfig: &Path) -> Result<Self> {
        let api = ApiServer::start(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        api.kubeconfig(kubeconfig, AGENT, Credential::Certificate)?;
        Ok(Self { api: Arc::new(api), region })
    }

    /// Its pods become the region's service, and its Application says so many of them.
    fn furnish(&self, world: &Arc<World>, replicas: &str) -> Result<()> {
        let (world, region) = (Arc::clone(world), self.region);
        self.api.hook(Arc::new(move |_, up| {
            let world = Arc::clone(&world);
            async move {
                let region = &world.regions()[region];
                if up { world.start_service(region).await } else { world.stop_service(region).await }
            }
            .boxed()
        }));
        let manifest = deployment(APPLICATION, json!("{{replicaCount}}"));
        self.api
            .push("shop", Chart { manifests: vec![manifest], values: [("replicaCount".into(), "0".into())].into() });
        let parameters = json!({ "helm": { "parameters": [{ "name": "replicaCount", "value": replicas }] } });
        self.api.create("argocd", &application(APPLICATION, "shop", NAMESPACE, &parameters))
    }

    /// Waits until so many pods are asked for and ready, and the real service runs accordingly.
    async fn reaches(&self, world: &World, replicas: usize) -> Result<()> {
        wait::until("the pods", PATIENCE, || async { self.is(world, replicas) }).await
    }

    fn is(&self, world: &World, replicas: usize) -> Result<()> {
        let asked = self.api.get("Deployment", NAMESPACE, APPLICATION)?["spec"]["replicas"].clone();
        ensure!(asked == replicas, "{asked} replicas are asked for, and not {replicas}");
        let (pods, ready) = (self.api.pods(NAMESPACE), self.api.ready_pods(NAMESPACE));
        ensure!((pods, ready) == (replicas, replicas), "{ready} of {pods} pods are ready, and not {replicas}");
        let runs = world.regions()[self.region].cluster()?.service()?.is_some();
        ensure!(runs == (replicas > 0), "the service runs: {runs}");
        Ok(())
    }

    /// Argo CD compares again and again, and it stays as it is, without anything to heal.
    async fn stays(&self, world: &World, replicas: usize) -> Result<()> {
        let from = self.api.rounds(APPLICATION);
        wait::until("many rounds of Argo CD", PATIENCE, || async {
            if let Err(error) = self.is(world, replicas) {
                return Ok(Err(error));
            }
            let compared = self.api.rounds(APPLICATION).compared - from.compared;
            ensure!(compared >= ROUNDS, "{compared} rounds");
            Ok(Ok(()))
        })
        .await??;
        let healed = self.api.rounds(APPLICATION).healed - from.healed;
        ensure!(healed == 0, "self-heal has found {healed} times that it was otherwise");
        Ok(())
    }
}

/// `mission.md`: an activated service stays activated while Argo CD self-heals.
#[tokio::test(flavor = "multi_thread")]
async fn gitops_does_not_revert() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = |region: usize| folder.path().join(format!("{}.yaml", REGIONS[region].0));
    let (west, central) = (Side::start(0, &kubeconfig(0)).await?, Side::start(1, &kubeconfig(1)).await?);
    let kubernetes = [&west, &central].into_iter();
    let kubernetes =
        kubernetes.filter_map(|side| Some((REGIONS[side.region].1?.to_owned(), kubeconfig(side.region)))).collect();
    let scene = Scene::start_with(D, Duration::from_millis(500), |options| options.kubernetes = kubernetes).await?;
    west.furnish(&scene.world, "2")?;
    central.furnish(&scene.world, "0")?;
    west.reaches(&scene.world, 2).await?;
    central.reaches(&scene.world, 0).await?;
    let epoch = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    let writer = scene.writer().await?;

    // The region is lost, with its API server and its Argo CD.
    west.api.stop();
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let run = scene.finished_run().await?;
    central.stays(&scene.world, 2).await?;
    scene.judge(writer.record(), run).await?;

    // It comes back, and nobody is quicker than the machines: its pods run by what Argo CD there was told before.
    let old = scene.old();
    old.give_back()?;
    let cluster = old.cluster()?;
    cluster.postgres.start().await?;
    cluster.redis.start().await?;
    west.api.start_again().await?;
    west.reaches(&scene.world, 2).await?;
    // They write nothing: the databases beside them are closed, and no name leads to them. Then the agent comes, too.
    old.start_coordinator().await?;
    old.start_agent().await?;
    west.reaches(&scene.world, 0).await?;
    west.stays(&scene.world, 0).await?;
    let parameters =
        west.api.get("Application", "argocd", APPLICATION)?["spec"]["source"]["helm"]["parameters"].clone();
    ensure!(parameters == json!([{ "name": "replicaCount", "value": "0" }]), "{parameters}");

    // Somebody starts it by hand, in Argo CD, too: not while it is quarantined.
    west.api.change(("Application", "argocd", APPLICATION), "somebody", |object| {
        object["spec"]["source"]["helm"]["parameters"][0]["value"] = json!("2");
    })?;
    wait::until("the end of that", PATIENCE, || async {
        let healed = west.api.get("Application", "argocd", APPLICATION)?;
        let value = &healed["spec"]["source"]["helm"]["parameters"][0]["value"];
        ensure!(value == "0", "the parameter is {value}");
        Ok(())
    })
    .await?;
    west.reaches(&scene.world, 0).await?;

    // Readmitted as a standby it goes on resting, and the other side was never touched.
    scene.world.ctl().run(&["rejoin", APPLICATION, &cluster.name, "--reclone"]).await?;
    scene.world.protected(scene.other(), old).await?;
    west.stays(&scene.world, 0).await?;
    central.stays(&scene.world, 2).await?;
    let record = writer.stop().await?;
    let address = cluster.address;
    let first = record.acknowledged.iter().find(|row| row.by == scene.other().cluster().unwrap().address).unwrap();
    let late = record.acknowledged.iter().filter(|row| row.by == address && row.at > first.at).count();
    ensure!(late == 0, "the region that came back acknowledged {late} rows");
    let after = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch + 1, "the epoch went from {epoch} to {after}");
    // The hooks hold the world, too.
    west.api.end().await;
    central.api.end().await;
    scene.end().await
}
