//! Follows objects by list and watch until they are as they should be.
//!
//! A watch goes on from the last version that was seen, by an event or a bookmark, when the server ends it; a version
//! that is no longer kept (410) begins anew with a list. Whoever follows bounds it by a deadline.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::failure::{Refusal, Request};
use crate::driver::DriverError;

/// The server ends a watch after so long, in seconds; it is begun again.
const WATCH: u32 = 20;
/// Nothing heard for so long, not even that end: the connection is dead.
const DEAD: Duration = Duration::from_secs(25);
/// Before the server is asked again after a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// Which objects.
#[derive(Debug, Clone)]
pub(super) enum Which {
    /// The one with this name.
    Named(String),
    /// Those with these labels.
    Labelled(String),
}

/// The objects that there are, by name.
pub(super) type Seen<K> = BTreeMap<String, K>;

/// Until `look` has its answer, or the deadline has passed: then none.
///
/// # Errors
/// What no waiting mends.
pub(super) async fn until<K, T>(
    api: &Api<K>,
    request: Request<'_>,
    which: Which,
    deadline: Instant,
    mut look: impl FnMut(&Seen<K>) -> Option<T>,
) -> Result<Option<T>, DriverError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let work = async {
        loop {
            match follow(api, request, &which, &mut look).await {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Expired) => {}
                Err(refusal) => {
                    let error = DriverError::from(refusal);
                    if !error.retryable {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    match tokio::time::timeout_at(deadline, work).await {
        Ok(answer) => answer.map(Some),
        Err(_) => Ok(None),
    }
}

/// From one list on. Ends with an answer, or with a failure after which a list is due.
async fn follow<K, T>(
    api: &Api<K>,
    request: Request<'_>,
    which: &Which,
    look: &mut impl FnMut(&Seen<K>) -> Option<T>,
) -> Result<T, Refusal>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let (list, watch) = params(which);
    let listed = Request { verb: "list", ..request }.send(api.list(&list)).await?;
    let mut version = listed.metadata.resource_version.unwrap_or_default();
    let mut seen: Seen<K> = listed.items.into_iter().map(|object| (object.name_any(), object)).collect();
    if let Some(answer) = look(&seen) {
        return Ok(answer);
    }
    let request = Request { verb: "watch", ..request };
    loop {
        let events = request.send(api.watch(&watch, &version)).await?;
        pin_mut!(events);
        // Dead or ended: the next watch goes on from the last version.
        while let Ok(Some(event)) = tokio::time::timeout(DEAD, events.next()).await {
            match event.map_err(|error| request.refusal(&error))? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.resource_version().unwrap_or(version);
                    seen.insert(object.name_any(), object);
                }
                WatchEvent::Deleted(object) => {
                    version = object.resource_version().unwrap_or(version);
                    seen.remove(&object.name_any());
                }
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(request.of_status(&status)),
            }
            if let Some(answer) = look(&seen) {
                return Ok(answer);
            }
        }
    }
}

fn params(which: &Which) -> (ListParams, WatchParams) {
    let (list, watch) = (ListParams::default(), WatchParams::default().timeout(WATCH));
    match which {
        Which::Named(name) => {
            let field = format!("metadata.name={name}");
            (list.fields(&field), watch.fields(&field))
        }
        Which::Labelled(labels) => (list.labels(labels), watch.labels(labels)),
    }
}
