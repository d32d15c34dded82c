//! A Job from a listed manifest: attached to if one of it runs, made if none does, and waited for.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
/// One look at the manifests; a disk that does not answer is no proof.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Of which listed manifests no Job could be made, with what to do. One look at a time is under way, however long the disk
/// takes.
pub(super) async fn lacking(options: &KubernetesOptions, reading: &Arc<Mutex<()>>) -> Vec<String> {
    if options.jobs.is_empty() {
        return Vec::new();
    }
    let (jobs, reading) = (options.jobs.clone(), reading.clone());
    let look = tokio::task::spawn_blocking(move || {
        let Ok(_one) = reading.try_lock() else { return Vec::new() };
        let wrong = jobs.iter().filter_map(|(name, path)| Some((name, manifest(path, name).err()?.message)));
        wrong
            .map(|(name, why)| format!("jobs: {name}: {why}; correct it, and quote what is meant as text"))
            .collect::<Vec<String>>()
    });
    match tokio::time::timeout(LOOK_LIMIT, look).await {
        Ok(Ok(lacks)) => lacks,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_that_no_job_could_be_made_of_is_known_before_its_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("migrate.yaml");
        let text = format!(
            "namespace: shop\nworkloads: [{{ deployment: checkout, replicas: 1 }}]\njobs: {{ migrate: {} }}",
            path.display()
        );
        let options: KubernetesOptions = serde_saphyr::from_str(&text).unwrap();
        let reading = Arc::default();
        let lacks = lacking(&options, &reading).await;
        assert!(lacks.len() == 1 && lacks[0].contains("migrate.yaml is no manifest"), "it is not there: {lacks:?}");
        let job = |port: &str| {
            format!(
                "apiVersion: batch/v1\nkind: Job\nspec:\n  template:\n    spec:\n      containers:\n        - name: one\n          \
                 env: [{{ name: PORT, value: {port} }}]\n"
            )
        };
        std::fs::write(&path, job("8080")).unwrap();
        let lacks = lacking(&options, &reading).await;
        assert!(lacks.len() == 1 && lacks[0].starts_with("jobs: migrate: "), "{lacks:?}");
        assert!(lacks[0].contains("line 8, column ") && lacks[0].contains("expected a string"), "{lacks:?}");
        std::fs::write(&path, job("'8080'")).unwrap();
        assert_eq!(lacking(&options, &reading).await, Vec::<String>::new());
    }
}
