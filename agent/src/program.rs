//! The program `regent-agent`: the agent of one cluster, its guard, and the gate before its databases.
//!
//! SIGTERM ends the agent and leaves the guard running. Where a lease runs, an agent that comes back before its end
//! takes it over, so an upgrade is no outage; if none comes back, the guard fences hard at that end. An agent whose guard
//! does not answer fences before it ends, and a guard that is ended where no agent is fences hard before it does: nobody
//! else would. To take a primary out of service without that, move the application first (`regentctl switchover`), or
//! pause it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use regent_core::id::{ApplicationId, ResourceId};
use regent_core::time::Timestamp;
use regent_proto::agent::v1::peer_agent_service_server::PeerAgentServiceServer;
use regent_proto::tls::{Identity, TlsFiles, peer_identity};
use regent_proto::watchdog::{Telling, Watchdog};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::agent::{self, Parts, admin};
use crate::config::{Config, ResourceConfig};
use crate::dial::{self, Names};
use crate::driver::process::children::Children;
use crate::driver::{FenceReach, Marker, build};
use crate::fence;
use crate::guard::{self, Drivers, GuardError, ProcessDoor, Spawner, clock};
use crate::journal::{FILE, Journal, JournalError, JournalFile, chain};
use crate::settings::Settings;
use crate::steps::Onlooker;
use crate::witness::{PeerServer, WitnessKey};

/// The agent of one cluster.
#[derive(Parser)]
#[command(name = "regent-agent", version, about)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, default_value = "/etc/regent/agent.yaml")]
    config: PathBuf,
    /// Checks the configuration, prints what would be used, and ends.
    #[arg(long)]
    check_config: bool,
    /// The guard is a service of its own: the agent waits for it, and starts none.
    #[arg(long)]
    guard_is_a_unit: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The guard: fences at the end of the lease if the agent cannot. The agent starts it where none runs.
    Guard {
        /// Stays when nothing is armed and no agent is there, as a service of its own.
        #[arg(long)]
        stay: bool,
    },
    /// Before a database starts: makes sure that it comes up refusing writes. Waits for nobody.
    Gate {
        /// Application.
        #[arg(value_parser = ApplicationId::new)]
        application: ApplicationId,
        /// Resource.
        #[arg(value_parser = ResourceId::new)]
        resource: ResourceId,
    },
}

/// Does what the command line says. `onlooker` is for tests, which stop the process at its steps; the product has none.
#[must_use]
pub fn main(onlooker: Option<Arc<dyn Onlooker>>) -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, onlooker) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "regent-agent ends");
            // Before the log is set up, or where nobody reads it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("regent-agent: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, onlooker: Option<Arc<dyn Onlooker>>) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config)?;
    let children = Children::default();
    let drivers = drivers(&config, &children)?;
    if arguments.check_config {
        let shown = config.to_yaml_redacted()?;
        return std::io::Write::write_all(&mut std::io::stdout(), shown.as_bytes()).context("cannot print");
    }
    log(&config)?;
    match &arguments.part {
        None => runtime(2)?.block_on(serve(arguments, &config, drivers, &children, onlooker)),
        Some(Part::Guard { stay }) => match run_guard(&arguments.config, &config, drivers, *stay)? {
            Err(GuardError::Running(path)) => {
                tracing::info!(path = %path.display(), "a guard runs already");
                Ok(())
            }
            ended => Ok(ended?),
        },
        Some(Part::Gate { application, resource }) => {
            runtime(1)?.block_on(gate(&config, &drivers, application, resource))
        }
    }
}

fn run_guard(file: &Path, config: &Config, drivers: Drivers, stay: bool) -> anyhow::Result<Result<(), GuardError>> {
    guard::protect();
    let load = |file: &Path| {
        let config = Config::load(file).map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
        self::drivers(&config, &Children::default()).map_err(|error| format!("{error:#}"))
    };
    let (runtime_directory, boot) = (config.runtime_directory.clone(), guard::clock::of_this_machine().boot_id());
    let drivers = guard::kept::take_up(&runtime_directory, &boot, drivers, load);
    let file = file.to_owned();
    let reread: guard::Reread = Arc::new(move || {
        let drivers = load(&file)?;
        guard::kept::keep(&runtime_directory, &boot, &file, &drivers);
        Ok(drivers)
    });
    let known = guard::Known::with_reread(drivers, reread);
    runtime(1)?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let stop = async move {
            terminate.recv().await;
        };
        Ok(guard::run(&config.runtime_directory, known, stay, stop).await)
    })
}

fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all().build().context("cannot start the runtime")
}

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).context("log")?;
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

fn drivers(config: &Config, children: &Children) -> anyhow::Result<Drivers> {
    let resolvers = config.resolver_addresses();
    let mut drivers = Drivers::new();
    for (application, resources) in &config.applications {
        let of_application = drivers.entry(application.clone()).or_default();
        for (resource, options) in resources {
            let data = &config.data_directory;
            let driver = build::build(&config.cluster, application, resource, options, &resolvers, children, data)?;
            of_application.insert(resource.clone(), driver);
        }
    }
    Ok(drivers)
}

fn settings(config: &Config) -> Settings {
    let all = config.applications.iter().flat_map(|(application, resources)| {
        resources.iter().map(move |(resource, options)| ((application.clone(), resource.clone()), options))
    });
    let addresses: BTreeMap<_, Vec<String>> = all
        .filter_map(|(name, options)| match options {
            ResourceConfig::Dns(dns) => Some((name, dns.addresses.iter().map(ToString::to_string).collect())),
            ResourceConfig::Postgres(_) | ResourceConfig::Redis(_) => None,
            ResourceConfig::Command(_) | ResourceConfig::Kubernetes(_) | ResourceConfig::Http(_) => None,
        })
        .collect();
    Settings {
        cluster: config.cluster.clone(),
        region: config.region.clone(),
        coordinators: config.coordinators.clone(),
        listen: config.listen,
        advertise: config.advertise.clone(),
        data_directory: config.data_directory.clone(),
        runtime_directory: config.runtime_directory.clone(),
        probe_interval: config.probe_interval,
        addresses,
        certificate_until: regent_proto::tls::expires(&config.tls.certificate).map(|seconds| Timestamp(seconds * 1000)),
    }
}

/// Starts `regent-agent guard` with the same configuration; its log goes to a file beside its state.
fn spawner(config: &Path, runtime_directory: PathBuf) -> Spawner {
    let config = config.to_owned();
    Box::new(move || {
        std::fs::create_dir_all(&runtime_directory)?;
        let log = std::fs::File::create(runtime_directory.join("guard.log"))?;
        let mut guard = tokio::process::Command::new(std::env::current_exe()?);
        guard.arg("guard").arg("--config").arg(&config);
        // It outlives the agent, and holds nothing of the agent's open.
        guard.kill_on_drop(false).current_dir("/").stdin(std::process::Stdio::null());
        guard.stdout(std::process::Stdio::null()).stderr(log);
        // What systemd wants to hear, it wants to hear of the agent.
        guard.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        guard.spawn()
    })
}

/// A guard of the agent's own would take the place of the unit's, in the agent's control group.
fn waiter() -> Spawner {
    Box::new(|| Err(std::io::Error::other("it is a unit of its own; start regent-agent-guard.service")))
}

async fn serve(
    arguments: &Arguments,
    config: &Config,
    drivers: Drivers,
    children: &Children,
    onlooker: Option<Arc<dyn Onlooker>>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let files = TlsFiles {
        ca: config.tls.ca.clone(),
        certificate: config.tls.certificate.clone(),
        key: config.tls.key.clone(),
    };
    let tls = files.load()?;
    anyhow::ensure!(
        *tls.identity() == Identity::Agent(config.cluster.to_string()),
        "the certificate {} is that of {}, not of agent/{}; correct `cluster` or `tls`",
        files.certificate.display(),
        tls.identity(),
        config.cluster
    );
    let journal = match Journal::open(&config.data_directory) {
        Ok(journal) => journal,
        Err(error) => return Err(without_journal(config, &drivers, error).await),
    };
    // Under the journal's lock, and before anything else: the agent that held it before is dead.
    children.take_up(&config.runtime_directory);
    let key = Arc::new(WitnessKey::open(&config.data_directory)?);
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let admin_listener =
        TcpListener::bind(config.admin).await.with_context(|| format!("cannot listen on {}", config.admin))?;

    let stop = CancellationToken::new();
    let installation = journal.view().installation.clone();
    // The guard is started from another working directory.
    let file = std::path::absolute(&arguments.config).context("cannot tell where the configuration is")?;
    let clock = clock::of_this_machine();
    let spawner = match arguments.guard_is_a_unit {
        true => waiter(),
        false => spawner(&file, config.runtime_directory.clone()),
    };
    let parts = Parts {
        settings: settings(config),
        drivers,
        journal,
        key: key.clone(),
        dial: dial::over_tls(tls.clone(), &Names::default()),
        door: Arc::new(ProcessDoor::new(&config.runtime_directory, spawner)),
        clock: clock.clone(),
        onlooker,
    };
    let (handles, running) = agent::start(parts, stop.clone());
    let watching = tokio::spawn(Watchdog::of_environment().follow(vec![handles.turns.clone()], say));
    let peers = PeerServer {
        cluster: config.cluster.clone(),
        installation,
        key,
        word: handles.word.clone(),
        asked: handles.asked,
        clock,
        identify: Arc::new(peer_identity),
    };
    let server = tonic::transport::Server::builder()
        .tls_config(tls.server_config())?
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .add_service(PeerAgentServiceServer::new(peers))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
    let server = tokio::spawn(server);
    let router = admin::router(handles.status);
    let admin = tokio::spawn(async move { axum::serve(admin_listener, router).await });
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to end by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("told to end by SIGINT"),
    }
    stop.cancel();
    running.await.context("the agent's loop failed")?;
    admin.abort();
    watching.abort();
    // Connections of other agents may stay open; they are cut with the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
    Ok(())
}

/// What came of telling systemd that the agent's loop goes on.
fn say(telling: Telling) {
    match telling {
        Telling::Nothing => {}
        Telling::Ready => tracing::info!("systemd knows that the agent is ready"),
        Telling::NotYet(error) => {
            tracing::warn!(error = chain(&error), "systemd cannot be told that the agent is ready");
        }
    }
}

/// No incarnation could be stored: no heartbeat may be sent, and what may be open is fenced. Where another agent has
/// the directory locked, it looks after that.
async fn without_journal(config: &Config, drivers: &Drivers, error: JournalError) -> anyhow::Error {
    if matches!(error, JournalError::Locked { .. }) {
        return error.into();
    }
    // Without a word of a journal everything may be guarded: a copy, which may be older, gives none either.
    let view = JournalFile::peek(&config.data_directory.join(FILE)).ok();
    let budget = Duration::from_secs(1);
    for (application, resources) in drivers {
        let guarded =
            |view: &crate::journal::View| view.applications.get(application).is_some_and(|view| view.led.0 > 0);
        if !view.as_ref().is_none_or(guarded) {
            continue;
        }
        let databases = resources.iter().filter(|(_, driver)| driver.fence_reach() != FenceReach::Nothing);
        let fences = databases.map(|(resource, driver)| fence::one(application, resource, driver, budget));
        futures::future::join_all(fences).await;
    }
    anyhow::Error::new(error).context("without a journal no heartbeat is sent, and what was guarded has been fenced")
}

async fn gate(
    config: &Config,
    drivers: &Drivers,
    application: &ApplicationId,
    resource: &ResourceId,
) -> anyhow::Result<()> {
    let driver = drivers.get(application).and_then(|resources| resources.get(resource));
    let driver = driver.with_context(|| format!("{application}/{resource} is not in the configuration; add it"))?;
    // By a copy nothing may start: what was guarded since it was made would come up open.
    let view = JournalFile::peek(&config.data_directory.join(FILE))?;
    if view.applications.get(application).is_none_or(|view| view.led.0 == 0) {
        tracing::info!(%application, %resource, "not guarded: starts as it is");
        return Ok(());
    }
    let marker = Marker {
        group: view.group.map(|group| group.0).unwrap_or_default(),
        application: application.to_string(),
        cluster: config.cluster.to_string(),
        installation: view.installation.to_string(),
    };
    let done = driver.guard(&marker).await?;
    tracing::info!(%application, %resource, already = done.already, "comes up refusing writes");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
    }

    fn started_by(unit: &str) -> Arguments {
        let text = std::fs::read_to_string(units().join(unit)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_units_start_agent_and_guard_apart() {
        let agent = started_by("regent-agent.service");
        assert!(agent.guard_is_a_unit && agent.part.is_none());
        let guard = started_by("regent-agent-guard.service");
        assert!(matches!(guard.part, Some(Part::Guard { stay: true })));
        assert_eq!(agent.config, guard.config);
    }

    #[test]
    fn every_unit_has_a_watchdog_that_its_program_tells() {
        for unit in std::fs::read_dir(units()).unwrap() {
            let text = std::fs::read_to_string(unit.unwrap().path()).unwrap();
            let set = |name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            // Before it has said that it is ready, nothing that takes long must have it ended.
            assert_eq!(set("Type=").as_deref(), Some("notify"), "{text}");
            assert!(set("WatchdogSec=").is_some() && set("Restart=").as_deref() == Some("always"), "{text}");
        }
    }

    #[test]
    fn systemd_accepts_the_units() {
        let place = tempfile::tempdir().unwrap();
        let mut verify = std::process::Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]);
        for unit in std::fs::read_dir(units()).unwrap() {
            let unit = unit.unwrap().path();
            // It looks whether the programs are there.
            let text = std::fs::read_to_string(&unit).unwrap();
            let text =
                text.replace("/usr/bin/regent-agent", "/bin/true").replace("/usr/bin/regent-coordinator", "/bin/true");
            let copy = place.path().join(unit.file_name().unwrap());
            std::fs::write(&copy, text).unwrap();
            verify.arg(copy);
        }
        let Ok(verified) = verify.output() else {
            eprintln!("skipped: there is no systemd-analyze here");
            return;
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let ours: Vec<_> = said.lines().filter(|line| line.contains("regent-")).collect();
        assert!(verified.status.success() && ours.is_empty(), "{said}");
    }
}
