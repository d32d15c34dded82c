//! Raft's watch channels are those of the product: woken in the same order every time.

use openraft::async_runtime::watch;
use openraft::{OptionalSend, OptionalSync};
use regent_proto::watch::{Receiver, Ref, Sender, channel};

/// Names these channels for raft.
pub struct InOrder;

impl watch::Watch for InOrder {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        channel(init)
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<InOrder, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        Self::send(self, value).map_err(|error| watch::SendError(error.0))
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        Self::send_if_modified(self, modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Self::subscribe(self)
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<InOrder, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        Self::changed(self).await.map_err(|_| watch::RecvError(()))
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        Self::borrow_and_update(self)
    }
}
