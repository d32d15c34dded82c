//! A drill on an operator's word, and what its report says of the time that a failover would have taken.

use regent_core::application::{Action, Application};
use regent_core::entry::{Entry, Finding};
use regent_core::id::{ApplicationId, ClusterId};
use regent_core::run::Run;
use regent_core::target;
use regent_core::verdict::Scene;
use regent_proto::operator::v1 as wire;
use tonic::Status;

use super::switchover::wish;
use super::{Operators, request_id, unknown_application};
use crate::api::convert::span;
use crate::api::status::Fault;

impl Operators {
    /// A repeat finds its own run by the request id, whatever it says of the cluster.
    pub(super) async fn begin_drill(
        &self,
        asked: wire::DrillRequest,
        by: String,
    ) -> Result<wire::DrillResponse, Status> {
        let request = request_id(&asked.request_id)?;
        let wish = wish("cluster", &asked.cluster)?;
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let entry = self.drill_entry(&application, wish, by)?;
        let index = self.propose(request, application.as_str(), entry).await?;
        // A run has the number of the entry that began it.
        let cluster = self.node().replica.read(|state| {
            let run = state.runs.get(&regent_core::id::RunId(index));
            run.map(|run| run.to.to_string()).unwrap_or_default()
        });
        Ok(wire::DrillResponse { index, run: index, cluster })
    }

    /// Without a wish it is the first standby that would take over, or else the first that is none of ours to refuse.
    fn drill_entry(&self, application: &ApplicationId, wish: Option<ClusterId>, by: String) -> Result<Entry, Fault> {
        let view = self.viewpoint();
        self.node().replica.read(|state| {
            self.node().see(|evidence| {
                let known =
                    state.applications.get(application).ok_or_else(|| unknown_application(application.as_str()))?;
                let scene = Scene::new(state, evidence, view.now, view.me, application);
                let ranked = scene.as_ref().map(target::rank).unwrap_or_default();
                let mut fit = ranked.into_iter().flatten();
                let candidate = fit.find(|candidate| wish.as_ref().is_none_or(|wish| candidate.cluster == *wish));
                let others = || known.document.clusters.iter().find(|cluster| known.primary.as_ref() != Some(*cluster));
                let cluster =
                    wish.or_else(|| candidate.as_ref().map(|one| one.cluster.clone())).or_else(|| others().cloned());
                let cluster = cluster.ok_or_else(|| Fault::Field {
                    field: "cluster",
                    problem: "no cluster but the primary is listed".to_owned(),
                })?;
                let reasons = vec![format!("{by} asked for it")];
                let finding = match scene.as_ref().zip(candidate.as_ref()) {
                    Some((scene, candidate)) => target::finding(scene, candidate, reasons, view.wall),
                    None => Finding { reasons, ..Finding::default() },
                };
                Ok(Entry::DrillStarted { application: application.clone(), cluster, by, finding })
            })
        })
    }
}

/// The time that a failover would have taken, against the objective.
pub(super) fn rto(document: &Application, run: &Run) -> wire::Objective {
    let wanted = document.objectives.rto;
    let achieved = run.rehearsed_time(document.automation.bound.fail_over_after);
    let judgement = match achieved {
        Some(achieved) if achieved <= wanted => wire::Judgement::Met,
        Some(_) => wire::Judgement::Missed,
        None => wire::Judgement::Unknown,
    };
    wire::Objective { wanted: Some(span(wanted)), achieved: achieved.map(span), judgement: judgement.into() }
}

/// What the time is made of, and what of a failover no drill can show.
pub(super) fn remarks(document: &Application, run: &Run) -> Vec<String> {
    let bound = document.automation.bound.fail_over_after;
    let mut remarks = vec![format!(
        "The time is failoverAfter, {bound}, and what was rehearsed: of each line of the runbook its longest step, of a \
         copied database the promotion without the copying. A human's answer is not counted."
    )];
    let failover = document.runbooks.get("failover").map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    let left_out =
        failover.iter().filter(|line| matches!(line.action, Action::Redirect | Action::Activate | Action::Deactivate));
    let names: Vec<String> = left_out
        .flat_map(|line| line.resources.iter().map(move |resource| format!("{} {resource}", line.action)))
        .collect();
    if !names.is_empty() {
        remarks.push(format!("Not rehearsed, and not counted: {}.", names.join(", ")));
    }
    if run.finding.gaps.is_empty() {
        remarks.push("How far the standby was behind when the drill began is not known.".to_owned());
    }
    remarks
}
