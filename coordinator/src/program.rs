//! The program `regent-coordinator`: parse everything, bind everything, then run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use futures::future::BoxFuture;
use regent_core::entry::Coordinator;
use regent_core::facts::Papers;
use regent_core::id::CoordinatorId;
use regent_core::time::Timestamp;
use regent_proto::tls::expires;
use regent_proto::watchdog::{Telling, Watchdog};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{self, Latch, Readiness};
use crate::api::{self, Parts, TransferLeader};
use crate::config::Config;
use crate::node::{Node, Turns};
use crate::raft::{self, Membership, RaftHandle, RaftOptions};
use crate::works::Works;
use crate::{backup, clock, dns, telemetry};

/// One of Regent's coordinators: replicates, observes, decides and answers.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Its configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration, print what would be used, and end.
    #[arg(long)]
    check_config: bool,
    /// Make the data directory of a new group from this backup, and end: only where the quorum of the old one is lost
    /// for good. On the coordinator with the lowest id; then start all, the others with empty directories.
    #[arg(long, value_name = "FILE", conflicts_with = "check_config")]
    restore: Option<PathBuf>,
}

/// What a test puts beside the parts of the process, before they start, to stop it at a point of its choice.
pub type Beside = fn(&Node);

/// Does what the command line says. `beside` is for tests; with it everything runs on one thread, in the order in which it
/// becomes due. The product has none.
#[must_use]
pub fn main(beside: Option<Beside>) -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments, beside) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Before there are logs, and for whoever started the process by hand.
fn complain(error: &anyhow::Error) {
    // With a closed stderr nobody is there to be told.
    let _ = writeln!(std::io::stderr(), "regent-coordinator: {error:#}");
}

fn start(arguments: &Arguments, beside: Option<Beside>) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    if arguments.check_config {
        std::io::stdout().write_all(serde_saphyr::to_string(&config)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &arguments.restore {
        return restore(&config, file);
    }
    telemetry::init(&config.log)?;
    use tokio::runtime::Builder;
    let runtime = match beside {
        None => Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
        Some(_) => Builder::new_current_thread().enable_all().build()?,
    };
    runtime.block_on(run(config, beside))
}

/// Makes the data directory of a restored group.
fn restore(config: &Config, file: &Path) -> anyhow::Result<ExitCode> {
    let backup = backup::read(file)?;
    let (id, peers) = (CoordinatorId(config.id), config.addresses());
    let state = raft::restore(&config.data_directory, id, &peers, &backup, clock::of_this_machine().wall())?;
    let others: Vec<String> = peers.keys().filter(|peer| **peer != id).map(ToString::to_string).collect();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "group {} is restored as of index {} into {}; its log goes on at {}",
        state.group,
        backup.applied,
        config.data_directory.display(),
        state.applied
    )?;
    writeln!(out, "start this coordinator, and coordinators {} with empty data directories", others.join(", "))?;
    writeln!(
        out,
        "every application recovers until the agents of all its clusters have reported: `regentctl why APP`"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Leadership changes hands by raft.
struct Handover(Membership);

impl TransferLeader for Handover {
    fn transfer(&self, to: CoordinatorId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.0.transfer_leader(to).await.map_err(|error| error.to_string()) })
    }
}

async fn run(config: Config, beside: Option<Beside>) -> anyhow::Result<ExitCode> {
    let readiness = Readiness::default();
    readiness.set(Latch::ConfigParsed);
    let tls = config.tls.load()?;
    readiness.set(Latch::TlsLoaded);
    let id = CoordinatorId(config.id);
    let mut options = RaftOptions::new(id, config.addresses(), config.data_directory.clone());
    options.bootstrap = config.bootstrap;
    config.raft.set(&mut options);
    let raft = raft::open(options, tls.clone()).await?;
    readiness.set(Latch::LogReplayed);

    let works = Works::new(id, raft, clock::of_this_machine());
    let node = works.node().clone();
    let until = |file: &Path| expires(file).map(|seconds| Timestamp(seconds.saturating_mul(1000)));
    let (certificate_until, authority_until) = (until(&config.tls.certificate), until(&config.tls.ca));
    node.note(|evidence| evidence.papers = Papers { certificate_until, authority_until });
    if let Some(beside) = beside {
        beside(&node);
    }
    let stop = CancellationToken::new();

    let grpc = TcpListener::bind(config.listen).await.with_context(|| format!("listen: {}", config.listen))?;
    let http = admin::bind(config.dashboard).await?;
    let parts = Parts {
        node: node.clone(),
        tls: tls.clone(),
        transfer: Arc::new(Handover(works.raft().membership())),
        awaited: works.awaited(),
        post: works.post().clone(),
        stop: stop.clone(),
    };
    let routes = works.add_services(api::routes(parts).await?);
    let server = tonic::transport::Server::builder()
        .tls_config(tls.server_config())?
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(2)))
        .add_routes(routes);
    let grpc_stop = stop.clone();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(grpc);
    let mut grpc_task =
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, async move { grpc_stop.cancelled().await }));

    let (http_node, http_ready, http_stop) = (node.clone(), readiness.clone(), stop.clone());
    let http_task = tokio::spawn(async move {
        if let Err(error) = http.serve(http_node, http_ready, http_stop).await {
            error!(%error, "the dashboard's server stopped");
        }
    });
    let dns_task = serve_dns(&config, &node, &stop, &readiness).await?;

    let myself = myself(&config, works.raft());
    let (raft, mut parts) = works.start(myself, readiness.clone(), &stop);
    if config.join && node.replica.read(|state| state.group.0.is_empty()) {
        let address = config.advertised();
        info!(id = config.id, address, "waits to be added: regentctl members add ID --address HOST:PORT");
    }
    info!(id = config.id, region = %config.region, "coordinator started");
    let watching = tokio::spawn(watch(node.turns().clone()));

    let code = wait(&raft, &mut grpc_task, &mut parts).await?;
    watching.abort();
    stop.cancel();
    raft.shutdown().await;
    let drain = async {
        let _ = grpc_task.await;
        let _ = http_task.await;
        if let Some(task) = dns_task {
            let _ = task.await;
        }
    };
    // Streams that do not end by themselves are cut with the process.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), drain).await;
    Ok(code)
}

/// Tells systemd that this process lives, as long as the post and the engine go on. Raft needs nobody to tell: the others
/// elect another leader without one that does not answer.
async fn watch(turns: Turns) {
    let follow = Watchdog::of_environment().follow(vec![turns.post, turns.engine], |telling| match telling {
        Telling::Nothing => {}
        Telling::Ready => info!("systemd knows that the coordinator is ready"),
        Telling::NotYet(error) => warn!(%error, "systemd cannot be told that the coordinator is ready"),
    });
    follow.await;
}

fn myself(config: &Config, raft: &RaftHandle) -> Coordinator {
    Coordinator {
        id: CoordinatorId(config.id),
        identity: raft.identity().clone(),
        region: config.region.clone(),
        grpc: config.advertised(),
        dashboard: config.dashboard.to_string(),
        dns: config.dns.as_ref().map(|dns| dns.listen.to_string()).unwrap_or_default(),
    }
}

async fn serve_dns(
    config: &Config,
    node: &Node,
    stop: &CancellationToken,
    readiness: &Readiness,
) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
    let Some(options) = &config.dns else {
        readiness.set(Latch::DnsBound);
        return Ok(None);
    };
    let zone = dns::Zone::new(&options.zone, &options.name_servers)?;
    let bound = dns::bind(options.listen).await?;
    readiness.set(Latch::DnsBound);
    let (node, stop) = (node.clone(), stop.clone());
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = bound.serve(zone, node, stop).await {
            error!(%error, "the DNS server stopped");
        }
    })))
}

/// Until a signal ends the process in order, or something that it cannot go on without has failed.
async fn wait(
    raft: &RaftHandle,
    grpc: &mut tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    parts: &mut JoinSet<()>,
) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        reason = raft.failed() => {
            error!(reason, "replication failed: the node steps down");
            return Ok(ExitCode::FAILURE);
        }
        // A node that leads and decides nothing would be a silent stall: it makes room for one that does.
        Some(ended) = parts.join_next() => {
            error!(?ended, "a part of the coordinator ended");
            return Ok(ExitCode::FAILURE);
        }
        ended = grpc => {
            error!(?ended, "the gRPC server ended");
            return Ok(ExitCode::FAILURE);
        }
    }
    info!("stopping");
    Ok(ExitCode::SUCCESS)
}
