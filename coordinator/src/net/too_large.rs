//! Requests that are larger than may be: counted, and told of now and then.
//!
//! Called by: connections; metrics read the count. Calls: `seldom`.
//! Invariant: each is counted; lines are few, however many there are.
//! Does not know: what a client is told, which is nothing: its connection is closed, as ZooKeeper does.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use coordinator_protocol::FrameError;
use tracing::{debug, warn};

use super::seldom::Seldom;

/// Those of all clients.
#[derive(Debug, Default)]
pub struct TooLarge {
    count: AtomicU64,
    lines: Seldom,
}

impl TooLarge {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// A frame of this client cannot be taken; what is no frame at all is its own business.
    pub fn tell(&self, from: IpAddr, error: &FrameError) {
        let FrameError::TooLong { length, limit } = *error else {
            return debug!(%from, %error, "a frame cannot be taken");
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(requests) = self.lines.count() {
            warn!(
                %from, length, limit, requests,
                "a request is larger than jute.maxbuffer, or what sets watches again than is ever taken; its connection is \
                 closed, one of so many since the last such line"
            );
        }
    }
}
