//! The judge: what clients were told against what the databases hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::region::Region;
use regent_deploy::writer::Acknowledged;

use super::client::Sheet;

/// Rows may have been written so long before they were acknowledged.
const SLACK: Duration = Duration::from_secs(5);

/// The rows, and how far they were judged.
pub struct Ledger {
    judged: Option<Instant>,
}

/// A row: whose, and its number.
type Row = (u32, i64);

/// The time without an acknowledgement around a switchover.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// The last before it.
    pub last: Acknowledged,
    /// The first after it.
    pub first: Acknowledged,
    /// From one side to the other.
    pub moved: bool,
}

impl Ledger {
    /// Makes the table, without any constraint: a row that came twice would be there twice.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub async fn create(primary: &Region) -> Result<Self> {
        let client = primary.cluster()?.postgres.connect().await?;
        let table = "CREATE TABLE ledger (client bigint NOT NULL, n bigint NOT NULL, \
                     at timestamptz NOT NULL DEFAULT clock_timestamp())";
        client.batch_execute(table).await?;
        Ok(Self { judged: None })
    }

    /// All that was acknowledged since the last judgement is at the primary, and nothing is there twice.
    ///
    /// # Errors
    /// What is lost or doubled.
    pub async fn judge(&mut self, primary: &Region, sheets: &[Sheet]) -> Result<()> {
        let since = self.judged.replace(Instant::now());
        let age = since.map(|since| since.elapsed() + SLACK);
        let (rows, list) = (postgres(primary, age).await?, redis(primary).await?);
        let fresh = |row: &Acknowledged| since.is_none_or(|since| row.at >= since);
        compare(sheets, &rows, &list, fresh)
    }

    /// The same of everything there is. Gives the number of rows.
    ///
    /// # Errors
    /// What is lost or doubled.
    pub async fn judge_all(&self, primary: &Region, sheets: &[Sheet]) -> Result<usize> {
        let (rows, list) = (postgres(primary, None).await?, redis(primary).await?);
        compare(sheets, &rows, &list, |_| true)?;
        Ok(rows.len() + list.len())
    }
}

/// Read over the Unix socket, which works behind a fence too.
async fn postgres(side: &Region, age: Option<Duration>) -> Result<Vec<Row>> {
    let client = side.cluster()?.postgres.connect_as_agent_to_application().await?;
    let seconds = age.map_or(f64::from(u32::MAX), |age| age.as_secs_f64());
    let select = "SELECT client, n FROM ledger WHERE at > clock_timestamp() - make_interval(secs => $1)";
    let rows = client.query(select, &[&seconds]).await.context("cannot read the ledger")?;
    let row = |row: &tokio_postgres::Row| Ok((u32::try_from(row.try_get::<_, i64>(0)?)?, row.try_get(1)?));
    rows.iter().map(row).collect()
}

async fn redis(side: &Region) -> Result<Vec<Row>> {
    let mut connection = side.cluster()?.redis.connect_as_agent().await?;
    let range = redis::cmd("LRANGE").arg("ledger").arg(0).arg(-1).to_owned();
    let rows: Vec<String> = range.query_async(&mut connection).await.context("cannot read the list")?;
    let row = |row: &String| {
        let (client, n) = row.split_once(':').context("a row without a number")?;
        Ok((client.parse()?, n.parse()?))
    };
    rows.iter().map(row).collect()
}

fn compare(sheets: &[Sheet], rows: &[Row], list: &[Row], counts: impl Fn(&Acknowledged) -> bool) -> Result<()> {
    for (what, there, redis) in [("PostgreSQL", rows, false), ("Redis", list, true)] {
        let mut times: BTreeMap<Row, u32> = BTreeMap::new();
        there.iter().for_each(|row| *times.entry(*row).or_default() += 1);
        let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).map(|(row, _)| *row).collect();
        ensure!(doubled.is_empty(), "{what} has {} rows more than once: {:?}", doubled.len(), first(&doubled));
        let own = sheets.iter().filter(|sheet| sheet.redis == redis);
        let acknowledged = own.flat_map(|sheet| sheet.acknowledged.iter().map(move |row| (sheet.client, row)));
        let missing: Vec<_> = acknowledged
            .filter(|(client, row)| counts(row) && !times.contains_key(&(*client, row.n)))
            .map(|(client, row)| (client, row.n, row.by))
            .collect();
        ensure!(missing.is_empty(), "{what} lacks {} acknowledged rows: {:?}", missing.len(), first(&missing));
    }
    Ok(())
}

fn first<T>(all: &[T]) -> &[T] {
    all.get(..all.len().min(10)).unwrap_or_default()
}

fn in_order(sheets: &[Sheet]) -> Vec<Acknowledged> {
    let mut all: Vec<Acknowledged> = sheets.iter().flat_map(|sheet| sheet.acknowledged.iter().copied()).collect();
    all.sort_by_key(|row| row.at);
    all
}

/// Where acknowledgements changed over from one side to another.
#[must_use]
pub fn changes(sheets: &[Sheet]) -> Vec<(IpAddr, IpAddr)> {
    in_order(sheets).windows(2).filter(|pair| pair[0].by != pair[1].by).map(|pair| (pair[0].by, pair[1].by)).collect()
}

/// The change from one side to the other since then, or the longest time without an acknowledgement if there was none.
#[must_use]
pub fn gap(sheets: &[Sheet], since: Instant, old: IpAddr, new: IpAddr) -> Option<Gap> {
    let all = in_order(sheets);
    let lately: Vec<Acknowledged> = all.into_iter().filter(|row| row.at >= since).collect();
    let change = lately.windows(2).find(|pair| pair[0].by == old && pair[1].by == new);
    let longest = || lately.windows(2).max_by_key(|pair| pair[1].at.duration_since(pair[0].at));
    let (pair, moved) = change.map(|pair| (pair, true)).or_else(|| longest().map(|pair| (pair, false)))?;
    Some(Gap { last: pair[0], first: pair[1], moved })
}

/// Who acknowledged anything.
#[must_use]
pub fn sides(sheets: &[Sheet]) -> BTreeSet<IpAddr> {
    sheets.iter().flat_map(|sheet| sheet.acknowledged.iter().map(|row| row.by)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(client: u32, numbers: &[i64]) -> Sheet {
        let row = |n: &i64| {
            let at = Instant::now();
            Acknowledged { n: *n, sent: at, at, by: IpAddr::from([127, 0, 0, 1]) }
        };
        Sheet { client, acknowledged: numbers.iter().map(row).collect(), ..Sheet::default() }
    }

    #[test]
    fn what_is_lost_or_doubled_is_named() {
        let sheets = [sheet(1, &[1, 2]), sheet(2, &[1])];
        let judged = |rows: &[Row]| compare(&sheets, rows, &[], |_| true).map_err(|error| error.to_string());
        assert_eq!(judged(&[(1, 1), (1, 2), (2, 1), (2, 2)]), Ok(()), "a row that nobody knows of is no loss");
        assert!(judged(&[(1, 1), (2, 1)]).unwrap_err().contains("lacks 1 acknowledged rows: [(1, 2,"));
        assert!(judged(&[(1, 1), (1, 2), (2, 1), (2, 1)]).unwrap_err().contains("more than once: [(2, 1)]"));
    }
}
