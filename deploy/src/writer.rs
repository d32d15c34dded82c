//! The client that writes numbered rows through the DNS name, one after the other, and remembers what was acknowledged.
//!
//! A number is used again only while no one has acknowledged it. So what is missing in the end, of all that was
//! acknowledged, was lost; and while no number is acknowledged, the service is down for this client.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use resolve::Resolver;

pub mod resolve;

/// What the client is set to.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// The service's name, absolute.
    pub name: String,
    /// The service's port.
    pub port: u16,
    /// Authoritative servers of the name.
    pub servers: Vec<SocketAddr>,
    /// For one request.
    pub timeout: Duration,
    /// From the start of one request to the start of the next, at least.
    pub pace: Duration,
    /// The first number.
    pub first: i64,
}

impl WriterOptions {
    /// 300 ms for a request, a hundred rows in a second, from 1.
    #[must_use]
    pub fn new(name: &str, port: u16, servers: Vec<SocketAddr>) -> Self {
        let (timeout, pace) = (Duration::from_millis(300), Duration::from_millis(10));
        Self { name: name.to_owned(), port, servers, timeout, pace, first: 1 }
    }
}

/// A row that a service acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// Its number.
    pub n: i64,
    /// When its request was sent.
    pub sent: Instant,
    /// When the acknowledgement was here.
    pub at: Instant,
    /// Who acknowledged it.
    pub by: IpAddr,
}

/// What the client remembers.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// In order.
    pub acknowledged: Vec<Acknowledged>,
    /// Requests without an acknowledgement.
    pub failed: u64,
    /// Why the last of those failed.
    pub last_error: Option<String>,
}

/// A time without an acknowledged write.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// The last acknowledged before it.
    pub before: Acknowledged,
    /// The first acknowledged after it.
    pub after: Acknowledged,
}

impl Gap {
    /// How long it was.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.after.at.duration_since(self.before.at)
    }
}

impl Record {
    /// The longest time between two acknowledgements, if there are two.
    #[must_use]
    pub fn longest_gap(&self) -> Option<Gap> {
        let pairs = self.acknowledged.windows(2);
        pairs.map(|pair| Gap { before: pair[0], after: pair[1] }).max_by_key(Gap::length)
    }

    /// Acknowledged numbers that are not among `rows`.
    #[must_use]
    pub fn missing(&self, rows: &BTreeSet<i64>) -> Vec<i64> {
        self.acknowledged.iter().map(|row| row.n).filter(|n| !rows.contains(n)).collect()
    }

    /// The highest acknowledged number.
    #[must_use]
    pub fn highest(&self) -> Option<i64> {
        self.acknowledged.last().map(|row| row.n)
    }
}

/// A client at work.
pub struct Writer {
    record: Arc<Mutex<Record>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts to write.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn start(options: WriterOptions) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(options.timeout).build().context("no HTTP client")?;
        let record = Arc::new(Mutex::new(Record::default()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(write(options, http, Arc::clone(&record), stopped));
        Ok(Self { record, stop, task })
    }

    /// What is remembered so far.
    #[must_use]
    pub fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an acknowledgement of a request that is sent from now on; gives it.
    ///
    /// # Errors
    /// None came within the time; with the last reason.
    pub async fn acknowledged_anew(&self, within: Duration) -> Result<Acknowledged> {
        let now = Instant::now();
        self.acknowledged_when("an acknowledged write", within, |row| row.sent > now).await
    }

    /// Waits for an acknowledgement that fits.
    ///
    /// # Errors
    /// None came within the time; with the last reason.
    pub async fn acknowledged_when(
        &self,
        what: &str,
        within: Duration,
        fits: impl Fn(&Acknowledged) -> bool,
    ) -> Result<Acknowledged> {
        crate::wait::until(what, within, || async {
            let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            match record.acknowledged.last().filter(|row| fits(row)) {
                Some(row) => Ok(*row),
                None => bail!("{}", record.last_error.as_deref().unwrap_or("nothing was refused either")),
            }
        })
        .await
    }

    /// Ends it after the request in flight.
    ///
    /// # Errors
    /// It had died.
    pub async fn stop(self) -> Result<Record> {
        self.stop.send_replace(true);
        self.task.await.context("the writer died")?;
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(record)
    }
}

async fn write(
    options: WriterOptions,
    http: reqwest::Client,
    record: Arc<Mutex<Record>>,
    stopped: watch::Receiver<bool>,
) {
    let mut resolver = Resolver::new(options.servers.clone());
    let mut pace = tokio::time::interval(options.pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = options.first;
    while !*stopped.borrow() {
        pace.tick().await;
        let sent = Instant::now();
        let outcome = post(&options, &http, &mut resolver, n).await;
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(by) => {
                record.acknowledged.push(Acknowledged { n, sent, at: Instant::now(), by });
                n += 1;
            }
            Err(error) => {
                record.failed += 1;
                record.last_error = Some(format!("{error:#}"));
            }
        }
    }
}

async fn post(options: &WriterOptions, http: &reqwest::Client, resolver: &mut Resolver, n: i64) -> Result<IpAddr> {
    let address = resolver.resolve(&options.name).await?;
    let url = format!("http://{}/rows", SocketAddr::new(address, options.port));
    let body = serde_json::to_string(&crate::demo::server::Row { n })?;
    let request = http.post(&url).header("content-type", "application/json").body(body);
    let answer = request.send().await.with_context(|| format!("{address} does not take a row"))?;
    if answer.status() != reqwest::StatusCode::CREATED {
        let status = answer.status();
        bail!("{address} refused a row with {status}: {}", answer.text().await.unwrap_or_default().trim());
    }
    Ok(address)
}
