//! How long clients were without an acknowledgement: of each client by itself, since another one's rows say nothing of its
//! own outage. The longest counts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::client::Sheet;

/// The longest time without an acknowledgement that any of them had since then. It may have begun before.
///
/// # Errors
/// One of them has had none since then.
pub fn longest_gap(sheets: &[Sheet], since: Instant) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for sheet in sheets {
        let rows = &sheet.acknowledged;
        let first = rows.iter().position(|row| row.at >= since);
        let first = first.with_context(|| format!("client {} has written nothing since", sheet.client))?;
        let lately = rows.get(first.saturating_sub(1)..).unwrap_or_default();
        let own = lately.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at)).max();
        longest = longest.max(own.unwrap_or_default());
    }
    Ok(longest)
}

/// From then until each of them had its first row acknowledged; the longest.
///
/// # Errors
/// One of them has had none since then.
pub fn after(sheets: &[Sheet], word: Instant) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for sheet in sheets {
        let first = sheet.acknowledged.iter().find(|row| row.at > word);
        let first = first.with_context(|| format!("client {} has written nothing since", sheet.client))?;
        longest = longest.max(first.at.saturating_duration_since(word));
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use regent_deploy::writer::Acknowledged;

    use super::*;

    /// A client with rows so many milliseconds after the beginning.
    fn sheet(client: u32, start: Instant, at: &[u64]) -> Sheet {
        let row = |(n, at): (i64, &u64)| {
            let at = start + Duration::from_millis(*at);
            Acknowledged { n, sent: at, at, by: IpAddr::from([127, 0, 0, 1]) }
        };
        Sheet { client, acknowledged: (1..).zip(at).map(row).collect(), ..Sheet::default() }
    }

    #[test]
    fn the_client_that_waited_longest_counts_and_not_the_one_that_was_served_first() {
        let start = Instant::now();
        let sheets = [sheet(0, start, &[0, 900, 1_100, 1_200]), sheet(1, start, &[0, 980, 2_700, 2_800])];
        let word = start + Duration::from_millis(1_000);
        assert_eq!(after(&sheets, word).unwrap(), Duration::from_millis(1_700));
        // What began before it is as long.
        assert_eq!(longest_gap(&sheets, word).unwrap(), Duration::from_millis(1_720));
        assert_eq!(longest_gap(&sheets, start).unwrap(), Duration::from_millis(1_720));
        assert_eq!(longest_gap(&sheets[..1], word).unwrap(), Duration::from_millis(200));
    }

    #[test]
    fn a_client_that_never_came_back_is_named() {
        let start = Instant::now();
        let sheets = [sheet(0, start, &[0, 1_100]), sheet(1, start, &[0, 900])];
        let word = start + Duration::from_millis(1_000);
        for told in [after(&sheets, word), longest_gap(&sheets, word)] {
            assert!(told.unwrap_err().to_string().contains("client 1 has written nothing"));
        }
    }
}
