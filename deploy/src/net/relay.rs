//! The long way between regions: packets that are slow are routed to a device of ours, kept for their time, and put back.
//!
//! ```text
//!  r0 ──► rule: from r0 to 10.77.1.0/24 by table 77 ──► far ──► kept for the delay of 0 → 1 ──► far ──► r1
//! ```
//!
//! It works below every protocol: raft, the agents' streams, replication and DNS all take as long. Packets of one way keep
//! their order. A link that becomes fast again, or is cut, does not change what is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tun::Tun;

/// The device.
const DEVICE: &str = "far";
/// The routing table that knows it alone.
const TABLE: u32 = 77;
/// So many packets wait at most; what is beyond is lost, as in any router.
const ROOM: usize = 20_000;
/// The largest packet of an IPv4 network.
const LARGEST: usize = 65_535;

type Delays = BTreeMap<(usize, usize), Duration>;

/// See the module. Nothing is made before the first link is slow.
#[derive(Debug, Default)]
pub(super) struct Relay {
    delays: Arc<Mutex<Delays>>,
    /// Ways that are routed over it.
    detours: Mutex<BTreeSet<(usize, usize)>>,
    /// Its thread ends when this is dropped.
    at_work: Mutex<Option<oneshot::Sender<()>>>,
}

impl Relay {
    /// Takes the delays of all ways. What is returned has to be done by `ip -batch`: the routes that change.
    pub(super) fn set(&self, delays: Delays) -> Result<String> {
        let mut script = String::new();
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work.is_none() && !delays.is_empty() {
            *at_work = Some(begin(Arc::clone(&self.delays))?);
            // Writing to a string does not fail.
            let _written = writeln!(script, "route add default dev {DEVICE} table {TABLE}");
        }
        let mut detours = self.detours.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: BTreeSet<_> = delays.keys().copied().collect();
        for (verb, ways) in [("add", wanted.difference(&detours)), ("del", detours.difference(&wanted))] {
            for (from, to) in ways {
                let rule = format!("pref {} iif r{from} to 10.77.{to}.0/24 lookup {TABLE}", 1000 + from * 100 + to);
                let _written = writeln!(script, "rule {verb} {rule}");
            }
        }
        *detours = wanted;
        // A way that is fast from now on still has packets on the road.
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).extend(delays);
        Ok(script)
    }
}

/// Puts a thread to work on a device that it makes in the namespace of this one.
fn begin(delays: Arc<Mutex<Delays>>) -> Result<oneshot::Sender<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (alive, ended) = oneshot::channel();
    let (made, is_made) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("relay".into()).spawn(move || {
        runtime.block_on(async {
            let device = match device() {
                Ok(device) => device,
                Err(error) => return drop(made.send(Err(error))),
            };
            drop(made.send(Ok(())));
            tokio::select! {
                () = carry(&device, &delays) => {}
                _ = ended => {}
            }
        });
    })?;
    is_made.recv().context("the relay's thread died")??;
    Ok(alive)
}

fn device() -> Result<Tun> {
    let made = Tun::builder().name(DEVICE).mtu(1500).up().build();
    let device = made.map_err(|error| anyhow::anyhow!("no device for what is slow: {error}"))?.pop();
    // What comes back from it has a sender who lives elsewhere.
    for part in ["all", DEVICE] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{part}/rp_filter"), "0")
            .context("cannot route over the relay")?;
    }
    device.context("no device for what is slow")
}

async fn carry(device: &Tun, delays: &Mutex<Delays>) {
    let mut road: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut number = 0_u64;
    let mut buffer = vec![0; LARGEST];
    loop {
        let next = road.keys().next().map(|(due, _)| *due);
        let arrival = async {
            match next {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = arrival => {
                // What the kernel does not take is lost, as on any road.
                if let Some((_, packet)) = road.pop_first() {
                    let _lost = device.send(&packet).await;
                }
            }
            read = device.recv(&mut buffer) => {
                let Ok(length) = read else { return };
                let Some(way) = way(&buffer[..length]) else { continue };
                let delay = delays.lock().unwrap_or_else(PoisonError::into_inner).get(&way).copied();
                if road.len() < ROOM {
                    number += 1;
                    let due = Instant::now() + delay.unwrap_or_default();
                    road.insert((due, number), buffer[..length].to_vec());
                }
            }
        }
    }
}

/// From which region to which a packet goes; nothing else than IPv4 goes between regions.
fn way(packet: &[u8]) -> Option<(usize, usize)> {
    let region = |address: &[u8]| (address.get(..2)? == [10, 77]).then(|| address.get(2).copied()).flatten();
    let four = packet.first()? >> 4 == 4;
    let (source, destination) = (packet.get(12..16)?, packet.get(16..20)?);
    four.then_some((region(source)?.into(), region(destination)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_a_packet_is_read_from_its_addresses() {
        let mut packet = [0; 28];
        packet[0] = 0x45;
        packet[12..20].copy_from_slice(&[10, 77, 2, 2, 10, 77, 0, 2]);
        assert_eq!(way(&packet), Some((2, 0)));
        packet[12] = 11;
        assert_eq!(way(&packet), None);
        packet[12] = 10;
        packet[0] = 0x60;
        assert_eq!(way(&packet), None);
        assert_eq!(way(&packet[..18]), None);
    }
}
