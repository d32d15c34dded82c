//! A coordinator that does as it is told: grants, withholds, doubles, delays, names a higher epoch.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use regent_proto::agent::v1::agent_service_server::{AgentService, AgentServiceServer};
use regent_proto::agent::v1::connect_request::Body as Said;
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// How it answers heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Grant,
    /// A receipt and no right.
    Withhold,
    /// Every answer twice.
    Double,
    /// Every answer late.
    Delay(Duration),
    /// Not at all.
    Silent,
    /// Not at all; and who dials is refused, because another process of its agent is registered.
    Refuse,
}

pub(crate) struct Control {
    pub(crate) mode: Mode,
    /// Epoch that is applied here; grants are for it.
    pub(crate) epoch: u64,
    /// It welcomes for this group.
    pub(crate) group: &'static str,
    pub(crate) terms: Option<TermsUpdate>,
    /// Everything heard, by cluster.
    pub(crate) beats: BTreeMap<String, Vec<Heartbeat>>,
    pub(crate) statuses: Vec<StepStatus>,
    streams: BTreeMap<String, mpsc::Sender<Result<ConnectResponse, Status>>>,
}

#[derive(Clone)]
pub(crate) struct Coordinator {
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    control: Arc<Mutex<Control>>,
}

impl Coordinator {
    pub(crate) async fn start(id: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Control {
            mode: Mode::Grant,
            epoch: 1,
            group: "test-group",
            terms: None,
            beats: BTreeMap::new(),
            statuses: Vec::new(),
            streams: BTreeMap::new(),
        };
        let coordinator = Self { id, address, control: Arc::new(Mutex::new(control)) };
        let server = tonic::transport::Server::builder().add_service(AgentServiceServer::new(coordinator.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        coordinator
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap()
    }

    /// To one agent, or to all that are listed.
    pub(crate) fn send(&self, cluster: &str, body: Body) {
        let control = self.control();
        if let Some(stream) = control.streams.get(cluster) {
            let _ = stream.try_send(Ok(ConnectResponse { body: Some(body) }));
        }
    }

    pub(crate) fn set_terms(&self, terms: &TermsUpdate) {
        self.control().terms = Some(terms.clone());
        self.control().epoch = terms.epoch;
        let clusters: Vec<String> = self.control().streams.keys().cloned().collect();
        for cluster in clusters {
            self.send(&cluster, Body::Terms(terms.clone()));
        }
    }

    /// The last heartbeat's word on the application.
    pub(crate) fn last(&self, cluster: &str) -> Option<ApplicationBeat> {
        let control = self.control();
        control.beats.get(cluster)?.last()?.applications.first().cloned()
    }

    /// Number of heartbeats heard.
    pub(crate) fn beats_heard(&self, cluster: &str) -> usize {
        self.control().beats.get(cluster).map_or(0, Vec::len)
    }

    fn heard(&self, cluster: &str, beat: &Heartbeat) -> Vec<(Duration, ConnectResponse)> {
        let mut control = self.control();
        let primary = control.terms.as_ref().map(|terms| terms.primary.clone()).unwrap_or_default();
        control.beats.entry(cluster.to_owned()).or_default().push(beat.clone());
        let receipt = control.beats[cluster].len() as u64;
        let epoch = control.epoch;
        let mut answer = Answer { stamp: beat.stamp.clone(), receipt, ..Answer::default() };
        for application in &beat.applications {
            let name = application.application.clone();
            if application.epoch < epoch {
                answer.higher.push(EpochNotice { application: name, epoch });
            } else if application.epoch == epoch && cluster == primary && control.mode != Mode::Withhold {
                answer.grants.push(Grant { application: name, epoch });
            }
        }
        let answer = ConnectResponse { body: Some(Body::Answer(answer)) };
        match control.mode {
            Mode::Grant | Mode::Withhold => vec![(Duration::ZERO, answer)],
            Mode::Double => vec![(Duration::ZERO, answer.clone()), (Duration::ZERO, answer)],
            Mode::Delay(delay) => vec![(delay, answer)],
            Mode::Silent | Mode::Refuse => Vec::new(),
        }
    }
}

#[tonic::async_trait]
impl AgentService for Coordinator {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut stream = request.into_inner();
        let (sender, receiver) = mpsc::channel(256);
        let me = self.clone();
        tokio::spawn(async move {
            let Ok(Some(ConnectRequest { body: Some(Said::Hello(hello)) })) = stream.message().await else { return };
            let mode = me.control().mode;
            if mode == Mode::Refuse {
                let refusal = Refusal { code: "agent-doubled".to_owned(), message: "another is registered".to_owned() };
                let _ = sender.try_send(Ok(ConnectResponse { body: Some(Body::Refusal(refusal)) }));
                return;
            }
            let terms = me.control().terms.clone().into_iter().collect();
            let group = me.control().group.to_owned();
            let welcome = Welcome { group, coordinator: me.id, terms, coordinators: None };
            let _ = sender.try_send(Ok(ConnectResponse { body: Some(Body::Welcome(welcome)) }));
            me.control().streams.insert(hello.cluster.clone(), sender.clone());
            while let Ok(Some(message)) = stream.message().await {
                match message.body {
                    Some(Said::Heartbeat(beat)) => {
                        for (delay, answer) in me.heard(&hello.cluster, &beat) {
                            let sender = sender.clone();
                            tokio::spawn(async move {
                                tokio::time::sleep(delay).await;
                                let _ = sender.try_send(Ok(answer));
                            });
                        }
                    }
                    Some(Said::StepStatus(status)) => me.control().statuses.push(status),
                    Some(Said::Hello(_)) | None => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
