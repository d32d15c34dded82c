//! One question to one server, without a cache in between.
//!
//! A resolver library would remember answers and choose among servers; what a redirect has to know is what *this*
//! server says *now*.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Why a server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// Nothing came back.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The message cannot be written or read.
    #[error("the message is malformed: {0}")]
    Malformed(String),
}

impl WireError {
    /// It is certain that nobody listens there.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// A query for one type of record.
pub(super) fn question(name: &Name, kind: RecordType, recursive: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = recursive;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    // What fits through any path unfragmented; anything longer comes over TCP.
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

/// Asks over UDP, and over TCP if the answer was cut short.
pub(super) async fn ask(server: SocketAddr, message: &Message, limit: Duration) -> Result<Message, WireError> {
    let exchange = async {
        let answer = ask_udp(server, message).await?;
        if !answer.truncation {
            return Ok(answer);
        }
        let mut connection = Connection::open(server, limit).await?;
        connection.send(&encode(message)?).await?;
        loop {
            let (_, answer) = connection.receive().await?;
            if answers(&answer, message) {
                return Ok(answer);
            }
        }
    };
    timeout(limit, exchange).await.map_err(|_| WireError::Silent(limit))?
}

async fn ask_udp(server: SocketAddr, message: &Message) -> Result<Message, WireError> {
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local).await?;
    // Connected: only this server's datagrams come in, and its refusals do.
    socket.connect(server).await?;
    socket.send(&encode(message)?).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not decode or answers another question is not our answer; the time-out bounds the wait.
        if let Ok(answer) = Message::from_vec(&buffer[..length])
            && answers(&answer, message)
        {
            return Ok(answer);
        }
    }
}

fn answers(answer: &Message, question: &Message) -> bool {
    answer.id == question.id && answer.message_type == MessageType::Response && answer.queries == question.queries
}

pub(super) fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
    message.to_vec().map_err(|error| WireError::Malformed(error.to_string()))
}

/// A TCP connection to a server; messages carry their length in two bytes.
pub(super) struct Connection {
    stream: TcpStream,
    limit: Duration,
}

impl Connection {
    /// Connects. Every later operation has the same limit.
    pub(super) async fn open(server: SocketAddr, limit: Duration) -> Result<Self, WireError> {
        let stream = timeout(limit, TcpStream::connect(server)).await.map_err(|_| WireError::Silent(limit))??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, limit })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let length = u16::try_from(bytes.len()).map_err(|_| WireError::Malformed("longer than 65535".to_owned()))?;
        let mut framed = Vec::with_capacity(bytes.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(bytes);
        timeout(self.limit, self.stream.write_all(&framed)).await.map_err(|_| WireError::Silent(self.limit))??;
        Ok(())
    }

    /// The next message, as it came and decoded.
    pub(super) async fn receive(&mut self) -> Result<(Vec<u8>, Message), WireError> {
        let stream = &mut self.stream;
        let read = async {
            let length = stream.read_u16().await?;
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = timeout(self.limit, read).await.map_err(|_| WireError::Silent(self.limit))??;
        let message = Message::from_vec(&bytes).map_err(|error| WireError::Malformed(error.to_string()))?;
        Ok((bytes, message))
    }
}
