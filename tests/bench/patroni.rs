//! Two PostgreSQL servers kept by Patroni, with etcd, under a sub-reaper.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::keeper::{Keeper, Process, Program};
use regent_deploy::ports::Ports;
use regent_deploy::postgres::settings;
use regent_deploy::{place, wait};
use regent_tests::rounds::client::Place;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

const NAMES: [&str; 2] = ["west", "central"];
const PATIENCE: Duration = Duration::from_secs(90);

/// See the module.
pub(crate) struct Patroni {
    keeper: Arc<Keeper>,
    nodes: Vec<Node>,
    http: reqwest::Client,
    /// What it is set to that matters here.
    pub(crate) settings: String,
    _ports: Ports,
    _processes: Vec<Process>,
}

struct Node {
    name: &'static str,
    api: String,
    place: Place,
    admin: String,
}

impl Patroni {
    /// Starts etcd and both nodes, and waits until one streams from the other.
    pub(crate) async fn start(programs: &Path, folder: &Path) -> Result<Self> {
        place::passable(folder)?;
        let keeper = Arc::new(Keeper::start("patroni", folder)?);
        let mut ports = Ports::new(place::cache()?.join("ports"))?;
        let mut processes = Vec::new();
        let (client, peer) = (ports.pick()?, ports.pick()?);
        let (client, peer) = (format!("127.0.0.1:{client}"), format!("127.0.0.1:{peer}"));
        processes.push(keeper.spawn(etcd(folder, &client, &peer)?).await?);
        let dcs = json!({ "ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1_048_576 });
        let mut nodes = Vec::new();
        for (index, name) in (0_u8..).zip(NAMES) {
            let address = IpAddr::from([127, 0, 0, 21 + index]);
            let (api, port) = (format!("{address}:{}", ports.pick()?), ports.pick()?);
            let own = folder.join(name);
            place::passable(&own)?;
            for part in ["data", "run"] {
                std::fs::create_dir_all(own.join(part))?;
                place::give_to_postgres(&own.join(part))?;
            }
            let file = own.join("patroni.yml");
            // JSON is YAML.
            std::fs::write(
                &file,
                serde_json::to_string_pretty(&node(name, &own, address, port, &api, &client, &dcs))?,
            )?;
            let mut command = place::as_postgres()?;
            command.extend([programs.join("bin/patroni").display().to_string(), file.display().to_string()]);
            let mut program = Program::new("patroni", &own, command);
            program.environment.insert("HOME".into(), own.join("run").display().to_string());
            processes.push(keeper.spawn(program).await?);
            let of = |user: &str, database: &str| {
                format!("host={address} port={port} user={user} password=bench dbname={database} connect_timeout=2")
            };
            let place = Place { address, postgres: of("app", "app"), redis: String::new() };
            nodes.push(Node { name, api, place, admin: of("postgres", "postgres") });
            if index == 0 {
                // The first makes the database, the second copies it.
                let http = client_of_http()?;
                let first = &nodes[0].api;
                wait::until("a primary of Patroni", PATIENCE, || async {
                    let answer = http.get(format!("http://{first}/primary")).send().await?;
                    ensure!(answer.status().is_success(), "it says {}", answer.status());
                    Ok(())
                })
                .await?;
            }
        }
        let http = client_of_http()?;
        let settings = format!("{dcs}, use_pg_rewind, one etcd, switchover by its REST interface");
        let patroni = Self { keeper, nodes, http, settings, _ports: ports, _processes: processes };
        patroni.ready().await?;
        patroni.fill().await?;
        Ok(patroni)
    }

    /// Where clients go.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.nodes.iter().map(|node| node.place.clone()).collect()
    }

    /// One leads, the other streams without lag. Gives their places in the list.
    pub(crate) async fn ready(&self) -> Result<(usize, usize)> {
        wait::until("a replica of Patroni that streams", PATIENCE, || async {
            let api = &self.nodes[0].api;
            let answer = self.http.get(format!("http://{api}/cluster")).send().await?.error_for_status()?;
            let cluster: Value = serde_json::from_str(&answer.text().await?)?;
            let member = |role: &str, state: &str| {
                let members = cluster["members"].as_array().into_iter().flatten();
                let mut fit = members.filter(|one| one["role"] == role && one["state"] == state);
                let name = fit.next().and_then(|one| one["name"].as_str());
                name.and_then(|name| self.nodes.iter().position(|node| node.name == name))
            };
            let leader = member("leader", "running").with_context(|| format!("no leader: {cluster}"))?;
            let replica = member("replica", "streaming").with_context(|| format!("no replica: {cluster}"))?;
            Ok((leader, replica))
        })
        .await
    }

    /// Begins a switchover; returns when Patroni says that it is done.
    pub(crate) async fn switch(&self, from: usize, to: usize) -> Result<()> {
        let body = json!({ "leader": self.nodes[from].name, "candidate": self.nodes[to].name });
        let post = self.http.post(format!("http://{}/switchover", self.nodes[from].api)).body(body.to_string());
        let answer = post.timeout(PATIENCE).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "Patroni says {status}: {text}");
        Ok(())
    }

    /// Ends everything.
    pub(crate) async fn end(self) -> Result<()> {
        self.keeper.end().await
    }

    /// The application's role, database and table.
    async fn fill(&self) -> Result<()> {
        let (leader, _) = self.ready().await?;
        let run = async |conninfo: &str, statements: &[&str]| {
            let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
            tokio::spawn(connection);
            for statement in statements {
                client.batch_execute(statement).await?;
            }
            anyhow::Ok(())
        };
        let node = &self.nodes[leader];
        run(&node.admin, &["CREATE ROLE app LOGIN PASSWORD 'bench'", "CREATE DATABASE app OWNER app"]).await?;
        run(&node.place.postgres, &[super::LEDGER]).await
    }
}

fn client_of_http() -> Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().context("no HTTP client")
}

fn etcd(folder: &Path, client: &str, peer: &str) -> Result<Program> {
    let data = folder.join("etcd").display().to_string();
    let etcd = place::program("etcd")?.display().to_string();
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let words = [
        etcd.as_str(),
        "--name",
        "bench",
        "--data-dir",
        &data,
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &format!("bench={peer}"),
        "--log-level",
        "warn",
    ];
    Ok(Program::new("etcd", folder, words.map(str::to_owned)))
}

fn node(name: &str, own: &Path, address: IpAddr, port: u16, api: &str, etcd: &str, dcs: &Value) -> Value {
    let parameters: serde_json::Map<String, Value> =
        settings().map(|(key, value)| (key.to_owned(), Value::String(value.trim_matches('\'').to_owned()))).collect();
    let mut dcs = dcs.clone();
    dcs["postgresql"] = json!({ "use_pg_rewind": true, "parameters": parameters });
    let login = |user: &str| json!({ "username": user, "password": "bench" });
    json!({
        "scope": "bench",
        "name": name,
        "restapi": { "listen": api, "connect_address": api },
        "etcd3": { "hosts": [etcd] },
        "bootstrap": { "dcs": dcs, "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }] },
        "postgresql": {
            "listen": format!("{address}:{port}"),
            "connect_address": format!("{address}:{port}"),
            "data_dir": own.join("data/pg"),
            "bin_dir": place::postgres_programs().unwrap_or_default(),
            "pgpass": own.join("run/pgpass"),
            "authentication": { "superuser": login("postgres"), "replication": login("replicator"), "rewind": login("postgres") },
            "pg_hba": ["host all all 127.0.0.0/8 scram-sha-256", "host replication all 127.0.0.0/8 scram-sha-256", "local all all scram-sha-256"],
            "parameters": { "unix_socket_directories": own.join("run") },
        },
    })
}
