//! The newest view, made at most a few times a second however many look at it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use regent_core::id::{LogIndex, RunId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::view::{self, RunView, View};

/// What all pages and streams share.
pub(super) struct Live {
    pub(super) node: Node,
    pub(super) shutdown: CancellationToken,
    /// One permit for each open stream.
    pub(super) streams: Arc<Semaphore>,
    newest: Mutex<Option<(Instant, LogIndex, Arc<View>)>>,
}

/// A view is good for so long if nothing was applied since.
const GOOD_FOR: Duration = Duration::from_millis(200);
/// More browsers than this are sent away; their pages reload by themselves.
const STREAMS: usize = 128;

impl Live {
    pub(super) fn new(node: Node, shutdown: CancellationToken) -> Self {
        Self { node, shutdown, streams: Arc::new(Semaphore::new(STREAMS)), newest: Mutex::default() }
    }

    /// The view as it is now.
    pub(super) fn view(&self) -> Arc<View> {
        let applied = *self.node.replica.applied().borrow();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, index, view)) = newest.as_ref()
            && *index == applied
            && at.elapsed() < GOOD_FOR
        {
            return view.clone();
        }
        let view = Arc::new(View::of(&self.node));
        *newest = Some((Instant::now(), applied, view.clone()));
        view
    }

    /// A run, also an old one.
    pub(super) fn run(&self, id: u64) -> Option<RunView> {
        view::look(&self.node, |inputs| Some(RunView::build(inputs, inputs.state.runs.get(&RunId(id))?)))
    }
}
