//! Producer ids: blocks of a thousand, taken from the coordinator by compare and set.
//!
//! Called by: `handle`. Calls: the coordinator.
//! Invariant: an id is given out once, over all brokers and starts; a block that was taken but not used
//! up is lost.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use client_protocol::{BrokerId, ErrorCode, ProducerId};
use coordinator_client::{Client, CompareAndSet, compare_and_set};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::warn;

const PATH: &str = "/latest_producer_id_block";
const BLOCK_IDS: i64 = 1000;

/// Kafka's JSON of the node; the numbers are texts.
#[derive(Serialize, Deserialize)]
struct BlockJson {
    version: i32,
    broker: i32,
    block_start: String,
    block_end: String,
}

/// Ids `next..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Block {
    next: i64,
    end: i64,
}

/// The ids that this broker may give out.
#[derive(Debug)]
pub(super) struct ProducerIds {
    block: Mutex<Block>,
    /// One takes a block at a time: two would write the same into the node, and of one that finds it there after its connection was lost neither knows
    /// whether it is its own.
    taking: Semaphore,
}

impl Default for ProducerIds {
    fn default() -> Self {
        Self { block: Mutex::default(), taking: Semaphore::new(1) }
    }
}

impl ProducerIds {
    /// An id that nobody has had.
    pub(super) async fn next(
        self: Arc<Self>,
        client: Client,
        broker: BrokerId,
    ) -> Result<ProducerId, ErrorCode> {
        self.next_of(|| take_block(&client, broker)).await
    }

    async fn next_of<T>(&self, mut take_block: impl FnMut() -> T) -> Result<ProducerId, ErrorCode>
    where
        T: Future<Output = Result<Block, ErrorCode>>,
    {
        loop {
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let _alone = self.taking.acquire().await.expect("it is never closed");
            // Whoever was before may have left some.
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let block = take_block().await?;
            *self.lock() = block;
        }
    }

    fn take(&self) -> Option<ProducerId> {
        let mut block = self.lock();
        let id = (block.next < block.end).then_some(block.next)?;
        block.next += 1;
        Some(ProducerId::new(id))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Block> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take_block(client: &Client, broker: BrokerId) -> Result<Block, ErrorCode> {
    let mut taken = None;
    let set = compare_and_set(client, PATH, |latest| {
        let start = next_start(latest)?;
        let end = start.checked_add(BLOCK_IDS)?;
        taken = Some(Block { next: start, end });
        Some(encode(broker, start, end))
    });
    match (set.await, taken) {
        (Ok(CompareAndSet::Written(_)), Some(block)) => Ok(block),
        (Ok(_), _) => {
            warn!(path = PATH, "unreadable, or no producer ids are left");
            Err(ErrorCode::UnknownServerError)
        }
        (Err(error), _) => {
            warn!("no producer ids: {error}");
            Err(ErrorCode::CoordinatorLoadInProgress)
        }
    }
}

/// Where the next block starts; `None` when the node cannot be read: then it is left as it is.
fn next_start(latest: Option<&Bytes>) -> Option<i64> {
    let Some(latest) = latest.filter(|latest| !latest.is_empty()) else { return Some(0) };
    let json: BlockJson = serde_json::from_slice(latest).ok()?;
    json.block_end.parse::<i64>().ok()?.checked_add(1).filter(|start| *start >= 0)
}

fn encode(broker: BrokerId, start: i64, end: i64) -> Bytes {
    let json = BlockJson {
        version: 1,
        broker: broker.get(),
        block_start: start.to_string(),
        block_end: (end - 1).to_string(),
    };
    serde_json::to_vec(&json).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn blocks_follow_one_another_as_kafka_writes_them() {
        assert_eq!(next_start(None), Some(0));
        assert_eq!(next_start(Some(&Bytes::new())), Some(0));
        let node = encode(BrokerId::new(1), 0, 1000);
        let text = r#"{"version":1,"broker":1,"block_start":"0","block_end":"999"}"#;
        assert_eq!(node, text);
        assert_eq!(next_start(Some(&node)), Some(1000));
        assert_eq!(next_start(Some(&Bytes::from_static(b"?"))), None);
        let last = text.replace("999", &i64::MAX.to_string());
        assert_eq!(next_start(Some(&last.into())), None);
    }

    #[tokio::test]
    async fn one_block_is_taken_at_a_time_and_used_up() {
        let ids = Arc::new(ProducerIds::default());
        let blocks = Arc::new((AtomicI64::new(0), AtomicI64::new(0)));
        let mut asking = JoinSet::new();
        for _ in 0..1_500 {
            let (ids, blocks) = (Arc::clone(&ids), Arc::clone(&blocks));
            asking.spawn(async move {
                let take_block = || async {
                    let (under_way, taken) = &*blocks;
                    assert_eq!(under_way.fetch_add(1, Ordering::Relaxed), 0, "one more takes");
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    let next = taken.fetch_add(BLOCK_IDS, Ordering::Relaxed);
                    Ok(Block { next, end: next + BLOCK_IDS })
                };
                ids.next_of(take_block).await.unwrap().get()
            });
        }
        let given: BTreeSet<i64> = asking.join_all().await.into_iter().collect();
        assert_eq!(given, (0..1_500).collect());
        assert_eq!(blocks.1.load(Ordering::Relaxed), 2 * BLOCK_IDS);
    }

    #[test]
    fn each_id_is_given_once() {
        let ids = ProducerIds::default();
        *ids.lock() = Block { next: 5, end: 7 };
        let taken: Vec<_> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!(taken, [ProducerId::new(5), ProducerId::new(6)]);
    }
}
