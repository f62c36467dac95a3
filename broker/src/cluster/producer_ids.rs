//! Producer ids, carried out: `broker_core::producer_ids` decides.
//!
//! Called by: `handle`. Calls: the coordinator.
//! Invariant: one takes a block at a time. Whoever goes away meanwhile leaves it to the next to begin anew.

use std::sync::{Arc, Mutex, PoisonError};

use broker_core::producer_ids::{BLOCK_IDS, Next, ProducerIds as Core};
use broker_core::store::Ask;
use client_protocol::{BrokerId, ErrorCode, ProducerId};
use coordinator_client::{Client, Error};
use tokio::sync::Semaphore;
use tracing::warn;

use super::asking::{self, Answered};

/// The ids that this broker may give out.
#[derive(Debug)]
pub(super) struct ProducerIds {
    core: Mutex<Core>,
    taking: Semaphore,
}

impl ProducerIds {
    pub(super) fn new(broker: BrokerId) -> Self {
        let core = Mutex::new(Core::new(broker, BLOCK_IDS));
        Self { core, taking: Semaphore::new(1) }
    }

    /// An id that nobody has had.
    pub(super) async fn next(self: Arc<Self>, client: Client) -> Result<ProducerId, ErrorCode> {
        self.next_of(|ask| asking::ask(&client, ask)).await
    }

    async fn next_of<T>(&self, mut ask: impl FnMut(Ask) -> T) -> Result<ProducerId, ErrorCode>
    where
        T: Future<Output = Result<Answered, Error>>,
    {
        loop {
            if let Some(id) = self.lock().take() {
                return Ok(id);
            }
            let _alone = self.taking.acquire().await.expect("it is never closed");
            // Whoever was before may have left some.
            if let Some(id) = self.lock().take() {
                return Ok(id);
            }
            self.take_block(&mut ask).await?;
        }
    }

    async fn take_block<T>(&self, ask: &mut impl FnMut(Ask) -> T) -> Result<(), ErrorCode>
    where
        T: Future<Output = Result<Answered, Error>>,
    {
        let mut next = self.lock().begin();
        loop {
            let asked = match next {
                Next::Ask(asked) => asked,
                Next::Taken => return Ok(()),
                Next::Refused(error) => {
                    warn!(%error, "no producer ids: unreadable, used up, or others are faster");
                    return Err(error);
                }
            };
            next = match ask(asked).await {
                Ok(Answered::Found(nodes, _)) => self.lock().found(&nodes),
                Ok(Answered::Written(outcome)) => self.lock().written(outcome),
                Err(error) => {
                    warn!("no producer ids: {error}");
                    return Err(ErrorCode::CoordinatorLoadInProgress);
                }
            };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicI64, Ordering};

    use broker_core::ids::Zxid;
    use broker_core::store::{Node, Nodes, Op, WriteOutcome};
    use tokio::task::JoinSet;

    use super::*;

    /// The node, as the ensemble has it.
    #[derive(Default)]
    struct Ensemble {
        nodes: Mutex<Nodes>,
        under_way: AtomicI64,
        writes: AtomicI64,
    }

    impl Ensemble {
        async fn ask(self: Arc<Self>, ask: Ask) -> Result<Answered, Error> {
            assert_eq!(self.under_way.fetch_add(1, Ordering::Relaxed), 0, "one more takes");
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            let zxid = Zxid::new(1);
            let mut nodes = self.nodes.lock().unwrap();
            let Ask::Write(ops) = ask else { return Ok(Answered::Found(nodes.clone(), zxid)) };
            self.writes.fetch_add(1, Ordering::Relaxed);
            let (path, data, version) = match ops.into_iter().next().unwrap() {
                Op::Create { path, data } => (path, data, 0),
                Op::SetData { path, data, version } => (path, data, version + 1),
                other => panic!("{other:?}"),
            };
            nodes.insert(path, Node { data, version, czxid: zxid, mzxid: zxid, owner: None });
            Ok(Answered::Written(WriteOutcome::Done { zxid }))
        }
    }

    #[tokio::test]
    async fn one_block_is_taken_at_a_time_and_used_up() {
        let ids = Arc::new(ProducerIds::new(BrokerId::new(1)));
        let ensemble = Arc::new(Ensemble::default());
        let mut asking = JoinSet::new();
        for _ in 0..1_500 {
            let (ids, ensemble) = (Arc::clone(&ids), Arc::clone(&ensemble));
            asking.spawn(async move {
                let id = ids.next_of(|ask| Arc::clone(&ensemble).ask(ask)).await;
                id.unwrap().get()
            });
        }
        let given: BTreeSet<i64> = asking.join_all().await.into_iter().collect();
        assert_eq!(given, (0..1_500).collect());
        assert_eq!(ensemble.writes.load(Ordering::Relaxed), 2);
    }
}
