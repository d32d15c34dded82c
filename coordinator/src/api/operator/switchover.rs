//! A planned move on an operator's word: a switchover, the way back to the preferred cluster, or a rollback. The leader
//! says whether both sides are ready, then the run begins.

use regent_core::decide::Viewpoint;
use regent_core::entry::{Cause, Entry, Finding};
use regent_core::id::{ApplicationId, ClusterId, RequestId, RunId};
use regent_core::plan::{self, Begins, Digest};
use regent_core::state::ApplicationState;
use regent_core::switchover::{self, Purpose, WRITE_OUTAGES};
use regent_core::target;
use regent_core::time::Span;
use regent_core::verdict::Scene;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::run_service_client::RunServiceClient;
use tonic::Status;

use super::plan::purpose;
use super::{Operators, application_id, request_id, unknown_application};
use crate::api::status::Fault;

/// A planned move that is asked for.
pub(super) struct Move {
    pub(super) request_id: String,
    pub(super) application: String,
    pub(super) kind: wire::PlanKind,
    /// Empty: chosen by what it is for.
    pub(super) to: String,
    pub(super) max_write_outage: Option<prost_types::Duration>,
    /// Empty: whatever it would be now.
    pub(super) plan: String,
}

/// A planned move that has begun.
pub(super) struct Moving {
    pub(super) index: u64,
    /// A run has the number of the entry that began it.
    pub(super) run: u64,
    pub(super) to: String,
}

impl Operators {
    /// The leader's word, since only it has heard all; else what this coordinator sees.
    pub(super) async fn preflight_switchover(
        &self,
        asked: wire::PreflightRequest,
        pass_on: bool,
    ) -> Result<wire::PreflightResponse, Status> {
        let id = application_id(&asked.application)?;
        let wish = wish("to", &asked.to)?;
        if pass_on && let Some(leader) = self.elsewhere() {
            let call = |channel, question| async move { RunServiceClient::new(channel).preflight(question).await };
            match self.ask(&leader, asked.clone(), call).await {
                Ok(answer) => return Ok(answer),
                Err(status) if status.code() == tonic::Code::NotFound => return Err(status),
                Err(error) => tracing::debug!(%error, "the leader did not answer; this coordinator looks itself"),
            }
        }
        self.fresh(false).await?;
        let view = self.viewpoint();
        let looked = self.node().replica.read(|state| {
            self.node().see(|evidence| {
                if !state.applications.contains_key(&id) {
                    return None;
                }
                let Some(scene) = Scene::new(state, evidence, view.now, view.me, &id) else {
                    return Some(Err(("not-adopted".to_owned(), "no primary is known yet".to_owned())));
                };
                let fit = switchover::preflight(&scene, Purpose::Switchover, wish.as_ref());
                Some(fit.map_err(|rule| (rule.code, rule.detail)))
            })
        });
        let mut answer = wire::PreflightResponse { view: Some(self.view()), ..wire::PreflightResponse::default() };
        match looked.ok_or_else(|| unknown_application(&asked.application))? {
            Ok(candidate) => {
                answer.lag = candidate.sentences();
                answer.to = candidate.cluster.to_string();
            }
            Err((code, detail)) => {
                answer.to = asked.to;
                answer.refusal = Some(wire::Rule { code, detail });
            }
        }
        Ok(answer)
    }

    /// A repeat finds its own run: nothing is looked at again, since what it began has changed what is seen.
    pub(super) async fn begin_move(&self, asked: Move, by: String) -> Result<Moving, Status> {
        let request = request_id(&asked.request_id)?;
        let max_write_outage = outage(asked.max_write_outage.as_ref())?;
        let plan = digest(&asked.plan)?;
        wish("to", &asked.to)?;
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let repeated = self.is_repeat(&request);
        let to = if repeated {
            asked.to
        } else {
            let question = wire::PlanRequest {
                application: asked.application,
                to: asked.to,
                kind: asked.kind.into(),
                max_write_outage: asked.max_write_outage,
                ..wire::PlanRequest::default()
            };
            let plan = self.look_at_plan(question, true).await?.plan.unwrap_or_default();
            if let Some(refusal) = plan.notes.into_iter().find(|note| note.severity() == wire::Severity::Blocker) {
                let subject = application.to_string();
                return Err(Fault::Refused { subject, rule: refusal.code, detail: refusal.detail }.into());
            }
            plan.to
        };
        let plan = plan.filter(|_| !repeated);
        let wanted = Wanted { to: &to, by, kind: asked.kind, max_write_outage, plan };
        let entry = self.move_entry(&application, wanted)?;
        let index = self.propose(request, application.as_str(), entry).await?;
        let to = self.node().replica.read(|state| state.runs.get(&RunId(index)).map_or(to, |run| run.to.to_string()));
        Ok(Moving { index, run: index, to })
    }

    fn move_entry(&self, application: &ApplicationId, wanted: Wanted<'_>) -> Result<Entry, Fault> {
        let view = self.viewpoint();
        let Wanted { to, by, kind, max_write_outage, plan } = wanted;
        self.node().replica.read(|state| {
            self.node().see(|evidence| {
                let known =
                    state.applications.get(application).ok_or_else(|| unknown_application(application.as_str()))?;
                let first = || known.document.clusters.first().map(ToString::to_string).unwrap_or_default();
                // Only a repeat may come without a target; what it says has no effect.
                let to = if to.is_empty() { first() } else { to.to_owned() };
                let to =
                    ClusterId::new(&to).map_err(|error| Fault::Field { field: "to", problem: error.to_string() })?;
                // The word of the command counts for this one run, else the document's.
                let max_write_outage = max_write_outage.unwrap_or(known.document.automation.max_write_outage);
                let reasons = vec![format!("{by} asked for it")];
                let scene = Scene::new(state, evidence, view.now, view.me, application);
                let ranked = scene.as_ref().map(target::rank).unwrap_or_default().into_iter().flatten();
                let candidate = ranked.into_iter().find(|candidate| candidate.cluster == to);
                let finding = match scene.as_ref().zip(candidate.as_ref()) {
                    Some((scene, candidate)) => target::finding(scene, candidate, reasons, view.wall),
                    None => Finding { reasons, ..Finding::default() },
                };
                let cause = Cause::Switchover { by, max_write_outage, purpose: purpose(kind, known) };
                let begun = plan.map(|seen| as_seen(known, &cause, &to, &finding, &seen, max_write_outage));
                Ok(Entry::RunStarted {
                    application: application.clone(),
                    epoch: known.epoch,
                    cause,
                    to,
                    finding,
                    plan: begun.transpose()?,
                })
            })
        })
    }

    pub(super) fn viewpoint(&self) -> Viewpoint {
        Viewpoint { me: self.node().id, now: self.node().now(), wall: self.node().wall() }
    }

    pub(super) fn is_repeat(&self, request: &RequestId) -> bool {
        self.node().replica.read(|state| state.requests.iter().any(|(known, _)| known == request))
    }
}

struct Wanted<'a> {
    to: &'a str,
    by: String,
    kind: wire::PlanKind,
    max_write_outage: Option<Span>,
    plan: Option<Digest>,
}

pub(super) fn wish(field: &'static str, to: &str) -> Result<Option<ClusterId>, Fault> {
    if to.is_empty() {
        return Ok(None);
    }
    let cluster = ClusterId::new(to).map_err(|error| Fault::Field { field, problem: error.to_string() })?;
    Ok(Some(cluster))
}

/// The digest of the steps that would be begun now, if they and the outage are those of the plan that was seen. The log
/// has the outage by itself, so it is compared here; that the steps are still these is checked again where they begin.
fn as_seen(
    known: &ApplicationState,
    cause: &Cause,
    to: &ClusterId,
    finding: &Finding,
    seen: &Digest,
    max_write_outage: Span,
) -> Result<Digest, Fault> {
    let steps = plan::of(known, cause, to, Begins::Before, &finding.gaps);
    // Before there is a primary nothing begins.
    let Some((from, steps)) = known.primary.as_ref().zip(steps) else { return Ok(seen.clone()) };
    let application = &known.document.name;
    let digest = Digest::of(application, known.epoch, from, to, &steps);
    let now = digest.within(max_write_outage);
    if now == *seen {
        return Ok(digest);
    }
    let detail = format!(
        "plan {seen} was seen; now, with writes kept out for {max_write_outage} at most, it would be {now}: look again with \
         `regentctl plan`, and give both the same --max-write-outage"
    );
    Err(Fault::Refused { subject: application.to_string(), rule: "plan-changed".to_owned(), detail })
}

fn digest(plan: &str) -> Result<Option<Digest>, Fault> {
    if plan.is_empty() {
        return Ok(None);
    }
    let digest = Digest::try_from(plan.to_owned());
    digest.map(Some).map_err(|error| Fault::Field { field: "plan", problem: error.to_string() })
}

pub(super) fn outage(given: Option<&prost_types::Duration>) -> Result<Option<Span>, Fault> {
    let Some(given) = given else { return Ok(None) };
    let seconds = u64::try_from(given.seconds).ok();
    let rest = u64::try_from(given.nanos / 1_000_000).ok();
    let span = seconds.zip(rest).map(|(seconds, rest)| Span::from_secs(seconds).plus(Span::from_millis(rest)));
    span.filter(|span| WRITE_OUTAGES.contains(span)).map(Some).ok_or_else(|| {
        let problem = format!("give a time from {} to {}", WRITE_OUTAGES.start(), WRITE_OUTAGES.end());
        Fault::Field { field: "max_write_outage", problem }
    })
}
