//! What the holder of a watch gets.
//!
//! Called by: users of [`crate::Client`]. Calls: `session::watches` fills it.
//! Invariant: events come in the order of the writes, each before any answer that could reveal it.

use crate::root::Root;
use coordinator_protocol::{EventType, Zxid};
use tokio::sync::mpsc;

/// How many events of one watch may wait for their receiver.
pub(crate) const WATCH_EVENTS_MAX: usize = 4096;

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something happened to a znode.
    Changed {
        /// What.
        event: EventType,
        /// Which znode.
        path: String,
        /// The write that did it, where the server tells.
        zxid: Option<Zxid>,
    },
    /// The connection was away: a persistent watch may have missed something. Read again.
    Reconnected,
}

/// The receiving end of a watch. A one-shot watch gives one event and then ends.
#[derive(Debug)]
pub struct Watch {
    receiver: mpsc::Receiver<WatchEvent>,
    root: Root,
}

impl Watch {
    pub(crate) fn new(root: Root) -> (mpsc::Sender<WatchEvent>, Self) {
        let (sender, receiver) = mpsc::channel(WATCH_EVENTS_MAX);
        (sender, Self { receiver, root })
    }

    /// The next event. `None` when the watch is over: a one-shot one has fired, the session has
    /// ended, or the receiver fell too far behind.
    ///
    /// Cancel-safe: an event that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let mut event = self.receiver.recv().await?;
        if let WatchEvent::Changed { path, .. } = &mut event {
            self.root.strip(path);
        }
        Some(event)
    }
}
