//! What commands weigh in queues, messages and entries.
//!
//! Called by everything that bounds a queue by bytes. Calls nothing. Invariant: at least the bytes
//! that clients choose freely are counted. It does not know limits.

use bytes::Bytes;

use crate::state::{Command, TreeOp, WriteOp};

/// Allowance for what does not vary.
const FIXED_BYTES: usize = 96;

/// Weight of an operation.
pub(super) fn op_bytes(op: &WriteOp) -> usize {
    let varying = match op {
        WriteOp::Tree(op) => tree_op_bytes(op),
        WriteOp::Multi(ops) => {
            ops.iter().map(|op| tree_op_bytes(op).saturating_add(FIXED_BYTES)).sum()
        }
        WriteOp::CloseSession | WriteOp::SessionOptions { .. } => 0,
    };
    varying.saturating_add(FIXED_BYTES)
}

/// Weight of a command.
pub(super) fn command_bytes(command: &Command) -> usize {
    match command {
        Command::Write { op, .. } => op_bytes(op),
        Command::CreateSession { .. } | Command::Attach { .. } | Command::Expire { .. } => {
            FIXED_BYTES
        }
    }
}

fn tree_op_bytes(op: &TreeOp) -> usize {
    let of_data = |data: &Option<Bytes>| data.as_ref().map_or(0, Bytes::len);
    match op {
        TreeOp::Create(create) | TreeOp::Create2(create) => {
            let acl = create.acl.iter().map(|acl| acl.scheme.len().saturating_add(acl.id.len()));
            let acl: usize = acl.sum();
            create.path.len().saturating_add(of_data(&create.data)).saturating_add(acl)
        }
        TreeOp::SetData(set) => set.path.len().saturating_add(of_data(&set.data)),
        TreeOp::Delete(delete) => delete.path.len(),
        TreeOp::Check(check) => check.path.len(),
    }
}
