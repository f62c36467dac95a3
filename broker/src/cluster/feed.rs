//! The coordinator's subscription into metadata images, and the images to everyone.
//!
//! Called by: `membership`. Calls: `broker_core::image`, which understands the znodes.
//! Invariant: images are published in zxid order, each whole; a listener gets every one with what
//! changed, and is waited for, so that it can be behind but never miss one.

use std::sync::Arc;

use broker_core::ids::Zxid;
use broker_core::image::{Applied, Change, FeedEvent, Image, ImageFeed, Item, ItemKind, Stat};
use coordinator_client::protocol::{self, ItemKind as WireKind};
use coordinator_client::{Client, Error, Update};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// How many images may wait for a listener before the feed waits for it.
pub const IMAGES_WAITING_MAX: usize = 64;

/// An image and what changed since the one before.
pub type Updated = Arc<Applied>;

/// Where images go.
pub(super) struct Publisher {
    feed: ImageFeed,
    image: watch::Sender<Arc<Image>>,
    listeners: Vec<mpsc::Sender<Updated>>,
}

impl Publisher {
    pub(super) fn new(listeners: Vec<mpsc::Sender<Updated>>) -> Self {
        let image = watch::Sender::new(Arc::new(Image::default()));
        Self { feed: ImageFeed::default(), image, listeners }
    }

    pub(super) fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.image.subscribe()
    }

    /// Adds a listener that lives as long as a session; those that are gone are forgotten.
    pub(super) fn listen(&mut self) -> mpsc::Receiver<Updated> {
        let (sender, receiver) = mpsc::channel(IMAGES_WAITING_MAX);
        self.listeners.retain(|listener| !listener.is_closed());
        self.listeners.push(sender);
        receiver
    }

    /// Follows the subscription of one session until that is over.
    pub(super) async fn follow(&mut self, client: &Client) -> Error {
        loop {
            match self.follow_once(client).await {
                Error::Overrun => {
                    warn!("the metadata came faster than it was taken: starting anew")
                }
                error => return error,
            }
        }
    }

    async fn follow_once(&mut self, client: &Client) -> Error {
        let mut subscription = match client.subscribe("/").await {
            Ok(subscription) => subscription,
            Err(error) => return error,
        };
        loop {
            match subscription.next().await {
                Ok(update) => self.apply(event(update)).await,
                Err(error) => return error,
            }
        }
    }

    async fn apply(&mut self, event: FeedEvent) {
        let Some(applied) = self.feed.apply(event) else { return };
        for change in &applied.changes {
            if let Change::Unreadable { path, reason } = change {
                warn!(path, "ignored, it cannot be read: {reason}");
            }
        }
        let first = self.image.borrow().complete_to() == Zxid::default();
        if first {
            info!(zxid = applied.image.complete_to().get(), "metadata is here");
        }
        self.image.send_replace(Arc::new(applied.image.clone()));
        let updated = Arc::new(applied);
        for listener in &self.listeners {
            // One that is gone wants nothing.
            let _ = listener.send(Arc::clone(&updated)).await;
        }
    }
}

fn event(update: Update) -> FeedEvent {
    match update {
        // Its zxid comes with its end.
        Update::SnapshotBegin => FeedEvent::SnapshotBegin { zxid: Zxid::default() },
        Update::SnapshotChunk(items) => FeedEvent::SnapshotChunk { items: convert(items) },
        Update::SnapshotEnd(zxid) => FeedEvent::SnapshotEnd { zxid: Zxid::new(zxid.get()) },
        Update::Changes { zxid, items } => {
            FeedEvent::Changes { zxid: Zxid::new(zxid.get()), items: convert(items) }
        }
        Update::CompleteUpTo(zxid) => FeedEvent::Bookmark { zxid: Zxid::new(zxid.get()) },
    }
}

fn convert(items: Vec<protocol::Item>) -> Vec<Item> {
    let convert = |item: protocol::Item| Item {
        kind: match item.kind {
            WireKind::Present => ItemKind::Present,
            WireKind::Created => ItemKind::Created,
            WireKind::DataChanged => ItemKind::Changed,
            WireKind::Deleted => ItemKind::Deleted,
        },
        path: item.path,
        data: item.data.map(Vec::from).unwrap_or_default(),
        stat: Stat {
            czxid: Zxid::new(item.stat.czxid.get()),
            mzxid: Zxid::new(item.stat.mzxid.get()),
            version: item.stat.version,
        },
    };
    items.into_iter().map(convert).collect()
}
