//! Raft's watch channels, woken in the order in which they began to wait.
//!
//! Tokio's own spread those who wait over several lists at random, which is good for many waiters on many threads.
//! Raft has a handful, and a simulation needs the same order every time.

use std::sync::Arc;

use openraft::async_runtime::watch;
use openraft::{OptionalSend, OptionalSync};
use tokio::sync::{Notify, watch as tokio_watch};

/// Names these channels for raft.
pub struct InOrder;

/// The sending end.
pub struct Sender<T> {
    /// None while it is being dropped.
    inner: Option<tokio_watch::Sender<T>>,
    woken: Arc<Notify>,
}

/// A receiving end.
pub struct Receiver<T> {
    inner: tokio_watch::Receiver<T>,
    woken: Arc<Notify>,
}

impl<T> Sender<T> {
    fn inner(&self) -> &tokio_watch::Sender<T> {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("it is taken only when it is dropped"),
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), woken: self.woken.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // First gone, then told: who is woken by the last one finds the channel closed.
        drop(self.inner.take());
        self.woken.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), woken: self.woken.clone() }
    }
}

impl watch::Watch for InOrder {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = tokio_watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = tokio_watch::channel(init);
        let woken = Arc::new(Notify::new());
        (Sender { inner: Some(sender), woken: woken.clone() }, Receiver { inner: receiver, woken })
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<InOrder, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        let sent = self.inner().send(value).map_err(|error| watch::SendError(error.0));
        self.woken.notify_waiters();
        sent
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = self.inner().send_if_modified(modify);
        if modified {
            self.woken.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> tokio_watch::Ref<'_, T> {
        self.inner().borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver { inner: self.inner().subscribe(), woken: self.woken.clone() }
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<InOrder, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        loop {
            let mut woken = std::pin::pin!(self.woken.notified());
            // From here on no change is missed; then it is seen whether there was one before.
            woken.as_mut().enable();
            if self.inner.borrow_and_update().has_changed() {
                return Ok(());
            }
            if self.inner.has_changed().is_err() {
                return Err(watch::RecvError(()));
            }
            woken.await;
        }
    }

    fn borrow_watched(&self) -> tokio_watch::Ref<'_, T> {
        self.inner.borrow()
    }

    fn borrow_and_update(&mut self) -> tokio_watch::Ref<'_, T> {
        self.inner.borrow_and_update()
    }
}
