//! The epoch of the application as every coordinator shows it, all the time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use regent_deploy::world::World;
use tokio::sync::watch;

const PACE: Duration = Duration::from_millis(250);
const METRIC: &str = "regent_application_epoch{";

/// What one coordinator showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Which coordinator, by its region.
    pub region: usize,
    /// A coordinator that was started anew reads its log again: its epochs are compared from there on.
    pub process: i32,
    /// What it showed.
    pub epoch: u64,
}

/// Looks as long as it lives.
pub struct Epochs {
    seen: Arc<Mutex<Vec<Sighting>>>,
    _alive: watch::Sender<()>,
}

impl Epochs {
    /// Begins to look.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub fn watch(world: &Arc<World>) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build().context("no HTTP")?;
        let (alive, ended) = watch::channel(());
        for region in 0..world.regions().len() {
            let look = look(Arc::clone(world), region, http.clone(), Arc::clone(&seen));
            let mut ended = ended.clone();
            // Pages are shown to the region alone.
            world.net()?.inside(region, async move {
                tokio::select! {
                    () = look => {}
                    _ = ended.changed() => {}
                }
            })?;
        }
        Ok(Self { seen, _alive: alive })
    }

    /// All that was seen, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Sighting> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn look(world: Arc<World>, region: usize, http: reqwest::Client, seen: Arc<Mutex<Vec<Sighting>>>) {
    let mut pace = tokio::time::interval(PACE);
    loop {
        pace.tick().await;
        let place = &world.regions()[region];
        let Some(process) = place.coordinator().process() else { continue };
        // Who does not answer shows nothing.
        let Ok(epoch) = epoch(&http, place.place().dashboard).await else { continue };
        let sighting = Sighting { region, process: process.pid().as_raw(), epoch };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().rev().find(|last| last.region == region) != Some(&sighting) {
            seen.push(sighting);
        }
    }
}

async fn epoch(http: &reqwest::Client, dashboard: SocketAddr) -> Result<u64> {
    let text = http.get(format!("http://{dashboard}/metrics")).send().await?.text().await?;
    let line = text.lines().find(|line| line.starts_with(METRIC)).context("no epoch yet")?;
    let value: f64 = line.rsplit(' ').next().context("no value")?.parse()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number, written as such")]
    Ok(value as u64)
}
