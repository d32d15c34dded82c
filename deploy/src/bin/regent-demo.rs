//! The demonstration's service; see `regent_deploy::demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use regent_deploy::demo::{DemoConfig, daemon, server};

/// Takes numbered rows over HTTP and writes them into PostgreSQL and Redis.
#[derive(Parser)]
struct Arguments {
    /// What to do.
    action: Action,
    /// The service's file.
    #[arg(long)]
    config: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// Start it in the background and wait until it listens.
    Start,
    /// Stop it.
    Stop,
    /// Exit with 0 if it runs, else with 3.
    Status,
    /// Run it in the foreground.
    Run,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { action, config } = Arguments::parse();
    match action {
        Action::Start => daemon::start(&config).await?,
        Action::Stop => daemon::stop(&config).await?,
        Action::Status if daemon::status(&config)?.is_some() => {}
        Action::Status => return Ok(ExitCode::from(3)),
        Action::Run => server::serve(DemoConfig::load(&config)?).await?,
    }
    Ok(ExitCode::SUCCESS)
}
