//! The dashboard: pages that show the view model, live, without outside assets, without a build step.
//!
//! Read only. Every page is whole without JavaScript; with it, `/events` sends the same HTML again whenever something
//! changes, at least once a second, and a small script morphs the page into it. The script also says when the
//! connection is lost and how old the page then is. All text goes through maud, which escapes it: names and messages
//! come from documents, agents and operators. The content security policy allows nothing but our own assets.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio_util::sync::CancellationToken;

use crate::node::Node;

mod application;
mod audit;
mod events;
mod format;
mod live;
mod overview;
mod page;
mod parts;
mod readiness;
mod run;
mod timeline;
mod why;

use live::Live;
use page::Page;

const CSS: &str = include_str!("dashboard/dashboard.css");
const JS: &str = include_str!("dashboard/dashboard.js");
const ICON: &str = include_str!("dashboard/icon.svg");

/// Nothing from elsewhere, nothing inline, nothing to submit, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the dashboard, with `/api/view`. Streams end when the token is cancelled.
pub fn router(node: Node, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/applications/{name}", get(application))
        .route("/runs", get(runs))
        .route("/runs/{id}", get(run))
        .route("/audit", get(audit))
        .route("/api/view", get(api_view))
        .route("/api/runs/{id}", get(api_run))
        .route("/events", get(events::events))
        .route("/assets/dashboard.css", get(|| asset("text/css; charset=utf-8", CSS)))
        .route("/assets/dashboard.js", get(|| asset("text/javascript; charset=utf-8", JS)))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", ICON)))
        .fallback(nowhere)
        .layer(middleware::from_fn(harden))
        .with_state(Arc::new(Live::new(node, shutdown)))
}

async fn overview(State(live): State<Arc<Live>>) -> Response {
    show(&live, &Page::Overview)
}

async fn application(State(live): State<Arc<Live>>, Path(name): Path<String>) -> Response {
    show(&live, &Page::Application(name))
}

async fn runs(State(live): State<Arc<Live>>) -> Response {
    show(&live, &Page::Runs)
}

async fn run(State(live): State<Arc<Live>>, Path(id): Path<String>) -> Response {
    show(&live, &Page::parse(&format!("/runs/{id}")))
}

async fn audit(State(live): State<Arc<Live>>, Query(filter): Query<page::Filter>) -> Response {
    show(&live, &Page::Audit(filter))
}

async fn nowhere(State(live): State<Arc<Live>>) -> Response {
    show(&live, &Page::Nowhere)
}

async fn api_view(State(live): State<Arc<Live>>) -> Response {
    Json(&*live.view()).into_response()
}

async fn api_run(State(live): State<Arc<Live>>, Path(id): Path<String>) -> Response {
    match id.parse().ok().and_then(|id| live.run(id)) {
        Some(run) => Json(run).into_response(),
        None => (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": "no such run" }))).into_response(),
    }
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

fn show(live: &Live, page: &Page) -> Response {
    let drawn = page.draw(live);
    let status = if drawn.found { StatusCode::OK } else { StatusCode::NOT_FOUND };
    (status, Html(page::document(page, &drawn).into_string())).into_response()
}

async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
