//! The dashboard as a server on a port of its own, and a client that asks it.

use std::net::SocketAddr;
use std::time::Duration;

use regent_coordinator::admin::{self, AdminError, Readiness};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::fixture::World;

pub(crate) struct Server {
    pub(crate) world: World,
    pub(crate) readiness: Readiness,
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), AdminError>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Server {
    pub(crate) async fn start(world: World) -> Self {
        let bound = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = bound.address();
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        let task = tokio::spawn(bound.serve(world.node.clone(), readiness.clone(), shutdown.clone()));
        Self { world, readiness, address, shutdown, task }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    pub(crate) async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.body).unwrap()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Reads server-sent events of a page as they come.
pub(crate) struct Events {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Events {
    pub(crate) async fn open(server: &Server, page: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET /events?page={page} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// The next page that contains the text; none if the server closed the stream.
    pub(crate) async fn until(&mut self, wanted: &str) -> Option<Value> {
        let reading = async {
            loop {
                while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                    let event = String::from_utf8(event).unwrap();
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                    let value: Option<Value> = data.map(|data| serde_json::from_str(data).unwrap());
                    if let Some(value) = value.filter(|value| value["html"].as_str().unwrap().contains(wanted)) {
                        return Some(value);
                    }
                }
                if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("no such event came")
    }
}
