//! The client that writes numbered rows, one after the other, and remembers what was acknowledged: through the DNS name as
//! clients should, or stubbornly into one database.
//!
//! A number is used again only while no one has acknowledged it. So what is missing in the end, of all that was
//! acknowledged, was lost; and while no number is acknowledged, the service is down for this client.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::net::Net;

use target::Line;

pub mod resolve;
mod target;

pub use target::Target;

/// What the client is set to.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Where it writes.
    pub target: Target,
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
        Self { target: Target::Service { name: name.to_owned(), port, servers }, timeout, pace, first: 1 }
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

impl Acknowledged {
    /// When the acknowledgement was here, by the wall clock.
    #[must_use]
    pub fn wall(&self) -> jiff::Timestamp {
        let ago = jiff::SignedDuration::try_from(self.at.elapsed()).unwrap_or(jiff::SignedDuration::ZERO);
        jiff::Timestamp::now() - ago
    }
}

/// What the client remembers.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// In order.
    pub acknowledged: Vec<Acknowledged>,
    /// Requests without an acknowledgement.
    pub failed: u64,
    /// When those were sent.
    pub failures: Vec<Instant>,
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
        self.missing_rows(rows).map(|row| row.n).collect()
    }

    /// Acknowledged, and not among these rows.
    pub fn missing_rows<'a>(&'a self, rows: &'a BTreeSet<i64>) -> impl Iterator<Item = &'a Acknowledged> {
        self.acknowledged.iter().filter(|row| !rows.contains(&row.n))
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
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Starts to write.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn start(options: WriterOptions) -> Result<Self> {
        let (sender, ended) = oneshot::channel();
        let (record, stop, work) = prepare(options)?;
        tokio::spawn(async move {
            work.await;
            // Whoever started it may not wait for it.
            let _gone = sender.send(());
        });
        Ok(Self { record, stop, ended })
    }

    /// Starts to write from within a region, so that it is cut off together with that.
    ///
    /// # Errors
    /// There is no such region, or the HTTP client cannot be made.
    pub fn start_inside(net: &Net, region: usize, options: WriterOptions) -> Result<Self> {
        let (record, stop, work) = prepare(options)?;
        Ok(Self { record, stop, ended: net.inside(region, work)? })
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
        self.ended.await.context("the writer died")?;
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(record)
    }
}

type Prepared<W> = (Arc<Mutex<Record>>, watch::Sender<bool>, W);

fn prepare(options: WriterOptions) -> Result<Prepared<impl Future<Output = ()> + Send + 'static>> {
    let line = Line::new(options.target.clone(), options.timeout)?;
    let record = Arc::new(Mutex::new(Record::default()));
    let (stop, stopped) = watch::channel(false);
    let work = write(options, line, Arc::clone(&record), stopped);
    Ok((record, stop, work))
}

async fn write(options: WriterOptions, mut line: Line, record: Arc<Mutex<Record>>, stopped: watch::Receiver<bool>) {
    let mut pace = tokio::time::interval(options.pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = options.first;
    while !*stopped.borrow() {
        pace.tick().await;
        let sent = Instant::now();
        let outcome = line.write(n).await;
        let at = Instant::now();
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(by) => {
                record.acknowledged.push(Acknowledged { n, sent, at, by });
                n += 1;
            }
            Err(error) => {
                record.failed += 1;
                record.failures.push(sent);
                record.last_error = Some(format!("{error:#}"));
            }
        }
    }
}
