//! Consumer groups: members, generations, committed offsets.
//!
//! *Called by* the broker's group room and the simulator. *Calls* the wire's messages. A [`Shard`] is
//! the state of one partition of `__consumer_offsets`; requests and time go in, answers and records
//! come out, and what is in the log comes back in. It knows no log, socket, clock or other shard.
//!
//! - `shard`: all groups of a partition. `state`, `member`: one of each.
//! - `join`, `sync`, `session`, `offsets`, `describe`: the requests. `figures`: for metrics. `rebalance`: from one generation
//!   to the next.
//! - `writes`: records on their way into the log. `record`: their bytes. `placement`: which partition.

mod describe;
mod figures;
mod join;
mod member;
mod message;
mod offsets;
mod placement;
mod rebalance;
mod record;
mod session;
mod settings;
mod shard;
mod state;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;
mod topic;
mod turn;
mod writes;

pub use figures::GroupFigures;
pub use message::{Effect, Join, Now, Request, Response, Ticket, WriteId};
pub use placement::{OFFSETS_TOPIC, partition_of};
pub use record::{GroupRecord, GroupValue, LogRecord, MemberValue, OffsetValue, RecordError};
pub use settings::{GROUPS_MAX, NAME_BYTES_MAX, OFFSET_BYTES_MAX, Settings, WRITES_MAX};
pub use shard::Shard;
pub use topic::{OffsetsTopic, offsets_topic};
