//! What was refused for want of room: only what takes room, not before a disk has little, and nothing once all have had enough
//! for as long as a word about it counts.

use coordinator_core::state::{TreeOp, WriteOp};
use coordinator_protocol::ErrorCode;

use super::{Audited, writes};
use crate::sim::ensemble::client::Heard;
use crate::sim::ensemble::schedule::{SECOND, Time};
use crate::sim::ensemble::world::World;

/// A word about little room counts for four seconds where its end is not heard of; then the leader still has to say so.
const REFUSES_WITHIN: Time = 5 * SECOND;

pub(super) fn audit(world: &World, audited: &mut Audited) {
    for talk in world.talks.values() {
        for heard in &talk.heard {
            let Heard::Reply { at, request, outcome: Err(ErrorCode::QuotaExceeded), .. } = heard
            else {
                continue;
            };
            let sent = &talk.sent[*request];
            let what = &sent.request;
            let operation = writes::operation(what);
            assert!(operation.is_some_and(|op| takes_room(&op)), "{what:?} takes no room");
            let (first_low, healed) = world.low_disks;
            assert!(
                first_low.is_some_and(|low| low <= *at),
                "{what:?} was refused before a disk had little room"
            );
            assert!(
                healed.is_none_or(|healed| sent.at <= healed + REFUSES_WITHIN),
                "{what:?} was refused though all disks have had room since {healed:?}"
            );
            audited.refused += 1;
        }
    }
}

/// Sessions begin, move and end all the while, another server may be what is missing, and what is deleted makes room.
fn takes_room(op: &WriteOp) -> bool {
    let grows = |op: &TreeOp| !matches!(op, TreeOp::Delete(_) | TreeOp::Check(_));
    match op {
        WriteOp::Tree(op) => grows(op),
        WriteOp::Multi(ops) => ops.iter().any(grows),
        WriteOp::CloseSession | WriteOp::SessionOptions { .. } | WriteOp::Reconfig(_) => false,
    }
}
