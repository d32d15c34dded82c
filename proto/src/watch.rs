//! A channel that keeps the newest value, whose waiters are woken in the order in which they began to wait.
//!
//! Tokio's own spreads those who wait over several lists at random, which is good for many waiters on many threads.
//! Here there is a handful, and a simulation needs the same order every time.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::watch;
pub use tokio::sync::watch::Ref;
use tokio::sync::watch::error::{RecvError, SendError};

/// The sending end.
#[derive(Debug)]
pub struct Sender<T> {
    /// None while it is being dropped.
    inner: Option<watch::Sender<T>>,
    woken: Arc<Notify>,
}

/// A receiving end.
#[derive(Debug)]
pub struct Receiver<T> {
    inner: watch::Receiver<T>,
    woken: Arc<Notify>,
}

/// Both ends; the receiver has seen the first value.
pub fn channel<T>(init: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(init);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Without a receiver yet.
    pub fn new(init: T) -> Self {
        Self { inner: Some(watch::Sender::new(init)), woken: Arc::new(Notify::new()) }
    }

    /// # Errors
    /// With the value, if nobody receives.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let sent = self.inner().send(value);
        self.woken.notify_waiters();
        sent
    }

    /// The value before; it is replaced whether somebody receives or not.
    pub fn send_replace(&self, value: T) -> T {
        let before = self.inner().send_replace(value);
        self.woken.notify_waiters();
        before
    }

    /// Wakes only if `modify` says that it changed the value.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = self.inner().send_if_modified(modify);
        if modified {
            self.woken.notify_waiters();
        }
        modified
    }

    /// Holds off every sender while it is held.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.inner().borrow()
    }

    /// One more receiver, which has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { inner: self.inner().subscribe(), woken: self.woken.clone() }
    }

    fn inner(&self) -> &watch::Sender<T> {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("it is taken only when it is dropped"),
        }
    }
}

impl<T> Receiver<T> {
    /// Until there is a value that this receiver has not seen; it has seen it then.
    ///
    /// # Errors
    /// If every sender is gone.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        let woken = self.woken.clone();
        loop {
            let mut woken = std::pin::pin!(woken.notified());
            // From here on no change is missed; then it is seen whether there was one before.
            woken.as_mut().enable();
            if self.inner.borrow_and_update().has_changed() {
                return Ok(());
            }
            // Asked second: the last value of a closed channel is still one to see.
            self.inner.has_changed()?;
            woken.await;
        }
    }

    /// Until the value is as wanted.
    ///
    /// # Errors
    /// If every sender is gone, and the last value is not as wanted.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<T, RecvError>
    where
        T: Clone,
    {
        loop {
            let found = {
                let now = self.inner.borrow_and_update();
                wanted(&now).then(|| now.clone())
            };
            match found {
                Some(found) => return Ok(found),
                None => self.changed().await?,
            }
        }
    }

    /// The present value counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.inner.mark_unchanged();
    }

    /// Holds off every sender while it is held.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.inner.borrow()
    }

    /// As [`Self::borrow`], and it is seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.inner.borrow_and_update()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), woken: self.woken.clone() }
    }
}

impl<T> Clone for Receiver<T> {
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
