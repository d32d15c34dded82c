//! Who a client is, and what it may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::failure::Failure;

/// What is asked for, as RBAC sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) verb: String,
    pub(super) group: String,
    /// With its subresource: `deployments/scale`.
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Default)]
struct Rules {
    tokens: BTreeMap<String, String>,
    /// User, verb and resource, e.g. `deployments.apps/scale`.
    forbidden: BTreeSet<(String, String, String)>,
    /// By user, if not everything: Roles and ClusterRoles of RBAC.
    roles: BTreeMap<String, Vec<Value>>,
    revoked: BTreeSet<String>,
}

/// Every known user may everything, or what its Roles say, but what is forbidden.
#[derive(Default)]
pub(super) struct Access {
    rules: Mutex<Rules>,
}

impl Access {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bearer token of a user.
    pub(super) fn token(&self, user: &str) -> String {
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.rules().tokens.insert(token.clone(), user.to_owned());
        token
    }

    pub(super) fn forbid(&self, user: &str, verb: &str, resource: &str) {
        self.rules().forbidden.insert((user.to_owned(), verb.to_owned(), resource.to_owned()));
    }

    pub(super) fn grant_only(&self, user: &str, roles: Vec<Value>) {
        self.rules().roles.insert(user.to_owned(), roles);
    }

    pub(super) fn allow_all(&self, user: &str) {
        let mut rules = self.rules();
        rules.roles.remove(user);
        rules.forbidden.retain(|(of, _, _)| of != user);
        rules.revoked.remove(user);
    }

    pub(super) fn revoke(&self, user: &str) {
        self.rules().revoked.insert(user.to_owned());
    }

    /// By the certificate of the connection, or else the header.
    pub(super) fn user(&self, certified: Option<&str>, authorization: Option<&str>) -> Result<String, Failure> {
        let rules = self.rules();
        let token = authorization.and_then(|header| header.strip_prefix("Bearer "));
        let user = certified.map(str::to_owned).or_else(|| rules.tokens.get(token?).cloned());
        user.filter(|user| !rules.revoked.contains(user)).ok_or_else(Failure::unauthorized)
    }

    pub(super) fn allows(&self, user: &str, asked: &Asked) -> bool {
        let resource = match (asked.group.as_str(), asked.resource.split_once('/')) {
            ("", _) => asked.resource.clone(),
            (group, None) => format!("{}.{group}", asked.resource),
            (group, Some((plural, sub))) => format!("{plural}.{group}/{sub}"),
        };
        let rules = self.rules();
        let roles = rules.roles.get(user);
        roles.is_none_or(|roles| roles.iter().any(|role| grants(role, asked)))
            && !rules.forbidden.contains(&(user.to_owned(), asked.verb.clone(), resource))
    }

    pub(super) fn check(&self, user: &str, asked: &Asked) -> Result<(), Failure> {
        if self.allows(user, asked) {
            return Ok(());
        }
        let Asked { verb, group, resource, namespace, name } = asked;
        let plural = resource.split('/').next().unwrap_or_default();
        let dot = if group.is_empty() { "" } else { "." };
        let named = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let message = format!(
            "{plural}{dot}{group}{named} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \
             \"{group}\" in the namespace \"{namespace}\""
        );
        Err(Failure::new(403, "Forbidden", message))
    }
}

/// As RBAC reads a Role: nothing is forbidden by one, and what none grants is not allowed.
fn grants(role: &Value, asked: &Asked) -> bool {
    let says = |rule: &Value, key: &str, word: &str| {
        rule[key].as_array().is_some_and(|words| words.iter().any(|one| one == word || one == "*"))
    };
    let rules = role["rules"].as_array().into_iter().flatten();
    // A ClusterRole counts everywhere, as by a ClusterRoleBinding.
    let counts = role["kind"] == "ClusterRole" || role["metadata"]["namespace"] == asked.namespace.as_str();
    counts
        && rules.into_iter().any(|rule| {
            says(rule, "apiGroups", &asked.group)
                && says(rule, "resources", &asked.resource)
                && says(rule, "verbs", &asked.verb)
                && (rule["resourceNames"].is_null() || says(rule, "resourceNames", &asked.name))
        })
}
