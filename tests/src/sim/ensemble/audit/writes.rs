//! Acknowledged writes are in the log, once and as answered; what was acknowledged before another
//! write was sent comes before it in the log.

use std::collections::BTreeMap;

use coordinator_core::state::{MultiOutcome, OpResult, Outcome, TreeOp, WriteOp};
use coordinator_core::tree::ChangeKind;
use coordinator_protocol::{
    CreateMode, CreateRequest, ErrorCode, MultiOp, MultiResult, Request, Response, Zxid,
};

use super::{Audited, Facts};
use crate::sim::ensemble::client::{Heard, Sent};
use crate::sim::ensemble::schedule::Time;
use crate::sim::ensemble::world::World;

/// A write that was answered.
struct Answered {
    sent: Time,
    heard: Time,
    position: usize,
}

pub(super) fn audit(facts: &Facts<'_>, world: &World, audited: &mut Audited) {
    let mut answered = Vec::new();
    for talk in world.talks.values().filter(|talk| !talk.read_only) {
        let mut last = None;
        for heard in &talk.heard {
            let Heard::Reply { at, request, zxid, outcome } = heard else { continue };
            let sent = &talk.sent[*request];
            if !sent.is_write || facts.is_refused(talk, *request) {
                continue;
            }
            let Some(position) = facts.write_of(talk, *request) else {
                panic!("{:?} was answered and is not in the log", sent.request)
            };
            assert!(last < Some(position), "writes of one connection are out of order");
            last = Some(position);
            check_answer(facts, sent, position, (*zxid, outcome));
            answered.push(Answered { sent: sent.at, heard: *at, position });
            audited.writes += 1;
        }
    }
    check_real_time(answered);
    check_suffixes(facts);
}

/// The numbers of a parent's sequential children only ever rise, whatever was deleted meanwhile.
fn check_suffixes(facts: &Facts<'_>) {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for change in &facts.changes {
        let path: &str = &change.path;
        if change.kind == ChangeKind::Deleted {
            last.remove(path);
            continue;
        }
        let (Some(slash), Some(digits)) = (path.rfind('/'), path.len().checked_sub(10)) else {
            continue;
        };
        let (parent, suffix) = (&path[..slash], &path[digits..]);
        let is_number = digits > slash && suffix.bytes().all(|byte| byte.is_ascii_digit());
        if change.kind == ChangeKind::Created && is_number {
            let former = last.insert(parent, suffix);
            assert!(former < Some(suffix), "{path} was created after number {former:?}");
        }
    }
}

fn check_answer(
    facts: &Facts<'_>,
    sent: &Sent,
    position: usize,
    (zxid, outcome): (Zxid, &Result<Response, ErrorCode>),
) {
    let decided = &facts.decided[position];
    assert!(zxid >= decided.applied.zxid, "the answer's zxid is before the write's");
    let Outcome::Written { result, .. } = &decided.applied.outcome else { panic!("not written") };
    let expected = result.clone().map(response);
    assert_eq!(*outcome, expected, "answer to {:?}", sent.request);
}

fn check_real_time(mut answered: Vec<Answered>) {
    let mut by_heard: Vec<(Time, usize)> =
        answered.iter().map(|write| (write.heard, write.position)).collect();
    by_heard.sort_unstable();
    answered.sort_by_key(|write| write.sent);
    let mut heard = by_heard.into_iter().peekable();
    let mut latest = None;
    for write in answered {
        while let Some((_, position)) = heard.next_if(|(time, _)| *time < write.sent) {
            latest = latest.max(Some(position));
        }
        assert!(
            latest < Some(write.position),
            "a write came before one answered before it was sent"
        );
    }
}

/// The log's form of a request.
pub(super) fn operation(request: &Request) -> Option<WriteOp> {
    let with_mode = |create: &CreateRequest, mode: CreateMode| {
        TreeOp::Create2(CreateRequest { flags: mode.code(), ..create.clone() })
    };
    let tree = match request {
        Request::Create(create) => TreeOp::Create(create.clone()),
        Request::Create2(create) => TreeOp::Create2(create.clone()),
        Request::CreateContainer(create) => with_mode(create, CreateMode::Container),
        Request::Delete(delete) => TreeOp::Delete(delete.clone()),
        Request::SetData(set) => TreeOp::SetData(set.clone()),
        Request::Check(check) => TreeOp::Check(check.clone()),
        Request::Multi(ops) => return Some(WriteOp::Multi(ops.iter().map(in_multi).collect())),
        Request::CloseSession => return Some(WriteOp::CloseSession),
        Request::Reconfig(request) => return Some(WriteOp::Reconfig(request.clone())),
        Request::SessionOptions(options) => {
            let fast_death_grace_ms = u32::try_from(options.fast_death_grace_ms).ok();
            return Some(WriteOp::SessionOptions { fast_death_grace_ms });
        }
        _ => return None,
    };
    Some(WriteOp::Tree(tree))
}

fn in_multi(op: &MultiOp) -> TreeOp {
    match op {
        MultiOp::Create(create) => TreeOp::Create(create.clone()),
        MultiOp::Create2(create) => TreeOp::Create2(create.clone()),
        MultiOp::Delete(delete) => TreeOp::Delete(delete.clone()),
        MultiOp::SetData(set) => TreeOp::SetData(set.clone()),
        MultiOp::Check(check) => TreeOp::Check(check.clone()),
        MultiOp::CreateContainer(_) | MultiOp::CreateTtl(_) => panic!("the workload has none"),
    }
}

/// What a client must be told of a result.
fn response(result: OpResult) -> Response {
    match result {
        OpResult::Created { path } => Response::Path(path.to_string()),
        OpResult::Created2 { path, stat } => Response::PathStat(path.to_string(), stat),
        OpResult::DataSet { stat } | OpResult::AclSet { stat } | OpResult::Checked { stat } => {
            Response::Stat(stat)
        }
        OpResult::Deleted | OpResult::SessionClosed(_) | OpResult::OptionsSet => Response::Empty,
        OpResult::Reconfigured { data, stat } => Response::DataStat(Some(data), stat),
        OpResult::Multi(MultiOutcome::Failed(codes)) => {
            Response::Multi(codes.into_iter().map(MultiResult::Error).collect())
        }
        OpResult::Multi(MultiOutcome::Done(results)) => {
            let inside = results.into_iter().map(|result| match result {
                OpResult::Created { path } => MultiResult::Create(path.to_string()),
                OpResult::Created2 { path, stat } => MultiResult::Create2(path.to_string(), stat),
                OpResult::Deleted => MultiResult::Delete,
                OpResult::DataSet { stat } => MultiResult::SetData(stat),
                OpResult::Checked { .. } => MultiResult::Check,
                other => panic!("{other:?} inside a multi"),
            });
            Response::Multi(inside.collect())
        }
    }
}
