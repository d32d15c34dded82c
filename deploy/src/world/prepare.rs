//! Everything of a world before anything runs in it: folders, ports, certificates, files.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use super::traces::Traces;
use super::{Options, REGIONS, World};
use crate::certs;
use crate::clock::WallClock;
use crate::config::{self, APPLICATION, AgentFile, AgentPlace, CACHE, CoordinatorPlace, Credentials, DATABASE};
use crate::ctl::Ctl;
use crate::demo::DemoConfig;
use crate::ground::Ground;
use crate::keeper::Keeper;
use crate::place;
use crate::ports::Ports;
use crate::postgres::{self, Postgres};
use crate::redis::{self, Redis};
use crate::region::{Cluster, Node, Place, Region, SWITCH};
use crate::script::Gate;

impl World {
    /// Folders, ports, certificates, files; nothing runs but the keepers.
    ///
    /// # Errors
    /// Something cannot be made, or the folder is there already.
    pub async fn prepare(options: Options) -> Result<Self> {
        Self::prepare_on(Ground::Loopback, options).await
    }

    /// The same on a ground of choice.
    ///
    /// # Errors
    /// Something cannot be made, or the folder is there already.
    pub async fn prepare_on(ground: Ground, options: Options) -> Result<Self> {
        let ground = Arc::new(ground);
        let traces = Traces::begin(&options.folder)?;
        for (folder, megabytes) in &options.disks {
            ground.net()?.small_disk(&options.folder.join(folder), *megabytes)?;
        }
        let mut ports = Ports::new(place::cache()?.join("ports"))?;
        let mut coordinators = Vec::new();
        for (index, id) in (0..REGIONS.len()).zip(1..) {
            let address = ground.node(index)?;
            coordinators.push(CoordinatorPlace {
                id,
                listen: SocketAddr::new(address, ports.pick()?),
                dashboard: SocketAddr::new(ground.pages(), ports.pick()?),
                dns: SocketAddr::new(address, ports.pick()?),
            });
        }
        let certificates = options.folder.join("certs");
        let dialled: Vec<_> = coordinators.iter().map(|place| (place.id, place.listen.ip())).collect();
        let places = REGIONS.iter().zip(&dialled);
        let agents: Vec<_> = places.filter_map(|((_, cluster), (_, address))| Some(((*cluster)?, *address))).collect();
        certs::make(&certificates, &dialled, &agents).await?;
        let shared = Shared::new(&mut ports, options.programs.agent)?;
        let mut regions = Vec::new();
        for (index, (name, cluster)) in REGIONS.iter().enumerate() {
            let own = options.folder.join(name);
            place::passable(&own)?;
            let keeper = Arc::new(ground.keeper(name, &own).await?);
            let clock = options.wall_clocks.then(|| WallClock::new(&own)).transpose()?;
            let address = ground.node(index)?;
            let cluster = match cluster {
                None => None,
                Some(cluster) => {
                    let place = AgentPlace {
                        listen: SocketAddr::new(address, ports.pick()?),
                        admin: SocketAddr::new(ground.pages(), ports.pick()?),
                    };
                    Some(shared.cluster(cluster, &own, &keeper, ground.cluster(index)?, place)?)
                }
            };
            let mut environment = options.environment.clone();
            environment.extend(clock.as_ref().map(WallClock::environment).unwrap_or_default());
            let place = Place { ground: Arc::clone(&ground), index, folder: own, clock, environment };
            regions.push(Region::new(
                name,
                keeper,
                (options.programs.coordinator, coordinators[index]),
                cluster,
                place,
            ));
        }
        let listens: Vec<SocketAddr> = coordinators.iter().map(|coordinator| coordinator.listen).collect();
        let ctl = Ctl::new(&listens, &Credentials::of(&certificates, certs::OPERATOR));
        let world =
            Self { options, ground, regions, service_port: shared.service_port, ctl, traces, ports: Mutex::new(ports) };
        world.write_files(&coordinators, &certificates)?;
        let marks = world.regions.iter().map(|region| region.keeper().mark()).collect();
        world.traces.write(marks)?;
        Ok(world)
    }

    fn write_files(&self, coordinators: &[CoordinatorPlace], certificates: &Path) -> Result<()> {
        let demo = place::binary("regent-demo")?;
        for region in &self.regions {
            let folder = self.options.folder.join(region.name());
            let own = region.place();
            let credentials = Credentials::of(certificates, &certs::coordinator(own.id));
            let data = folder.join("coordinator");
            let mut file =
                config::coordinator(&own, region.name(), coordinators, &data, &credentials, &self.options.log);
            if !self.options.raft.is_null() {
                file["raft"] = self.options.raft.clone();
            }
            config::write(region.coordinator().config(), &file)?;
            let Ok(cluster) = region.cluster() else { continue };
            let others: Vec<(&str, &Postgres, &Redis)> = self
                .regions
                .iter()
                .filter_map(|other| other.cluster().ok())
                .filter(|other| other.name != cluster.name)
                .map(|other| (other.name.as_str(), &other.postgres, &other.redis))
                .collect();
            let file = AgentFile {
                cluster: &cluster.name,
                region: region.name(),
                place: cluster.place,
                coordinators,
                data: &folder.join("agent"),
                runtime: &self.traces.runtime.join(&cluster.name),
                credentials: &Credentials::of(certificates, &certs::agent(&cluster.name)),
                probe_interval: self.options.probe_interval,
                log: &self.options.log,
                postgres: &cluster.postgres,
                redis: &cluster.redis,
                others: &others,
                service: (&demo, &cluster.service),
                kubernetes: self.options.kubernetes.get(&cluster.name).map(PathBuf::as_path),
                service_address: SocketAddr::new(cluster.address, self.service_port),
            };
            let mut file = file.value()?;
            if let Some(grace) = self.options.grace {
                file["applications"][APPLICATION][DATABASE]["grace"] = config::milliseconds(grace).into();
            }
            config::write(cluster.agent.config(), &file)?;
            cluster.postgres.write_passwords()?;
            cluster.redis.write_passwords()?;
            let service = DemoConfig {
                listen: SocketAddr::new(cluster.address, self.service_port),
                postgres: cluster.postgres.client_conninfo(),
                redis: cluster.redis.client_url(),
                pid_file: cluster.service.with_file_name("demo.pid"),
                log: cluster.service.with_file_name("demo.log"),
            };
            config::write(&cluster.service, &serde_json::to_value(service)?)?;
        }
        let clusters: Vec<&str> = REGIONS.iter().filter_map(|(_, cluster)| *cluster).collect();
        let service = if self.options.kubernetes.is_empty() { "command" } else { "kubernetes" };
        let (failover_after, max_data_loss) = (self.options.failover_after, self.options.max_data_loss);
        let mut document = config::application(&clusters, failover_after, max_data_loss, service);
        if self.options.grace.is_some() {
            document = config::quiesced_first(&document);
        }
        std::fs::write(self.document(), document).context("cannot write the Application document")
    }
}

/// What both clusters have in common.
struct Shared {
    agent: &'static str,
    database_port: u16,
    cache_port: u16,
    service_port: u16,
    database: postgres::Passwords,
    cache: redis::Passwords,
}

impl Shared {
    fn new(ports: &mut Ports, agent: &'static str) -> Result<Self> {
        Ok(Self {
            agent,
            database_port: ports.pick()?,
            cache_port: ports.pick()?,
            service_port: ports.pick()?,
            database: postgres::Passwords::random(),
            cache: redis::Passwords::random(),
        })
    }

    fn cluster(
        &self,
        name: &str,
        folder: &Path,
        keeper: &Arc<Keeper>,
        address: IpAddr,
        place: AgentPlace,
    ) -> Result<Cluster> {
        let file = folder.join("agent.yaml");
        let program = place::binary(self.agent)?.display().to_string();
        let gate = |resource: &str| Gate {
            switches: vec![folder.join(SWITCH)],
            command: [program.as_str(), "gate", APPLICATION, resource, "--config", &file.display().to_string()]
                .map(String::from)
                .to_vec(),
            file: file.clone(),
        };
        let (database, cache) = (folder.join(DATABASE), folder.join(CACHE));
        let (passwords, port) = (self.database.clone(), self.database_port);
        let postgres = Postgres::new(Arc::clone(keeper), &database, address, port, passwords, gate(DATABASE))?;
        let (passwords, port) = (self.cache.clone(), self.cache_port);
        let redis = Redis::new(Arc::clone(keeper), &cache, address, port, passwords, gate(CACHE));
        let service = folder.join("service");
        place::passable(&service)?;
        Ok(Cluster {
            name: name.to_owned(),
            address,
            postgres,
            redis,
            agent: Node::new(self.agent, folder, &file),
            place,
            service: service.join("demo.yaml"),
        })
    }
}
