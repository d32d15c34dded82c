//! Whether the agent may do what it will have to: asked beforehand, which changes nothing.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::failure::Request;
use crate::config::KubernetesOptions;
use crate::driver::DriverError;

/// One right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) verb: &'static str,
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) subresource: &'static str,
    pub(super) namespace: String,
    /// Of the object; empty for all of them. A list by one name can be granted by that name, too.
    pub(super) name: String,
}

/// What the workloads need.
pub(super) fn of_workloads(options: &KubernetesOptions) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let mut add = |group, resource, subresource, name: &Option<String>, verbs: &[&'static str]| {
        rights.extend(verbs.iter().map(|verb| Right {
            verb,
            group,
            resource,
            subresource,
            namespace: options.namespace.clone(),
            name: name.clone().unwrap_or_default(),
        }));
    };
    for one in &options.workloads {
        let all = one.selector.is_some();
        for (resource, named) in [("deployments", &one.deployment), ("statefulsets", &one.stateful_set)] {
            if all || named.is_some() {
                add("apps", resource, "", named, &["get", "list", "watch"]);
                add("apps", resource, "scale", named, &["patch"]);
                add("", "pods", "", &None, &["list", "watch"]);
                if one.replicas.is_none() {
                    // The number to come back to is an annotation.
                    add("apps", resource, "", named, &["patch"]);
                }
            }
        }
        if all || one.cron_job.is_some() {
            add("batch", "cronjobs", "", &one.cron_job, &["get", "list", "watch", "patch"]);
        }
    }
    if !options.jobs.is_empty() {
        add("batch", "jobs", "", &None, &["list", "watch", "create"]);
    }
    rights
}

/// What a look at the room for them needs.
pub(super) fn of_quotas(options: &KubernetesOptions) -> BTreeSet<Right> {
    let right = Right {
        verb: "list",
        group: "",
        resource: "resourcequotas",
        subresource: "",
        namespace: options.namespace.clone(),
        name: String::new(),
    };
    [right].into()
}

/// Which of them are missing, in words.
pub(super) async fn missing(client: &Client, rights: &BTreeSet<Right>) -> Result<Vec<String>, DriverError> {
    let reviews = try_join_all(rights.iter().map(|right| review(client, right))).await?;
    Ok(reviews.into_iter().flatten().collect())
}

async fn review(client: &Client, right: &Right) -> Result<Option<String>, DriverError> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = ResourceAttributes {
        verb: text(right.verb),
        group: text(right.group),
        resource: text(right.resource),
        subresource: text(right.subresource),
        namespace: text(&right.namespace),
        name: text(&right.name),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let asked = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let request = Request {
        verb: "create",
        resource: "selfsubjectaccessreviews.authorization.k8s.io",
        name: "",
        namespace: &right.namespace,
    };
    let answer = request.send(Api::all(client.clone()).create(&PostParams::default(), &asked)).await?;
    if answer.status.is_some_and(|status| status.allowed) {
        return Ok(None);
    }
    let Right { verb, group, resource, subresource, namespace, name } = right;
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if subresource.is_empty() { "" } else { "/" };
    let space = if name.is_empty() { "" } else { " " };
    Ok(Some(format!("{verb} {resource}{dot}{group}{slash}{subresource}{space}{name} in namespace {namespace}")))
}
