//! The wire: from paths and verbs to the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Server;
use super::access::Asked;
use super::failure::Failure;
use super::fields;
use super::store::{Event, Key, Kind, Writer};
use super::tls::Client;

/// Between two bookmarks of a watch in which nothing happens; real servers take a minute.
const BOOKMARK: Duration = Duration::from_secs(1);
/// Largest body.
const BODY: usize = 4 * 1024 * 1024;

type Parameters = BTreeMap<String, String>;

/// What a path names.
struct Target {
    kind: Kind,
    namespace: String,
    name: String,
    subresource: String,
}

pub(super) async fn answer(
    State(server): State<Arc<Server>>,
    ConnectInfo(client): ConnectInfo<Client>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Response {
    match respond(server, &client, parameters, request).await {
        Ok(response) => response,
        Err(failure) => {
            let code = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (code, axum::Json(failure.status())).into_response()
        }
    }
}

async fn respond(
    server: Arc<Server>,
    client: &Client,
    parameters: Parameters,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let header = |headers: &HeaderMap, name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let authorization = header(&parts.headers, header::AUTHORIZATION);
    let user = server.access.user(client.certified.as_deref(), authorization.as_deref())?;
    let body = axum::body::to_bytes(body, BODY).await;
    let body = body.map_err(|error| Failure::new(400, "BadRequest", error.to_string()))?;
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    if path == ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] {
        return review(&server, &user, &body);
    }
    let target = target(&path)?;
    let watches = parameters.get("watch").is_some_and(|value| matches!(value.as_str(), "true" | "1"));
    let mut asked = asked(&parts.method, &target, watches)?;
    // A list by one name counts as one of that name.
    asked.name = by_name(&parameters).map_or(asked.name, str::to_owned);
    server.access.check(&user, &asked)?;
    let dry = dry_run(&parameters)?;
    let agent = header(&parts.headers, header::USER_AGENT).unwrap_or_default();
    let manager = parameters.get("fieldManager").cloned();
    let manager = manager.unwrap_or_else(|| agent.split('/').next().unwrap_or_default().to_owned());
    match asked.verb.as_str() {
        "watch" => Ok(watch(server, target, &parameters)),
        "list" => Ok(axum::Json(list(&server, &target, &parameters)).into_response()),
        "get" => Ok(axum::Json(get(&server, &target)?).into_response()),
        "delete" if dry => Ok(axum::Json(get(&server, &target)?).into_response()),
        "delete" => delete(&server, &target),
        _ => {
            if asked.verb != "create" {
                server.interfere(target.kind, &target.namespace, &target.name)?;
            }
            let content = header(&parts.headers, header::CONTENT_TYPE).unwrap_or_default();
            let force = parameters.get("force").is_some_and(|value| value == "true");
            let body: Value =
                serde_json::from_slice(&body).map_err(|error| Failure::new(400, "BadRequest", error.to_string()))?;
            let how = How { verb: &asked.verb, content: &content, manager: &manager, force, dry };
            write(&server, &target, &how, body)
        }
    }
}

fn target(path: &[&str]) -> Result<Target, Failure> {
    let unknown = || Failure::new(404, "NotFound", "the server could not find the requested resource");
    let (group, rest) = match path {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return Err(unknown()),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, "", ""),
        [plural, name] => (plural, *name, ""),
        [plural, name, subresource] => (plural, *name, *subresource),
        _ => return Err(unknown()),
    };
    let kind = Kind::of(group, plural).ok_or_else(unknown)?;
    let known = match subresource {
        "" => true,
        "scale" => kind.scale,
        "status" => kind.status,
        _ => false,
    };
    if !known {
        return Err(unknown());
    }
    Ok(Target { kind, namespace: namespace.into(), name: name.into(), subresource: subresource.into() })
}

fn asked(method: &Method, target: &Target, watches: bool) -> Result<Asked, Failure> {
    let verb = match (method.as_str(), target.name.is_empty()) {
        ("GET", true) if watches => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", true) => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", false) => "delete",
        _ => return Err(Failure::new(405, "MethodNotAllowed", "the server does not allow this method here")),
    };
    let slash = if target.subresource.is_empty() { "" } else { "/" };
    Ok(Asked {
        verb: verb.into(),
        group: target.kind.group.into(),
        resource: format!("{}{slash}{}", target.kind.plural, target.subresource),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
    })
}

fn review(server: &Server, user: &str, body: &Bytes) -> Result<Response, Failure> {
    let mut asked: Value =
        serde_json::from_slice(body).map_err(|error| Failure::new(400, "BadRequest", error.to_string()))?;
    let attributes = &asked["spec"]["resourceAttributes"];
    let text = |key: &str| attributes[key].as_str().unwrap_or_default().to_owned();
    let (resource, subresource) = (text("resource"), text("subresource"));
    let slash = if subresource.is_empty() { "" } else { "/" };
    let question = Asked {
        verb: text("verb"),
        group: text("group"),
        resource: format!("{resource}{slash}{subresource}"),
        namespace: text("namespace"),
        name: text("name"),
    };
    let allowed = server.access.allows(user, &question);
    asked["status"] = json!({ "allowed": allowed });
    Ok((StatusCode::CREATED, axum::Json(asked)).into_response())
}

fn list(server: &Server, target: &Target, parameters: &Parameters) -> Value {
    let (found, version) = server.store.list(target.kind, &target.namespace);
    let items: Vec<Value> = found.into_iter().filter(|object| selected(object, parameters)).collect();
    json!({
        "kind": format!("{}List", target.kind.kind),
        "apiVersion": target.kind.api_version(),
        "metadata": { "resourceVersion": version.to_string() },
        "items": items,
    })
}

fn get(server: &Server, target: &Target) -> Result<Value, Failure> {
    let found = server.store.get(&target.key());
    let found = found.ok_or_else(|| Failure::missing(&target.kind.resource(), &target.name))?;
    Ok(if target.subresource == "scale" { scale(&found) } else { found })
}

fn delete(server: &Server, target: &Target) -> Result<Response, Failure> {
    server.store.delete(&target.key()).ok_or_else(|| Failure::missing(&target.kind.resource(), &target.name))?;
    if target.kind.plural == "namespaces" {
        server.empty(&target.name);
    }
    Ok(axum::Json(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })).into_response())
}

struct How<'a> {
    verb: &'a str,
    content: &'a str,
    manager: &'a str,
    force: bool,
    /// Everything is checked and answered as always, and nothing is kept.
    dry: bool,
}

fn write(server: &Server, target: &Target, how: &How<'_>, body: Value) -> Result<Response, Failure> {
    let (kind, key) = (target.kind, target.key());
    let subresource = match target.subresource.as_str() {
        "scale" => Some("scale"),
        "status" => Some("status"),
        _ => None,
    };
    let writer = Writer { manager: how.manager, subresource };
    let merges = how.content.starts_with("application/merge-patch+json");
    let applies = how.content.starts_with("application/apply-patch");
    let copy = how.dry.then(|| server.store.copy());
    let store = copy.as_ref().unwrap_or(&server.store);
    let written = match how.verb {
        "create" => {
            let made = store.create(kind, &target.namespace, body, writer)?;
            return Ok((StatusCode::CREATED, axum::Json(made)).into_response());
        }
        "patch" if applies && subresource.is_none() => store.apply(kind, &key, how.manager, how.force, &body)?,
        "patch" if !merges => {
            let message = "the body of the request was in an unknown format: this server takes merge patches and apply";
            return Err(Failure::new(415, "UnsupportedMediaType", message));
        }
        "patch" | "update" if subresource == Some("scale") => store.update(kind, &key, writer, |object| {
            let mut wanted = scale(object);
            if merges {
                fields::merge(&mut wanted, &body)
            } else {
                wanted = body.clone()
            }
            object["spec"]["replicas"] = wanted["spec"]["replicas"].clone();
            object["metadata"]["resourceVersion"] = wanted["metadata"]["resourceVersion"].clone();
            Ok(())
        })?,
        _ => store.update(kind, &key, writer, |object| {
            if merges {
                fields::merge(object, &body)
            } else {
                *object = body.clone()
            }
            Ok(())
        })?,
    };
    let shown = if subresource == Some("scale") { scale(&written) } else { written };
    Ok(axum::Json(shown).into_response())
}

/// Dry runs are asked for by one word.
fn dry_run(parameters: &Parameters) -> Result<bool, Failure> {
    match parameters.get("dryRun").map(String::as_str) {
        None | Some("") => Ok(false),
        Some("All") => Ok(true),
        Some(other) => {
            let message = format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"");
            Err(Failure::new(422, "Invalid", message))
        }
    }
}

impl Target {
    fn key(&self) -> Key {
        // A namespace is in none.
        self.kind.key(&self.namespace, &self.name)
    }
}

/// A workload as its scale subresource shows it.
fn scale(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let labels = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let selector: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": object["spec"]["replicas"].as_i64().unwrap_or(1) },
        "status": { "replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector.join(",") },
    })
}

fn by_name(parameters: &Parameters) -> Option<&str> {
    parameters.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="))
}

/// By name, and by labels that must be equal.
fn selected(object: &Value, parameters: &Parameters) -> bool {
    let metadata = &object["metadata"];
    let named = by_name(parameters);
    let labels = parameters.get("labelSelector").map(String::as_str).unwrap_or_default();
    let equal = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        metadata["labels"][key.trim()] == value.trim_start_matches('=').trim()
    };
    named.is_none_or(|name| metadata["name"] == name) && labels.split(',').filter(|one| !one.is_empty()).all(equal)
}

/// One watch: events from a version on, bookmarks when nothing happens, and its end.
struct Watching {
    server: Arc<Server>,
    target: Target,
    parameters: Parameters,
    news: tokio::sync::watch::Receiver<u64>,
    version: u64,
    bookmarks: bool,
    end: Instant,
    /// Sent first: the objects that there are, where the watch begins at no version.
    first: Vec<Value>,
    over: bool,
}

fn watch(server: Arc<Server>, target: Target, parameters: &Parameters) -> Response {
    let news = server.store.news();
    let given = parameters.get("resourceVersion").and_then(|text| text.parse::<u64>().ok()).filter(|given| *given > 0);
    let (found, version) = server.store.list(target.kind, &target.namespace);
    let seconds = parameters.get("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(300);
    let first = if given.is_none() { found } else { Vec::new() };
    let watching = Watching {
        news,
        version: given.unwrap_or(version),
        bookmarks: parameters.get("allowWatchBookmarks").is_some_and(|value| value == "true"),
        end: Instant::now() + Duration::from_secs(seconds),
        first: first.into_iter().filter(|object| selected(object, parameters)).collect(),
        parameters: parameters.clone(),
        over: false,
        server,
        target,
    };
    let stream = futures::stream::unfold(watching, |mut watching| async move {
        let lines = watching.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(lines)), watching))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
}

impl Watching {
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Some(first.iter().map(|object| line("ADDED", object)).collect());
        }
        loop {
            self.news.borrow_and_update();
            let (events, version) = match self.server.store.since(self.version) {
                Ok(news) => news,
                Err(failure) => {
                    self.over = true;
                    return Some(line("ERROR", &failure.status()));
                }
            };
            self.version = version;
            let lines: String = events
                .iter()
                .filter(|event| self.concerns(event))
                .map(|event| line(event.word, &event.object))
                .collect();
            if !lines.is_empty() {
                return Some(lines);
            }
            let pause = BOOKMARK.min(self.end.saturating_duration_since(Instant::now()));
            match tokio::time::timeout(pause, self.news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) if Instant::now() >= self.end => return None,
                Err(_) if self.bookmarks => return Some(line("BOOKMARK", &self.bookmark())),
                Err(_) => {}
            }
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        let Target { kind, namespace, .. } = &self.target;
        event.key.plural == kind.plural
            && (namespace.is_empty() || event.key.namespace == *namespace)
            && selected(&event.object, &self.parameters)
    }

    fn bookmark(&self) -> Value {
        json!({
            "kind": self.target.kind.kind,
            "apiVersion": self.target.kind.api_version(),
            "metadata": { "resourceVersion": self.version.to_string(), "creationTimestamp": null },
        })
    }
}

fn line(word: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": word, "object": object }))
}
