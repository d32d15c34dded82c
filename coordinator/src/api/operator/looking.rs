//! Readiness as of now: the agents of all clusters concerned look at everything anew, and the notes come when each has answered
//! or its time is over. The leader asks, as for every read: it has heard all.
//!
//! Nobody is answered by looks that may have been made before he asked: who joins a question that is under way waits for the
//! next one, too, which all share who have come meanwhile.
//!
//! ```text
//!  asked ─► (a follower) the leader's answers, passed on as they come
//!        └► (the leader) LookNow to each agent ─► look, look, … ─► the notes
//! ```

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use regent_core::id::{ApplicationId, ClusterId};
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use regent_proto::operator::v1::look_anew_response::Body;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::forward::Elsewhere;
use super::{Operators, application_id, unknown_application};
use crate::api::convert::span;
use crate::observer::ASK_AGAIN;

/// So long an agent's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two words of the leader there is at most the wait for the slowest agent.
const LEADER_WITHIN: Duration = Duration::from_secs(35);

/// Where the answers go.
pub(super) type Answers = mpsc::Sender<Result<wire::LookAnewResponse, Status>>;

impl Operators {
    /// Tells of each agent as it answers, and then the notes; until the caller is gone or the process stops.
    pub(super) async fn follow_looks(&self, application: &str, pass_on: bool, to: &Answers) {
        let told = tokio::select! {
            biased;
            () = to.closed() => return,
            () = self.parts.stop.cancelled() => return,
            told = self.tell_looks(application, pass_on, to) => told,
        };
        if let Err(status) = told {
            let _ = to.send(Err(status)).await;
        }
    }

    async fn tell_looks(&self, application: &str, pass_on: bool, to: &Answers) -> Result<(), Status> {
        let mut notice = String::new();
        if pass_on && let Some(leader) = self.elsewhere() {
            match self.pass_on_looks(&leader, application, to).await {
                Ok(()) => return Ok(()),
                Err(status) if status.code() == Code::NotFound => return Err(status),
                Err(_) => notice = self.own_view_notice(&leader),
            }
        }
        let looks = self.ask_agents(application, to).await?;
        let readiness = self.own_readiness(application, &notice)?;
        say(to, Body::Readiness(wire::ReadinessResponse { looks, ..readiness })).await;
        Ok(())
    }

    /// Hands on what the leader says, up to the notes.
    async fn pass_on_looks(&self, leader: &Elsewhere, application: &str, to: &Answers) -> Result<(), Status> {
        let question = wire::LookAnewRequest { application: application.to_owned() };
        let call = |channel, question| async move { ApplicationServiceClient::new(channel).look_anew(question).await };
        let mut answers = self.ask(leader, question, call).await?;
        loop {
            let next = tokio::time::timeout(LEADER_WITHIN, answers.message()).await;
            let next = next.map_err(|_| Status::deadline_exceeded("the leader did not answer in time"))??;
            let answer = next.ok_or_else(|| Status::unavailable("the leader ended its answer early"))?;
            let last = matches!(answer.body, Some(Body::Readiness(_)));
            if to.send(Ok(answer)).await.is_err() || last {
                return Ok(());
            }
        }
    }

    /// Asks all agents at once; in the order of the document what became of it.
    async fn ask_agents(&self, application: &str, to: &Answers) -> Result<Vec<wire::AgentLook>, Status> {
        let id = application_id(application)?;
        let clusters = self.node().replica.read(|state| Some(state.applications.get(&id)?.document.clusters.clone()));
        let clusters = clusters.ok_or_else(|| unknown_application(application))?;
        let before = self.parts.post.last_question();
        let (id, mut asked) = (&id, FuturesUnordered::new());
        for (place, cluster) in clusters.iter().enumerate() {
            asked.push(async move { (place, self.ask_agent(id, cluster, before).await) });
        }
        let mut looks = Vec::new();
        while let Some((place, look)) = asked.next().await {
            say(to, Body::Look(look.clone())).await;
            looks.push((place, look));
        }
        looks.sort_by_key(|(place, _)| *place);
        Ok(looks.into_iter().map(|(_, look)| look).collect())
    }

    async fn ask_agent(&self, application: &ApplicationId, cluster: &ClusterId, before: u64) -> wire::AgentLook {
        let begun = Instant::now();
        let problem = match tokio::time::timeout(PATIENCE, self.until_looked(cluster, before)).await {
            Ok(Some(())) => String::new(),
            Ok(None) => format!("its agent has no stream to coordinator {}", self.node().id),
            Err(_) => format!("its agent did not answer within {PATIENCE:?}"),
        };
        let took = Span::from_millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let age = self.oldest_look(application, cluster).map(span);
        wire::AgentLook { cluster: cluster.to_string(), problem, took: Some(span(took)), age }
    }

    /// How old the oldest look is that is known of an application's resources there.
    fn oldest_look(&self, application: &ApplicationId, cluster: &ClusterId) -> Option<Span> {
        let oldest = self.node().see(|evidence| {
            let facts = evidence.contacts.get(cluster)?.facts.get(application)?;
            facts.values().map(|facts| facts.at).min()
        });
        oldest.map(|at| self.node().now().since(at))
    }

    /// Until the agent has answered a question later than that one. None if there is nowhere to ask.
    async fn until_looked(&self, cluster: &ClusterId, before: u64) -> Option<()> {
        let post = &self.parts.post;
        while post.answered(cluster) <= before {
            // One that is under way is awaited: there is one at a time.
            let number = post.ask_to_look(cluster)?;
            while tokio::time::timeout(ASK_AGAIN, post.looked(cluster, number)).await.is_err() {
                let _ = post.ask_to_look(cluster);
            }
        }
        Some(())
    }
}

/// Whether somebody still listens, whoever watches for that sees.
async fn say(to: &Answers, body: Body) {
    let _ = to.send(Ok(wire::LookAnewResponse { body: Some(body) })).await;
}
