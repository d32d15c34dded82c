//! A network of namespaces on one machine, which can be cut, thinned and slowed between regions while everything on both
//! sides goes on running.
//!
//! ```text
//!        the harness's own namespace: the router, 10.77.N.1 towards region N
//!   ┌──────────────┬───────── nftables: forward ─────────┬──────────────┐
//!   r0             r1                                    r2             ▲ the harness reaches every region, always
//!   │              │                                     │
//!   eth0 10.77.0.2 eth0 10.77.1.2                        eth0 10.77.2.2
//!   eu-west        eu-central                            eu-north
//! ```
//!
//! What is dropped is dropped on its way from one region to another, and what is slow makes a detour over a [`relay`]. The
//! harness stands outside of that: an oracle sees both sides of a partition. Nobody is told of a cut, as with a cable:
//! connections fall silent.
//!
//! The namespaces have no names: they vanish with the last process in them, and a killed harness leaves nothing behind.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, Uid};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::oneshot;

use crate::place;
use crate::wait;

mod relay;
mod weather;

use relay::Relay;
pub use weather::{Link, Weather};

const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Net {
    weather: Mutex<Weather>,
    relay: Relay,
    regions: Mutex<Vec<File>>,
    disks: Mutex<Vec<PathBuf>>,
}

impl Net {
    /// Moves this thread, and every thread and process that it starts from now on, into namespaces of its own: one of
    /// networks, which becomes the router, and one of mounts.
    ///
    /// Threads that run already stay where they are: enter before the runtime is made.
    ///
    /// # Errors
    /// We are not root, or the machine does not allow it.
    pub fn enter() -> Result<Self> {
        ensure!(Uid::effective().is_root(), "namespaces of networks need root");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("no new namespaces")?;
        // What is mounted here is nobody else's business.
        call("mount", &["--make-rprivate", "/"])?;
        call("ip", &["link", "set", "lo", "up"])?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward between regions")?;
        let relay = Relay::default();
        Ok(Self { weather: Mutex::default(), relay, regions: Mutex::default(), disks: Mutex::default() })
    }

    /// Where everything of a region listens.
    #[must_use]
    pub const fn address(region: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, region, 2))
    }

    /// What to put before a program so that it begins a namespace of its own.
    ///
    /// # Errors
    /// `unshare` is not installed.
    pub fn launcher() -> Result<Vec<String>> {
        Ok(vec![place::program("unshare")?.display().to_string(), "--net".into(), "--".into()])
    }

    /// Connects the namespace of `process` to the router, as the next region.
    ///
    /// # Errors
    /// The process has no namespace of its own, or it cannot be connected.
    pub async fn connect(&self, process: Pid) -> Result<()> {
        let path = format!("/proc/{process}/ns/net");
        let own = std::fs::read_link("/proc/thread-self/ns/net").context("no /proc")?;
        wait::until("a namespace", PATIENCE, || async {
            ensure!(std::fs::read_link(&path)? != own, "process {process} is still in ours");
            Ok(())
        })
        .await?;
        let region = self.lock().len();
        let (link, pid) = (format!("r{region}"), process.to_string());
        let (here, there) = (format!("10.77.{region}.1"), format!("10.77.{region}.2"));
        let outer = format!(
            "link add {link} type veth peer name eth0 netns {pid}\naddr add {here}/24 dev {link}\nlink set {link} up\n"
        );
        feed("ip", &["-batch", "-"], &outer).await?;
        let inner =
            format!("link set lo up\naddr add {there}/24 dev eth0\nlink set eth0 up\nroute add default via {here}\n");
        feed("nsenter", &["-t", &pid, "-n", "ip", "-batch", "-"], &inner).await?;
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        self.lock().push(file);
        Ok(())
    }

    /// Changes how the regions are connected, at once and as a whole.
    ///
    /// # Errors
    /// The filter or the router does not take it.
    pub async fn change(&self, change: impl FnOnce(&mut Weather)) -> Result<()> {
        let (rules, delays) = {
            let mut weather = self.weather.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut weather);
            (weather.rules(), weather.delays())
        };
        feed("nft", &["-f", "-"], &rules).await?;
        let detours = self.relay.set(delays)?;
        if detours.is_empty() { Ok(()) } else { feed("ip", &["-batch", "-"], &detours).await }
    }

    /// Runs work on a thread that stands in a region.
    ///
    /// # Errors
    /// There is no such region.
    pub fn inside<W>(&self, region: usize, work: W) -> Result<oneshot::Receiver<W::Output>>
    where
        W: Future<Output: Send> + Send + 'static,
    {
        let namespace = match self.lock().get(region) {
            Some(file) => file.try_clone()?,
            None => bail!("there is no region {region}"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, ended) = oneshot::channel();
        std::thread::Builder::new().name(format!("in-region-{region}")).spawn(move || {
            if setns(namespace, CloneFlags::CLONE_NEWNET).is_ok() {
                let done = runtime.block_on(work);
                // Whoever started it may not wait for it.
                let _gone = sender.send(done);
            }
        })?;
        Ok(ended)
    }

    /// Mounts a small disk in memory at `folder`, seen by this world alone.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn small_disk(&self, folder: &Path, megabytes: u32) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let place = folder.display().to_string();
        call("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0711"), "world", &place])?;
        self.disks.lock().unwrap_or_else(PoisonError::into_inner).push(folder.to_owned());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<File>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for disk in self.disks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // Else its folder could not be removed; it goes with the namespace in any case.
            let _left = call("umount", &["--lazy", &disk.display().to_string()]);
        }
    }
}

fn call(program: &str, words: &[&str]) -> Result<()> {
    let output = std::process::Command::new(place::program(program)?)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {} failed: {}", words.join(" "), said.trim());
    Ok(())
}

async fn feed(program: &str, words: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(place::program(program)?)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    // Closed before its output is read: that is the end of the input.
    child.stdin.take().context("no input")?.write_all(input.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {} failed: {} in\n{input}", words.join(" "), said.trim());
    Ok(())
}
