//! Real authoritative servers in temporary folders on free ports.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::until;

pub(crate) const ZONE: &str = "example.test.";
pub(crate) const NAME: &str = "www.example.test.";
/// The key that may update.
pub(crate) const SECRET: &str = "aGVyZSBpcyBhIHNlY3JldCBvZiAzMiBieXRlcyEhISE=";
/// Another secret.
pub(crate) const OTHER_SECRET: &str = "YW5vdGhlciBzZWNyZXQgb2YgMzIgYnl0ZXMgISEhISE=";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Knot,
    Bind,
}

pub(crate) struct Server {
    kind: Kind,
    folder: TempDir,
    process: Option<Child>,
    pub(crate) address: SocketAddr,
}

/// A port that is free for both UDP and TCP.
pub(crate) fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// Starts a server whose zone has `www` with the address 127.0.0.10, or what `records` say instead.
    pub(crate) async fn start_with(kind: Kind, records: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let zone = format!("$TTL 30\n@ SOA ns hostmaster 1 3600 600 86400 30\n@ NS ns\nns A 127.0.0.1\n{records}\n");
        std::fs::write(folder.path().join("example.test.zone"), zone).unwrap();
        let configuration = match kind {
            Kind::Knot => knot(folder.path(), port),
            Kind::Bind => bind(folder.path(), port),
        };
        std::fs::write(folder.path().join("server.conf"), configuration).unwrap();
        let mut server = Self { kind, folder, process: None, address: ([127, 0, 0, 1], port).into() };
        server.restart().await;
        server
    }

    pub(crate) async fn start(kind: Kind) -> Self {
        Self::start_with(kind, "www A 127.0.0.10").await
    }

    pub(crate) async fn restart(&mut self) {
        let configuration = self.folder.path().join("server.conf");
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = match self.kind {
            Kind::Knot => Command::new("/usr/sbin/knotd"),
            Kind::Bind => Command::new("/usr/sbin/named"),
        };
        if matches!(self.kind, Kind::Bind) {
            command.arg("-g");
        }
        command.arg("-c").arg(configuration).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().expect("install knot and bind9"));
        let server: &Self = self;
        until("the DNS server answers", async || {
            let soa = server.dig("example.test.", "SOA");
            let log = || std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            assert!(!log().contains("exiting (due to fatal error)"), "{}", log());
            soa.contains("hostmaster")
        })
        .await;
    }

    /// Ends the server without a chance to write anything.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// What the server answers, by `dig +short`.
    pub(crate) fn dig(&self, name: &str, kind: &str) -> String {
        let output = Command::new("dig")
            .args(["+short", "+time=1", "+tries=1", "@127.0.0.1", "-p", &self.address.port().to_string(), name, kind])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(';')).collect();
        lines.sort_unstable();
        lines.join(" ")
    }

    /// Changes a record as another program would.
    pub(crate) fn nsupdate(&self, commands: &str) {
        let mut child = Command::new("nsupdate")
            .args(["-y", &format!("hmac-sha256:regent:{SECRET}")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("server 127.0.0.1 {}\nzone {ZONE}\n{commands}\nsend\n", self.address.port());
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{commands}");
    }

    /// The `update` option for this server, through `address`.
    pub(crate) fn update(address: SocketAddr, key: &str, secret: &str) -> String {
        format!(
            "update: {{ server: \"{address}\", zone: {ZONE}, key: {{ name: {key}, algorithm: hmac-sha256, secret: \
             \"{secret}\" }} }}"
        )
    }

    /// A whole `dns` resource on this server with the right key.
    pub(crate) fn resource(&self) -> String {
        let update = Self::update(self.address, "regent.", SECRET);
        format!("kind: dns\naddresses: [127.0.0.11]\n{update}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn knot(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "server:
  rundir: {folder}
  listen: 127.0.0.1@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: info
database:
  storage: {folder}
key:
  - id: regent.
    algorithm: hmac-sha256
    secret: {SECRET}
  - id: powerless.
    algorithm: hmac-sha256
    secret: {OTHER_SECRET}
acl:
  - id: update
    key: regent.
    action: update
zone:
  - domain: {ZONE}
    storage: {folder}
    file: example.test.zone
    acl: update
"
    )
}

fn bind(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "options {{
  directory \"{folder}\";
  pid-file \"{folder}/named.pid\";
  session-keyfile \"{folder}/session.key\";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
key \"regent.\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};
key \"powerless.\" {{ algorithm hmac-sha256; secret \"{OTHER_SECRET}\"; }};
zone \"example.test\" {{
  type primary;
  file \"{folder}/example.test.zone\";
  allow-update {{ key \"regent.\"; }};
}};
"
    )
}
