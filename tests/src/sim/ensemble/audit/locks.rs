//! Who writes under the lock holds it: at the moment of the write its node is there, and is the first.

use std::collections::BTreeSet;

use coordinator_core::state::{Command, MultiOutcome, OpResult, Outcome, TreeOp, WriteOp};
use coordinator_core::tree::ChangeKind;

use super::{Audited, Facts};
use crate::sim::ensemble::locker::{LOCK, number_of};

pub(super) fn audit(facts: &Facts<'_>, audited: &mut Audited) {
    let mut waiting: BTreeSet<(u64, String)> = BTreeSet::new();
    for decided in facts.decided {
        if let Some(holder) = holder(&decided.command, &decided.applied.outcome) {
            let first = waiting.first().map(|(_, path)| path.as_str());
            assert_eq!(
                first,
                Some(holder),
                "{holder} wrote under the lock at {}, with {waiting:?}",
                decided.applied.zxid
            );
            audited.held += 1;
        }
        for change in &decided.applied.changes {
            let Some(name) = change.path.strip_prefix(LOCK).and_then(|rest| rest.strip_prefix('/'))
            else {
                continue;
            };
            let entry = (number_of(name).expect("sequential"), change.path.to_string());
            match change.kind {
                ChangeKind::Created => assert!(waiting.insert(entry), "created twice"),
                ChangeKind::Deleted => assert!(waiting.remove(&entry), "deleted twice"),
                _ => {}
            }
        }
    }
}

/// The node under which something was written, if that is what was done.
fn holder<'a>(command: &'a Command, outcome: &Outcome) -> Option<&'a str> {
    let Command::Write { op: WriteOp::Multi(ops), .. } = command else { return None };
    let Outcome::Written { result: Ok(OpResult::Multi(MultiOutcome::Done(_))), .. } = outcome
    else {
        return None;
    };
    let Some(TreeOp::Check(check)) = ops.first() else { return None };
    check.path.starts_with(LOCK).then_some(check.path.as_str())
}
