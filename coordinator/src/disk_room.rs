//! Looks now and then how much room the disk has, and says in the log when the core draws a consequence.
//!
//! Called by: `server`. Calls: the storage's gauge, the core's inputs.
//! Invariant: one look at a time, on a thread that may block; one line when the room gets little, one when it is there
//! again.
//! Does not know: how much is enough, what is refused.

use std::time::Duration;

use coordinator_core::server::{DiskRoom, Event};
use tracing::{info, warn};

use crate::core_loop::{Input, Inputs};
use crate::net::Seldom;
use crate::storage::RoomGauge;

/// Between two looks. What the mark keeps free is more than a log grows by in so long.
const PAUSE: Duration = Duration::from_secs(1);

/// Measures until the task is dropped or the core is gone, or nothing can be measured.
pub async fn run(gauge: RoomGauge, inputs: Inputs) {
    let failures = Seldom::default();
    loop {
        let gauge = gauge.clone();
        match tokio::task::spawn_blocking(move || gauge.free_bytes()).await {
            Ok(Ok(Some(free_bytes))) => {
                let measured = Input::Event(Event::DiskRoom { free_bytes });
                if inputs.send(measured).await.is_err() {
                    return;
                }
            }
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                if let Some(times) = failures.count() {
                    warn!(%error, times, "the room on the disk cannot be measured");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says what has changed since `before`.
pub fn tell(before: DiskRoom, now: DiskRoom) {
    let (free_bytes, wanted) = (now.free_bytes.unwrap_or(0), now.low_mark_bytes);
    if now.is_low && !before.is_low {
        warn!(free_bytes, wanted, "little room on the disk (dataDir, diskFreeBytesMin)");
    } else if before.is_low && !now.is_low {
        info!(free_bytes, wanted, "there is room on the disk again");
    }
    if now.refuses_writes && !before.refuses_writes {
        warn!(
            own_disk = now.is_low,
            "writes of clients are refused until there is room; they can read and delete"
        );
    } else if before.refuses_writes && !now.refuses_writes {
        info!("writes of clients are served again");
    }
}
