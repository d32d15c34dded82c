//! A real DNS server that takes updates by RFC 2136, signed with TSIG.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::keeper::{Keeper, Process, Program};
use crate::place;
use crate::ports::ADDRESSES;
use crate::wait;
use crate::writer::resolve;

/// Name of the TSIG key.
pub const KEY: &str = "regent.";

const PATIENCE: Duration = Duration::from_secs(15);

/// A zone with one address in it.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Absolute.
    pub name: String,
    /// Within the zone.
    pub record: String,
    /// What it says at the start.
    pub address: IpAddr,
}

/// A running server.
pub struct Knot {
    address: SocketAddr,
    zone: String,
    secret: String,
    folder: PathBuf,
    process: Process,
}

impl Knot {
    /// Starts a server for one zone.
    ///
    /// # Errors
    /// `knotd` is not installed, or does not come up.
    pub async fn start(keeper: &Keeper, folder: &Path, port: u16, zone: &Zone) -> Result<Self> {
        for part in ["zones", "run"] {
            std::fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let address = SocketAddr::new(ADDRESSES[0], port);
        let secret = secret();
        let Zone { name, record, address: answer } = zone;
        let zone_file = format!(
            "{name} 60 SOA ns.{name} admin.{name} 1 3600 600 86400 5\n{name} 60 NS ns.{name}\nns.{name} 60 A 127.0.0.1\n\
             {record}.{name} 1 A {answer}\n"
        );
        std::fs::write(folder.join("zones").join(format!("{name}zone")), zone_file)?;
        let place = folder.display();
        let settings = format!(
            "server:\n  rundir: \"{place}/run\"\n  listen: {}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
             log:\n  - target: stderr\n    any: info\n\
             database:\n  storage: \"{place}/run\"\n\
             key:\n  - id: {KEY}\n    algorithm: hmac-sha256\n    secret: {secret}\n\
             acl:\n  - id: update\n    address: 127.0.0.0/8\n    key: {KEY}\n    action: [update, transfer]\n\
             zone:\n  - domain: {name}\n    storage: \"{place}/zones\"\n    file: \"{name}zone\"\n    acl: update\n",
            address.ip(),
        );
        let config = folder.join("knot.conf");
        place::write_secret(&config, &settings)?;
        let knotd = place::program("knotd")?.display().to_string();
        let program = Program::new("knotd", folder, [knotd, "-c".into(), config.display().to_string()]);
        let process = keeper.spawn(program).await?;
        let knot = Self { address, zone: name.clone(), secret, folder: folder.to_owned(), process };
        wait::until("the DNS server", PATIENCE, || async {
            if !knot.process.is_running() {
                bail!("knotd ended; it said:\n{}", knot.process.last_words());
            }
            resolve::ask(address, &format!("{record}.{name}")).await
        })
        .await?;
        Ok(knot)
    }

    /// Where it answers.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key's secret, in base64.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The process, to freeze or kill.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Writes the secret into a file that only we can read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn secret_file(&self) -> Result<PathBuf> {
        let path = self.folder.join("secret");
        place::write_secret(&path, &self.secret)?;
        Ok(path)
    }

    /// Points a name of the zone to another address, as an operator would with `nsupdate`.
    ///
    /// # Errors
    /// The update is refused.
    pub async fn point_to(&self, record: &str, address: IpAddr) -> Result<()> {
        let name = format!("{record}.{}", self.zone);
        let script = format!(
            "server {} {}\nzone {}\nkey hmac-sha256:{KEY} {}\nupdate delete {name} A\nupdate add {name} 1 A {address}\nsend\n",
            self.address.ip(),
            self.address.port(),
            self.zone,
            self.secret
        );
        let mut child = Command::new(place::program("nsupdate")?)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start nsupdate")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes()).await?;
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.context("nsupdate hangs")??;
        if !output.status.success() {
            bail!("the update of {name} was refused: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// 32 random bytes in base64.
fn secret() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat();
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
