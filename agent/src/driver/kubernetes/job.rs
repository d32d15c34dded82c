//! A Job from a listed manifest: attached to if one of it runs, made if none does, and waited for.

use std::path::Path;

use k8s_openapi::api::batch::v1::Job;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use super::MANAGER;
use super::failure::Request;
use super::follow::{Seen, Which, until};
use crate::config::KubernetesOptions;
use crate::driver::{Done, DriverError, DriverResult};

/// Says of which listed manifest a Job is.
const LABEL: &str = "regent/job";
/// The cluster cleans ended Jobs away after a day, unless the manifest says when.
const KEPT_SECONDS: i32 = 86_400;

/// Runs it.
pub(super) async fn run(client: &Client, options: &KubernetesOptions, name: &str) -> DriverResult {
    let deadline = Instant::now() + options.timeout;
    let path = options.jobs.get(name).ok_or_else(|| {
        let known: Vec<&str> = options.jobs.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none is".to_owned() } else { format!("these are: {}", known.join(", ")) };
        let message = format!("the job {name:?} is not listed in agent.yaml ({known}); list it there");
        DriverError::permanent("kubernetes-job-not-listed", message)
    })?;
    let api: Api<Job> = Api::namespaced(client.clone(), &options.namespace);
    let request = Request { verb: "list", resource: "jobs.batch", name: "", namespace: &options.namespace };
    let labels = format!("{LABEL}={name}");
    let known = request.send(api.list(&ListParams::default().labels(&labels))).await?;
    let running = known.items.into_iter().find(|job| ended(job).is_none());
    let attached = running.is_some();
    let job = match running {
        Some(job) => job,
        None => {
            let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            let made = manifest(path, name)?;
            Request { verb: "create", ..request }.send(api.create(&params, &made)).await?
        }
    };
    let own = job.name_any();
    let end = until(&api, request, Which::Named(own.clone()), deadline, |seen: &Seen<Job>| match seen.get(&own) {
        Some(job) => ended(job),
        None => Some(Err("it was deleted".to_owned())),
    });
    match end.await? {
        Some(Ok(())) => {
            let before = if attached { ", begun before," } else { "" };
            Ok(Done { message: format!("Job {own}{before} is complete"), ..Done::default() })
        }
        Some(Err(why)) => {
            let message = format!("Job {own} in namespace {} failed: {why}; see its pods' logs", options.namespace);
            Err(DriverError::retryable("kubernetes-job-failed", message))
        }
        None => {
            let message = format!("Job {own} in namespace {} has not ended in time; it goes on", options.namespace);
            Err(DriverError::retryable("kubernetes-job-failed", message))
        }
    }
}

fn manifest(path: &Path, name: &str) -> Result<Job, DriverError> {
    let wrong = |why: String| {
        let message = format!("{} is no manifest of one Job: {why}", path.display());
        DriverError::permanent("kubernetes-configuration", message)
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut job: Job = super::manifest::read(&text).map_err(wrong)?;
    // The namespace is the one of the resource; the name is new each time, since an ended Job keeps its own.
    job.metadata.namespace = None;
    let stem = job.metadata.name.take().unwrap_or_else(|| name.to_owned());
    job.metadata.generate_name = Some(format!("{stem}-"));
    job.metadata.labels.get_or_insert_default().insert(LABEL.to_owned(), name.to_owned());
    if let Some(spec) = &mut job.spec {
        spec.ttl_seconds_after_finished.get_or_insert(KEPT_SECONDS);
    }
    Ok(job)
}

fn ended(job: &Job) -> Option<Result<(), String>> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let mut standing = conditions.iter().filter(|condition| condition.status == "True");
    standing.find_map(|condition| match condition.type_.as_str() {
        "Complete" => Some(Ok(())),
        "Failed" => Some(Err(condition.message.clone().or_else(|| condition.reason.clone()).unwrap_or_default())),
        _ => None,
    })
}
