//! Writers in every region, all the time: one through the DNS name as clients should, and in each cluster two stubborn ones,
//! who write into the database beside them whatever anybody says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::wait;
use regent_deploy::world::World;
use regent_deploy::writer::{Acknowledged, Record, Target, Writer, WriterOptions};

/// Between two rows of one writer: seven of them share the machine with everything that is tested.
const PACE: Duration = Duration::from_millis(50);
/// So many refusals are no accident.
const IN_A_ROW: usize = 4;
/// Numbers of one writer.
const RANGE: i64 = 1_000_000;

/// How a writer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the DNS name and the service.
    Name,
    /// Into its region's own PostgreSQL.
    Postgres,
    /// Into its region's own Redis.
    Redis,
}

/// What one writer remembers.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// Where it stood.
    pub region: usize,
    /// How it wrote.
    pub way: Way,
    /// What it was told.
    pub record: Record,
}

struct Hand {
    region: usize,
    way: Way,
    writer: Writer,
}

/// See the module.
pub struct Crew {
    hands: Vec<Hand>,
}

impl Crew {
    /// Starts all writers, each inside its region, and waits until those who can have written some rows.
    ///
    /// # Errors
    /// The world has no network of namespaces, or nobody can write through the name.
    pub async fn start(world: &World) -> Result<Self> {
        let mut hands = Vec::new();
        let mut first = 1;
        for (region, place) in world.regions().iter().enumerate() {
            let by_name = world.writer_in(region);
            let mut ways = vec![(Way::Name, by_name.target.clone())];
            if let Ok(cluster) = place.cluster() {
                let (address, conninfo) = (cluster.address, cluster.postgres.client_conninfo());
                ways.push((Way::Postgres, Target::Postgres { address, conninfo }));
                ways.push((Way::Redis, Target::Redis { address, url: cluster.redis.client_url() }));
            }
            for (way, target) in ways {
                let options = WriterOptions { target, pace: PACE, first, ..by_name.clone() };
                hands.push(Hand { region, way, writer: Writer::start_inside(world.net()?, region, options)? });
                first += RANGE;
            }
        }
        let crew = Self { hands };
        for region in 0..world.regions().len() {
            crew.writes(region, Way::Name, Duration::from_secs(20)).await?;
        }
        Ok(crew)
    }

    /// Waits for an acknowledgement of a row that the writer sends from now on.
    ///
    /// # Errors
    /// None came within the time.
    pub async fn writes(&self, region: usize, way: Way, within: Duration) -> Result<Acknowledged> {
        let row = self.writer(region, way)?.acknowledged_anew(within).await;
        row.with_context(|| format!("the writer in region {region} ({way:?})"))
    }

    /// Waits until a row that the writer sends from now on is acknowledged by this region's cluster.
    ///
    /// # Errors
    /// None was within the time.
    pub async fn writes_to(&self, region: usize, world: &World, to: usize, within: Duration) -> Result<Acknowledged> {
        let (address, now) = (world.regions()[to].cluster()?.address, Instant::now());
        let writer = self.writer(region, Way::Name)?;
        writer.acknowledged_when("a write there", within, |row| row.by == address && row.sent > now).await
    }

    /// Sees the writer get a row acknowledged at least once in every `pause` for as long as this.
    ///
    /// # Errors
    /// It did not.
    pub async fn keeps_writing(&self, region: usize, way: Way, pause: Duration, long: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + long;
        while tokio::time::Instant::now() < end {
            self.writes(region, way, pause).await?;
        }
        Ok(())
    }

    /// Waits until a writer is refused some rows in a row that it sends from now on; gives when the last one before was
    /// acknowledged.
    ///
    /// # Errors
    /// It was not within the time.
    pub async fn is_refused(&self, region: usize, way: Way, within: Duration) -> Result<Option<Instant>> {
        let (writer, now) = (self.writer(region, way)?, Instant::now());
        wait::until("a refusal", within, || async {
            let record = writer.record();
            let since = record.acknowledged.last().map_or(now, |row| row.at.max(now));
            let refused = record.failures.iter().rev().take_while(|sent| **sent > since).count();
            ensure!(refused >= IN_A_ROW, "only {refused} rows in a row were refused");
            Ok(record.acknowledged.last().map(|row| row.at))
        })
        .await
    }

    /// Sees a writer try and be refused again and again, for as long as this.
    ///
    /// # Errors
    /// A row was acknowledged, or it did not try.
    pub async fn takes_nothing(&self, region: usize, way: Way, long: Duration) -> Result<()> {
        let (before, end) = (self.record(region, way)?.acknowledged.len(), tokio::time::Instant::now() + long);
        while tokio::time::Instant::now() < end {
            self.is_refused(region, way, Duration::from_secs(5)).await?;
            let record = self.record(region, way)?;
            let more = record.acknowledged.len() - before;
            ensure!(more == 0, "{more} rows by {way:?} were acknowledged in region {region}");
        }
        Ok(())
    }

    /// What a writer remembers so far.
    ///
    /// # Errors
    /// There is no such writer.
    pub fn record(&self, region: usize, way: Way) -> Result<Record> {
        Ok(self.writer(region, way)?.record())
    }

    /// Ends all writers.
    ///
    /// # Errors
    /// One had died.
    pub async fn stop(self) -> Result<Vec<Sheet>> {
        let mut sheets = Vec::new();
        for Hand { region, way, writer } in self.hands {
            sheets.push(Sheet { region, way, record: writer.stop().await? });
        }
        Ok(sheets)
    }

    fn writer(&self, region: usize, way: Way) -> Result<&Writer> {
        let hand = self.hands.iter().find(|hand| hand.region == region && hand.way == way);
        Ok(&hand.with_context(|| format!("nobody writes by {way:?} in region {region}"))?.writer)
    }
}
