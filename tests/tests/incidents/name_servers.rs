//! Real DNS servers that take updates, in the witness's region, and a proxy that holds an update on its way.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use regent_deploy::keeper::Program;
use regent_deploy::place;
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::writer::resolve;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const SECRET: &str = "aGVyZSBpcyBhIHNlY3JldCBvZiAzMiBieXRlcyEhISE=";
/// RFC 1035 and RFC 2136.
const UPDATE: u8 = 5;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Knot,
    Bind,
}

/// A server for one zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameServer {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
}

impl NameServer {
    /// Starts it in a region; its one name has the address `first`.
    pub(crate) async fn start(kind: Kind, region: &Region, folder: &Path, port: u16, first: &str) -> Result<Self> {
        place::passable(folder)?;
        let server = Self { kind, address: SocketAddr::new(region.place().listen.ip(), port) };
        let zone = format!("$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\nshop A {first}\n");
        std::fs::write(folder.join("zone"), zone)?;
        let (program, words, settings) = match kind {
            Kind::Knot => ("knotd", vec!["-c"], server.knot(folder)),
            Kind::Bind => ("named", vec!["-g", "-c"], server.bind(folder)),
        };
        let file = folder.join("server.conf");
        std::fs::write(&file, settings)?;
        let mut command = vec![place::program(program)?.display().to_string()];
        command.extend(words.into_iter().map(String::from));
        command.push(file.display().to_string());
        let process = region.keeper().spawn(Program::new(program, folder, command)).await?;
        wait::until("the DNS server", Duration::from_secs(15), || async {
            if !process.is_running() {
                bail!("{program} ended; it said:\n{}", process.last_words());
            }
            resolve::ask(server.address, &server.name()).await
        })
        .await?;
        Ok(server)
    }

    /// The resource's name in the document.
    pub(crate) const fn resource(self) -> &'static str {
        match self.kind {
            Kind::Knot => "at-knot",
            Kind::Bind => "at-bind",
        }
    }

    fn zone(self) -> &'static str {
        match self.kind {
            Kind::Knot => "knot.test.",
            Kind::Bind => "bind.test.",
        }
    }

    /// The name that follows the primary.
    pub(crate) fn name(self) -> String {
        format!("shop.{}", self.zone())
    }

    /// The resource in the file of an agent, which updates by way of `update`.
    pub(crate) fn options(self, own: &str, update: SocketAddr) -> Value {
        json!({
            "kind": "dns",
            "addresses": [own],
            "authorities": [self.address],
            "update": {
                "server": update,
                "zone": self.zone(),
                "key": { "name": "regent.", "algorithm": "hmac-sha256", "secret": SECRET },
            },
        })
    }

    /// All that it answers.
    pub(crate) async fn dig(self, name: &str, kind: &str) -> Result<String> {
        let (ip, port) = (format!("@{}", self.address.ip()), self.address.port().to_string());
        let words = ["+short", "+time=1", "+tries=3", &ip, "-p", &port, name, kind];
        let output = tokio::process::Command::new(place::program("dig")?).args(words).output().await?;
        Ok(String::from_utf8(output.stdout)?.lines().collect::<Vec<_>>().join(" "))
    }

    fn knot(self, folder: &Path) -> String {
        let (folder, ip, port, zone) = (folder.display(), self.address.ip(), self.address.port(), self.zone());
        format!(
            "server:\n  rundir: {folder}\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\nlog:\n  - target: stderr\n    any: info\ndatabase:\n  storage: {folder}\n\
             key:\n  - id: regent.\n    algorithm: hmac-sha256\n    secret: {SECRET}\n\
             acl:\n  - id: update\n    key: regent.\n    action: update\n\
             zone:\n  - domain: {zone}\n    storage: {folder}\n    file: zone\n    acl: update\n"
        )
    }

    fn bind(self, folder: &Path) -> String {
        let (folder, ip, port, zone) = (folder.display(), self.address.ip(), self.address.port(), self.zone());
        format!(
            "options {{\n  directory \"{folder}\";\n  pid-file \"{folder}/named.pid\";\n  \
             session-keyfile \"{folder}/session.key\";\n  listen-on port {port} {{ {ip}; }};\n  listen-on-v6 {{ none; \
             }};\n  recursion no;\n  dnssec-validation no;\n  notify no;\n}};\ncontrols {{ }};\n\
             key \"regent.\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
             zone \"{zone}\" {{\n  type primary;\n  file \"{folder}/zone\";\n  allow-update {{ key \"regent.\"; }};\n}};\n"
        )
    }
}

/// A way to a server on which questions pass and updates wait.
pub(crate) struct SlowWay {
    pub(crate) address: SocketAddr,
    held: Arc<Mutex<usize>>,
    answers: Arc<Mutex<Vec<u8>>>,
    release: watch::Sender<bool>,
}

impl SlowWay {
    /// A way from within a region.
    pub(crate) async fn lay(region: usize, net: &regent_deploy::net::Net, to: SocketAddr) -> Result<Self> {
        let (release, released) = watch::channel(false);
        let (held, answers) = (Arc::<Mutex<usize>>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (sender, laid) = tokio::sync::oneshot::channel();
        let (counted, said) = (Arc::clone(&held), Arc::clone(&answers));
        // It ends with the runtime of its thread, when whoever could release it is gone.
        let mut gone = released.clone();
        net.inside(region, async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let _gone = sender.send(listener.local_addr().expect("an address"));
            let serve = async {
                while let Ok((near, _)) = listener.accept().await {
                    tokio::spawn(carry(near, to, released.clone(), Arc::clone(&counted), Arc::clone(&said)));
                }
            };
            tokio::select! {
                () = serve => {}
                () = async { while gone.changed().await.is_ok() {} } => {}
            }
        })?;
        Ok(Self { address: laid.await.context("no way")?, held, answers, release })
    }

    /// Waits until an update is on it.
    pub(crate) async fn holds(&self, within: Duration) -> Result<()> {
        wait::until("an update on its way", within, || async {
            ensure!(*lock(&self.held) > 0, "there is none");
            Ok(())
        })
        .await
    }

    /// Lets all arrive, and gives what the server said to each.
    pub(crate) async fn arrive(&self, within: Duration) -> Result<Vec<u8>> {
        self.release.send_replace(true);
        wait::until("answers to the updates", within, || async {
            let (held, answers) = (*lock(&self.held), lock(&self.answers).clone());
            ensure!(answers.len() >= held, "{} of {held} are answered", answers.len());
            Ok(answers)
        })
        .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn carry(
    mut near: TcpStream,
    to: SocketAddr,
    mut released: watch::Receiver<bool>,
    held: Arc<Mutex<usize>>,
    answers: Arc<Mutex<Vec<u8>>>,
) -> Result<()> {
    let first = message(&mut near).await?;
    // By which an agent sees that it may write is none: it has no record to change.
    let changes = first.get(10..12).is_some_and(|count| count != [0, 0]);
    let update = changes && first.get(4).is_some_and(|flags| (flags >> 3) & 0xF == UPDATE);
    if update {
        *lock(&held) += 1;
        released.wait_for(|released| *released).await?;
    }
    let mut far = TcpStream::connect(to).await?;
    far.write_all(&first).await?;
    if update {
        let answer = message(&mut far).await?;
        lock(&answers).push(answer.get(5).copied().unwrap_or_default() & 0xF);
        near.write_all(&answer).await?;
    }
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// One message with the two bytes of its length before it.
async fn message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length) + 2];
    message[..2].copy_from_slice(&length.to_be_bytes());
    stream.read_exact(&mut message[2..]).await?;
    Ok(message)
}
