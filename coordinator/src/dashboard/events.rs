//! Server-sent events: the page again, whenever something was applied, and at least once a second.

use regent_proto::watch;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use regent_core::id::LogIndex;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::live::Live;
use super::page::{self, Page};
use crate::replica::Leadership;

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    page: String,
}

/// What the script gets.
#[derive(Serialize)]
struct Fresh<'a> {
    /// Another build serves now: the script reloads the page with its assets.
    build: &'a str,
    title: &'a str,
    html: &'a str,
}

struct Stream {
    live: Arc<Live>,
    page: Page,
    applied: watch::Receiver<LogIndex>,
    leadership: watch::Receiver<Leadership>,
    first: bool,
    _permit: OwnedSemaphorePermit,
}

/// Ages are shown in seconds, so the page is sent at least so often.
const TICK: Duration = Duration::from_secs(1);
/// Entries that are applied in one burst are shown together.
const GATHER: Duration = Duration::from_millis(60);

pub(super) async fn events(State(live): State<Arc<Live>>, Query(wanted): Query<Wanted>) -> Response {
    let Ok(permit) = live.streams.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "too many open pages").into_response();
    };
    let stream = Stream {
        page: Page::parse(&wanted.page),
        applied: live.node.replica.applied(),
        leadership: live.node.replica.leadership(),
        live,
        first: true,
        _permit: permit,
    };
    Sse::new(stream::unfold(stream, |mut stream| async move {
        stream.wait().await?;
        let event = stream.draw();
        Some((Ok::<_, Infallible>(event), stream))
    }))
    .into_response()
}

impl Stream {
    /// Waits until there is something to send; none when the server stops.
    async fn wait(&mut self) -> Option<()> {
        if std::mem::take(&mut self.first) {
            return Some(());
        }
        let shutdown = self.live.shutdown.clone();
        let changed = async {
            tokio::select! {
                biased;
                _ = self.applied.changed() => {}
                _ = self.leadership.changed() => {}
            }
            tokio::time::sleep(GATHER).await;
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            () = changed => Some(()),
            () = tokio::time::sleep(TICK) => Some(()),
        }
    }

    fn draw(&mut self) -> Event {
        self.applied.mark_unchanged();
        self.leadership.mark_unchanged();
        let drawn = self.page.draw(&self.live);
        let html = drawn.html.into_string();
        let fresh = Fresh { build: page::build(), title: &drawn.title, html: &html };
        match Event::default().event("page").json_data(&fresh) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(%error, "a page could not be sent");
                Event::default().comment("not drawn")
            }
        }
    }
}
