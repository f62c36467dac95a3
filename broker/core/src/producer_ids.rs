//! Producer ids: blocks of them, taken from the coordinator by compare and set.
//!
//! *Called by* the shell and the simulator, which ask the ensemble. *Calls* nothing. Invariant: an id is given out once, over all brokers and
//! starts. A block counts as taken when its write is known to be done: by its answer, or by the node, which names its broker and has the version
//! that only this write could give it. A block that was taken and not used up is lost.

use client_protocol::{ErrorCode, ProducerId};
use serde::{Deserialize, Serialize};

use crate::ids::BrokerId;
use crate::image::path;
use crate::store::{Ask, Nodes, Op, WriteOutcome};

/// How many a broker takes at once.
pub const BLOCK_IDS: i64 = 1000;

/// How often a block is looked for, when others are faster or nobody knows what came of it.
const ATTEMPTS_MAX: u32 = 16;

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

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Ask the ensemble; tell [`ProducerIds::found`] or [`ProducerIds::written`].
    Ask(Ask),
    /// There are ids.
    Taken,
    /// There are none: UNKNOWN_SERVER_ERROR when the node cannot be read or all ids are used up,
    /// COORDINATOR_LOAD_IN_PROGRESS when another try may do.
    Refused(ErrorCode),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The node is read. `sent`: a write of this block was sent that gives the node this version, and nobody knows whether it was done.
    Reading {
        sent: Option<(Block, i32)>,
    },
    Writing {
        block: Block,
        version: i32,
    },
}

/// The ids that one broker may give out.
#[derive(Debug)]
pub struct ProducerIds {
    broker: BrokerId,
    block_ids: i64,
    block: Block,
    step: Step,
    attempts: u32,
    #[cfg(planted)]
    planted: Option<crate::planted::Planted>,
}

impl ProducerIds {
    /// None yet. `block_ids`: how many are taken at once, at least one.
    #[must_use]
    pub fn new(broker: BrokerId, block_ids: i64) -> Self {
        Self {
            broker,
            block_ids,
            block: Block::default(),
            step: Step::Reading { sent: None },
            attempts: 0,
            #[cfg(planted)]
            planted: None,
        }
    }

    /// With a bug put in on purpose.
    #[cfg(planted)]
    #[must_use]
    pub fn planted_with(self, planted: Option<crate::planted::Planted>) -> Self {
        Self { planted, ..self }
    }

    /// An id that nobody has had; `None`: a block has to be taken first.
    pub fn take(&mut self) -> Option<ProducerId> {
        let id = self.block.next;
        if id >= self.block.end {
            return None;
        }
        self.block.next = id.checked_add(1)?;
        Some(ProducerId::new(id))
    }

    /// Begins to take a block. One is taken at a time; what was begun before and has not come to its end is given up, whatever it wrote.
    pub fn begin(&mut self) -> Next {
        self.attempts = 0;
        self.read(None)
    }

    /// The node was read.
    pub fn found(&mut self, nodes: &Nodes) -> Next {
        let Step::Reading { sent } = self.step else { return self.read(None) };
        let node = nodes.get(path::PRODUCER_IDS);
        let data = node.map(|node| node.data.as_slice()).unwrap_or_default();
        if let (Some((block, version)), Some(node)) = (sent, node)
            && node.version == version
            && data == encode(self.broker, block)
        {
            return self.taken(block);
        }
        let free =
            next_start(data).and_then(|start| Some((start, start.checked_add(self.block_ids)?)));
        let Some((next, end)) = free else { return Next::Refused(ErrorCode::UnknownServerError) };
        let block = Block { next, end };
        let (path, data) = (path::PRODUCER_IDS.to_owned(), encode(self.broker, block));
        let (op, version) = match node {
            Some(node) => {
                let version = node.version;
                (Op::SetData { path, data, version }, version.wrapping_add(1))
            }
            None => (Op::Create { path, data }, 0),
        };
        self.step = Step::Writing { block, version };
        Next::Ask(Ask::Write(vec![op]))
    }

    /// The write ended.
    pub fn written(&mut self, outcome: WriteOutcome) -> Next {
        let Step::Writing { block, version } = self.step else { return self.read(None) };
        match outcome {
            WriteOutcome::Done { .. } => self.taken(block),
            WriteOutcome::Unknown { .. } if planted!(self.planted, TakeUnknownBlock) => {
                self.taken(block)
            }
            WriteOutcome::Unknown { .. } => self.read(Some((block, version))),
            WriteOutcome::Conflict { .. } => self.read(None),
        }
    }

    fn read(&mut self, sent: Option<(Block, i32)>) -> Next {
        self.step = Step::Reading { sent };
        if self.attempts >= ATTEMPTS_MAX {
            return Next::Refused(ErrorCode::CoordinatorLoadInProgress);
        }
        self.attempts = self.attempts.saturating_add(1);
        Next::Ask(Ask::Read(vec![path::PRODUCER_IDS.to_owned()]))
    }

    fn taken(&mut self, block: Block) -> Next {
        self.block = block;
        self.step = Step::Reading { sent: None };
        Next::Taken
    }
}

/// Where the next block starts; `None` when the node cannot be read: then it is left as it is.
fn next_start(latest: &[u8]) -> Option<i64> {
    if latest.is_empty() {
        return Some(0);
    }
    let json: BlockJson = serde_json::from_slice(latest).ok()?;
    json.block_end.parse::<i64>().ok()?.checked_add(1).filter(|start| *start >= 0)
}

fn encode(broker: BrokerId, block: Block) -> Vec<u8> {
    let json = BlockJson {
        version: 1,
        broker: broker.get(),
        block_start: block.next.to_string(),
        block_end: block.end.saturating_sub(1).to_string(),
    };
    serde_json::to_vec(&json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::ids::Zxid;
    use crate::store::Node;

    use super::*;

    const UNKNOWN: WriteOutcome = WriteOutcome::Unknown { zxid: Zxid::new(9) };
    const DONE: WriteOutcome = WriteOutcome::Done { zxid: Zxid::new(9) };
    const CONFLICT: WriteOutcome = WriteOutcome::Conflict { at: 0, zxid: Zxid::new(9) };

    fn ids() -> ProducerIds {
        ProducerIds::new(BrokerId::new(1), 2)
    }

    fn nodes(data: &[u8], version: i32) -> Nodes {
        let zxid = Zxid::new(1);
        let node = Node { data: data.to_vec(), version, czxid: zxid, mzxid: zxid, owner: None };
        [(path::PRODUCER_IDS.to_owned(), node)].into()
    }

    fn block(broker: i32, next: i64) -> Vec<u8> {
        encode(BrokerId::new(broker), Block { next, end: next + 2 })
    }

    fn read() -> Next {
        Next::Ask(Ask::Read(vec![path::PRODUCER_IDS.to_owned()]))
    }

    fn set(data: Vec<u8>, version: i32) -> Next {
        let path = path::PRODUCER_IDS.to_owned();
        Next::Ask(Ask::Write(vec![Op::SetData { path, data, version }]))
    }

    fn given(ids: &mut ProducerIds) -> Vec<i64> {
        std::iter::from_fn(|| ids.take()).map(|id| id.get()).collect()
    }

    #[test]
    fn blocks_follow_one_another_as_kafka_writes_them() {
        assert_eq!(next_start(b""), Some(0));
        let node = encode(BrokerId::new(1), Block { next: 0, end: 1000 });
        let text = r#"{"version":1,"broker":1,"block_start":"0","block_end":"999"}"#;
        assert_eq!(node, text.as_bytes());
        assert_eq!(next_start(&node), Some(1000));
        assert_eq!(next_start(b"?"), None);
        let last = text.replace("999", &i64::MAX.to_string());
        assert_eq!(next_start(last.as_bytes()), None);
    }

    #[test]
    fn each_id_of_a_block_is_given_once() {
        let mut ids = ids();
        assert_eq!(given(&mut ids), [0; 0]);
        assert_eq!(ids.begin(), read());
        assert_eq!(ids.found(&nodes(b"", 0)), set(block(1, 0), 0));
        assert_eq!(ids.written(DONE), Next::Taken);
        assert_eq!(given(&mut ids), [0, 1]);
        assert_eq!(ids.begin(), read());
        let create = Op::Create { path: path::PRODUCER_IDS.to_owned(), data: block(1, 0) };
        assert_eq!(ids.found(&Nodes::new()), Next::Ask(Ask::Write(vec![create])));
    }

    #[test]
    fn a_block_that_another_broker_took_is_not_taken() {
        let mut ids = ids();
        ids.begin();
        ids.found(&nodes(&block(2, 0), 1));
        assert_eq!(ids.written(CONFLICT), read());
        assert_eq!(ids.found(&nodes(&block(3, 2), 2)), set(block(1, 4), 2));
        assert_eq!(ids.written(DONE), Next::Taken);
        assert_eq!(given(&mut ids), [4, 5]);
    }

    #[test]
    fn after_a_lost_answer_the_node_tells_whose_the_block_is() {
        for (found, version, is_ours) in
            [(block(1, 2), 2, true), (block(2, 2), 2, false), (block(2, 0), 1, false)]
        {
            let mut ids = ids();
            ids.begin();
            assert_eq!(ids.found(&nodes(&block(2, 0), 1)), set(block(1, 2), 1));
            assert_eq!(ids.written(UNKNOWN), read());
            assert_eq!(given(&mut ids), [0; 0]);
            let next = ids.found(&nodes(&found, version));
            assert_eq!(next == Next::Taken, is_ours);
            assert_eq!(given(&mut ids), if is_ours { vec![2, 3] } else { vec![] });
        }
    }

    #[test]
    fn what_was_given_up_is_not_taken_later() {
        let mut ids = ids();
        ids.begin();
        ids.found(&nodes(b"", 0));
        assert_eq!(ids.begin(), read());
        assert_eq!(ids.found(&nodes(&block(1, 0), 1)), set(block(1, 2), 1));
    }

    #[test]
    fn a_node_that_cannot_be_read_is_left_and_attempts_have_an_end() {
        let mut ids = ids();
        ids.begin();
        assert_eq!(ids.found(&nodes(b"?", 0)), Next::Refused(ErrorCode::UnknownServerError));
        let mut next = ids.begin();
        for attempt in 1..=ATTEMPTS_MAX {
            assert_eq!(next, read(), "{attempt}");
            ids.found(&nodes(b"", 0));
            next = ids.written(CONFLICT);
        }
        assert_eq!(next, Next::Refused(ErrorCode::CoordinatorLoadInProgress));
    }
}
