//! A planned switchover on an operator's word: the leader says whether both sides are ready, then the run begins.

use regent_core::decide::Viewpoint;
use regent_core::entry::{Cause, Entry};
use regent_core::id::{ApplicationId, ClusterId, RequestId};
use regent_core::switchover::{self, MAX_WRITE_OUTAGE};
use regent_core::target;
use regent_core::time::Span;
use regent_core::verdict::Scene;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::run_service_client::RunServiceClient;
use tonic::Status;

use super::{Operators, application_id, request_id, unknown_application};
use crate::api::status::Fault;

/// A write outage that is allowed is at least this, and at most a day: no promise is made by zero.
const OUTAGES: std::ops::RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(24 * 3600);

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
                let fit = switchover::preflight(&scene, wish.as_ref());
                Some(fit.map_err(|rule| (rule.code, rule.detail)))
            })
        });
        let mut answer = wire::PreflightResponse { view: Some(self.view()), ..wire::PreflightResponse::default() };
        match looked.ok_or_else(|| unknown_application(&asked.application))? {
            Ok(candidate) => {
                let lag = |lag: Option<Span>| lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
                let gaps = candidate.gaps.iter();
                answer.lag = gaps.map(|(name, gap)| format!("{name}: {} ({})", lag(gap.lag), gap.text)).collect();
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
    pub(super) async fn begin_switchover(
        &self,
        asked: wire::SwitchoverRequest,
        by: String,
    ) -> Result<wire::SwitchoverResponse, Status> {
        let request = request_id(&asked.request_id)?;
        let max_write_outage = outage(asked.max_write_outage.as_ref())?;
        wish("to", &asked.to)?;
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let to = if self.is_repeat(&request) {
            asked.to
        } else {
            let question = wire::PreflightRequest { application: asked.application, to: asked.to };
            let answer = self.preflight_switchover(question, true).await?;
            if let Some(refusal) = answer.refusal {
                let subject = application.to_string();
                return Err(Fault::Refused { subject, rule: refusal.code, detail: refusal.detail }.into());
            }
            answer.to
        };
        let entry = self.switchover_entry(&application, &to, by, max_write_outage)?;
        let index = self.propose(request, application.as_str(), entry).await?;
        // A run has the number of the entry that began it.
        let to = self.node().replica.read(|state| {
            let run = state.runs.get(&regent_core::id::RunId(index));
            run.map_or(to, |run| run.to.to_string())
        });
        Ok(wire::SwitchoverResponse { index, run: index, to })
    }

    fn switchover_entry(
        &self,
        application: &ApplicationId,
        to: &str,
        by: String,
        max_write_outage: Span,
    ) -> Result<Entry, Fault> {
        let view = self.viewpoint();
        self.node().replica.read(|state| {
            self.node().see(|evidence| {
                let known =
                    state.applications.get(application).ok_or_else(|| unknown_application(application.as_str()))?;
                let first = || known.document.clusters.first().map(ToString::to_string).unwrap_or_default();
                // Only a repeat may come without a target; what it says has no effect.
                let to = if to.is_empty() { first() } else { to.to_owned() };
                let to =
                    ClusterId::new(&to).map_err(|error| Fault::Field { field: "to", problem: error.to_string() })?;
                let reasons = vec![format!("{by} asked for it")];
                let scene = Scene::new(state, evidence, view.now, view.me, application);
                let ranked = scene.as_ref().map(target::rank).unwrap_or_default().into_iter().flatten();
                let candidate = ranked.into_iter().find(|candidate| candidate.cluster == to);
                let finding = match scene.as_ref().zip(candidate.as_ref()) {
                    Some((scene, candidate)) => target::finding(scene, candidate, reasons, view.wall),
                    None => regent_core::entry::Finding { reasons, ..Default::default() },
                };
                Ok(Entry::RunStarted {
                    application: application.clone(),
                    epoch: known.epoch,
                    cause: Cause::Switchover { by, max_write_outage },
                    to,
                    finding,
                })
            })
        })
    }

    pub(super) fn viewpoint(&self) -> Viewpoint {
        Viewpoint { me: self.node().id, now: self.node().now(), wall: self.node().wall() }
    }

    fn is_repeat(&self, request: &RequestId) -> bool {
        self.node().replica.read(|state| state.requests.iter().any(|(known, _)| known == request))
    }
}

pub(super) fn wish(field: &'static str, to: &str) -> Result<Option<ClusterId>, Fault> {
    if to.is_empty() {
        return Ok(None);
    }
    let cluster = ClusterId::new(to).map_err(|error| Fault::Field { field, problem: error.to_string() })?;
    Ok(Some(cluster))
}

fn outage(given: Option<&prost_types::Duration>) -> Result<Span, Fault> {
    let Some(given) = given else { return Ok(MAX_WRITE_OUTAGE) };
    let seconds = u64::try_from(given.seconds).ok();
    let rest = u64::try_from(given.nanos / 1_000_000).ok();
    let span = seconds.zip(rest).map(|(seconds, rest)| Span::from_secs(seconds).plus(Span::from_millis(rest)));
    span.filter(|span| OUTAGES.contains(span)).ok_or_else(|| {
        let problem = format!("give a time from {} to {}", OUTAGES.start(), OUTAGES.end());
        Fault::Field { field: "max_write_outage", problem }
    })
}
