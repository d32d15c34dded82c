//! Carries gRPC over the simulated network: a line at the client's end, a loop at the server's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use regent_proto::line::{Line, line};
use regent_proto::tls::Identity;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::service::Routes;

use crate::network::{MachineId, Network, Way};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// There is no way to the other end any more.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the connection was lost")]
pub(super) struct Lost;

/// A call that has reached a server.
pub(super) struct Incoming {
    request: http::Request<()>,
    frames: mpsc::UnboundedReceiver<Piece>,
    answer: Answer,
}

struct Answer {
    network: Network,
    talk: u64,
    lost: CancellationToken,
    head: mpsc::UnboundedSender<http::Response<()>>,
    frames: mpsc::UnboundedSender<Piece>,
    end: End,
}

enum Piece {
    Frame(Frame<Bytes>),
    End,
}

/// A line from a machine to an address, under an identity.
pub(super) fn dial(network: &Network, from: MachineId, identity: Identity, address: &str) -> Line {
    line(Carrier { network: network.clone(), from, identity, address: address.to_owned() })
}

#[derive(Clone)]
struct Carrier {
    network: Network,
    from: MachineId,
    identity: Identity,
    address: String,
}

impl Service<Request> for Carrier {
    type Response = Response;
    type Error = Lost;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Lost>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let carrier = self.clone();
        Box::pin(async move { carrier.carry(request).await })
    }
}

impl Carrier {
    async fn carry(self, request: Request) -> Result<Response, Lost> {
        let (server, listener) = self.network.listener(&self.address).ok_or(Lost)?;
        let (talk, lost, lost_at_server) = self.network.begin(self.from, server);
        let end = End { network: self.network.clone(), talk, own: Way::ToClient, in_order: false };
        let (parts, body) = request.into_parts();
        let mut request = http::Request::new(());
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        *request.headers_mut() = parts.headers;
        // Whom the certificate would name.
        request.extensions_mut().insert(self.identity);
        self.network.note(&format!("call {talk} {} {}", self.from, request.uri().path()));
        let (up, frames) = mpsc::unbounded_channel();
        let (down, answers) = mpsc::unbounded_channel();
        let (head, mut answered) = mpsc::unbounded_channel();
        // An end learns what became of the other by what is sent to it, never by what a dying process drops.
        self.network.keep(talk, Box::new((up.clone(), down.clone(), head.clone())));
        let over = self.network.clone();
        let nobody = lost.clone();
        self.network.send(
            talk,
            Way::ToServer,
            1,
            Box::new(move || {
                let end = End { network: over.clone(), talk, own: Way::ToServer, in_order: false };
                let answer = Answer { network: over, talk, lost: lost_at_server, head, frames: down, end };
                // Nobody listens: the connection is refused.
                if listener.send(Incoming { request, frames, answer }).is_err() {
                    nobody.cancel();
                }
            }),
        );
        tokio::spawn(pump(self.network, talk, Way::ToServer, body, up, lost.clone()));
        tokio::select! {
            biased;
            () = lost.cancelled() => Err(Lost),
            head = answered.recv() => {
                let Some(head) = head else { return Err(Lost) };
                let body = Pieces { pieces: answers, lost: Box::pin(lost.cancelled_owned()), over: false, end: Some(end) };
                Ok(head.map(|()| Body::new(body)))
            }
        }
    }
}

fn end_in_order(end: &mut Option<End>) {
    if let Some(end) = end {
        end.in_order = true;
    }
}

/// Dropped when this end is done.
struct End {
    network: Network,
    talk: u64,
    own: Way,
    in_order: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        self.network.end(self.talk, self.own, self.in_order);
    }
}

/// Sends a body frame by frame.
async fn pump(
    network: Network,
    talk: u64,
    way: Way,
    mut body: Body,
    to: mpsc::UnboundedSender<Piece>,
    lost: CancellationToken,
) {
    loop {
        let frame = tokio::select! {
            biased;
            () = lost.cancelled() => return,
            frame = body.frame() => frame,
        };
        let piece = match frame {
            Some(Ok(frame)) => Piece::Frame(frame),
            Some(Err(_)) | None => Piece::End,
        };
        let last = matches!(piece, Piece::End);
        let size = match &piece {
            Piece::Frame(frame) => frame.data_ref().map_or(2, Bytes::len),
            Piece::End => 0,
        };
        let to = to.clone();
        network.send(talk, way, size, Box::new(move || drop(to.send(piece))));
        if last {
            return;
        }
    }
}

/// A body made of what arrives.
struct Pieces {
    pieces: mpsc::UnboundedReceiver<Piece>,
    lost: Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>,
    over: bool,
    end: Option<End>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.pieces.poll_recv(context) {
            Poll::Ready(Some(Piece::Frame(frame))) => return Poll::Ready(Some(Ok(frame))),
            Poll::Ready(Some(Piece::End)) => {
                self.over = true;
                end_in_order(&mut self.end);
                return Poll::Ready(None);
            }
            Poll::Ready(None) => {}
            Poll::Pending => {
                if self.lost.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        self.over = true;
        Poll::Ready(Some(Err(Lost)))
    }
}

/// Answers what comes to a listener, for as long as its process lives.
pub(super) async fn serve(mut listener: mpsc::UnboundedReceiver<Incoming>, routes: Routes) {
    while let Some(incoming) = listener.recv().await {
        tokio::spawn(answer(incoming, routes.clone()));
    }
}

async fn answer(incoming: Incoming, mut routes: Routes) {
    let Incoming { request, frames, answer } = incoming;
    let Answer { network, talk, lost, head, frames: down, mut end } = answer;
    let body = Pieces { pieces: frames, lost: Box::pin(lost.clone().cancelled_owned()), over: false, end: None };
    let answered = tokio::select! {
        biased;
        () = lost.cancelled() => return,
        answered = routes.call(request.map(|()| Body::new(body))) => answered,
    };
    let Ok(response) = answered;
    let (parts, body) = response.into_parts();
    let mut response = http::Response::new(());
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    network.send(talk, Way::ToClient, 1, Box::new(move || drop(head.send(response))));
    pump(network, talk, Way::ToClient, body, down, lost.clone()).await;
    end.in_order = !lost.is_cancelled();
}
