//! A read's answer is that of the state at the zxid in its header; behind a sync that state has
//! everything that anyone was told before; it has the connection's own writes before it and none
//! behind it; and a session's zxids never fall.

use std::collections::BTreeMap;

use coordinator_protocol::{
    ErrorCode, MultiReadOp, MultiReadResult, PathWatch, Request, Response, SessionId, Zxid,
};

use super::{Audited, Facts};
use crate::sim::ensemble::client::{Conversation, Heard};
use crate::sim::ensemble::model::{Model, Nodes};
use crate::sim::ensemble::operator::CONFIG;
use crate::sim::ensemble::schedule::Time;
use crate::sim::ensemble::world::World;

/// A read that was answered.
struct Read<'a> {
    zxid: Zxid,
    session: SessionId,
    request: &'a Request,
    outcome: &'a Result<Response, ErrorCode>,
}

pub(super) fn audit(facts: &Facts<'_>, world: &World, audited: &mut Audited) {
    let mut reads = Vec::new();
    let known = Known::new(facts, world);
    for talk in world.talks.values() {
        let mut synced_from: Option<Time> = None;
        let mut last = talk.seen;
        for heard in &talk.heard {
            let Heard::Reply { request, zxid, outcome, .. } = heard else { continue };
            let sent = &talk.sent[*request];
            assert!(*zxid >= last, "a session saw {last} and then {zxid}");
            last = *zxid;
            if matches!(sent.request, Request::Sync(_)) && outcome.is_ok() {
                synced_from = Some(sent.at);
            }
            if !is_read(&sent.request) {
                continue;
            }
            audited.reads += 1;
            if let Some(at) = synced_from {
                audited.synced_reads += 1;
                let told = known.before(at);
                let who = (talk.connection, talk.server + 1, *request);
                assert!(*zxid >= told, "{who:?}: a read at {zxid} synced at {at}, {told} known");
            }
            check_own_writes(facts, talk, *request, *zxid);
            let session = talk.opened.expect("it was answered");
            reads.push(Read { zxid: *zxid, session, request: &sent.request, outcome });
        }
    }
    reads.sort_by_key(|read| read.zxid);
    replay(world, &reads);
}

fn is_read(request: &Request) -> bool {
    matches!(
        request,
        Request::Exists(_)
            | Request::GetData(_)
            | Request::GetChildren2(_)
            | Request::MultiRead(_)
            | Request::GetEphemerals(_)
    )
}

/// The greatest zxid of a write that anyone was told of, by time.
struct Known(BTreeMap<Time, Zxid>);

impl Known {
    fn new(facts: &Facts<'_>, world: &World) -> Self {
        let mut told: BTreeMap<Time, Zxid> = BTreeMap::new();
        for talk in world.talks.values() {
            for heard in &talk.heard {
                let Heard::Reply { at, request, .. } = heard else { continue };
                if let Some(position) = facts.write_of(talk, *request) {
                    let zxid = facts.decided[position].applied.zxid;
                    let entry = told.entry(*at).or_insert(zxid);
                    *entry = (*entry).max(zxid);
                }
            }
        }
        let mut greatest = Zxid::ZERO;
        for zxid in told.values_mut() {
            greatest = greatest.max(*zxid);
            *zxid = greatest;
        }
        Self(told)
    }

    fn before(&self, time: Time) -> Zxid {
        self.0.range(..time).next_back().map_or(Zxid::ZERO, |(_, zxid)| *zxid)
    }
}

fn check_own_writes(facts: &Facts<'_>, talk: &Conversation, read: usize, zxid: Zxid) {
    for (index, sent) in talk.sent.iter().enumerate() {
        let position = facts.write_of(talk, index);
        let Some(applied) = position.map(|position| &facts.decided[position].applied) else {
            let is_nowhere = !sent.is_write || facts.is_refused(talk, index) || talk.read_only;
            assert!(is_nowhere || index > read, "a read overtook a write");
            continue;
        };
        if index < read {
            assert!(applied.zxid <= zxid, "a read does not see the write before it");
        } else if !applied.changes.is_empty() {
            assert!(applied.zxid > zxid, "a read sees the write behind it");
        }
    }
}

/// Goes through the log and answers each read at its zxid.
fn replay(world: &World, reads: &[Read<'_>]) {
    let mut model = Model::new();
    let mut reads = reads.iter().peekable();
    let mut answer_until = |model: &Model, next: Zxid| {
        while let Some(read) = reads.next_if(|read| read.zxid < next) {
            assert_eq!(read.zxid, model.last_zxid(), "a zxid that was never the last");
            if !model.members().is_founded() && is_of_settings(read) {
                continue;
            }
            let expected = expected(model.nodes(), read);
            assert_eq!(*read.outcome, expected, "{:?} at {}", read.request, read.zxid);
        }
    };
    let mut decided = world.ledger.decided.iter();
    for (raw, entry) in world.ledger.entries() {
        if raw.term > model.term() {
            answer_until(&model, Zxid::from_parts(model.last_zxid().epoch() + 1, 0));
        }
        model.begin_entry(raw, entry);
        for command in &entry.commands {
            let decided = decided.next().expect("as many as there are commands");
            answer_until(&model, decided.applied.zxid);
            let _seen = model.apply(command);
        }
    }
    answer_until(&model, Zxid::new(i64::MAX));
}

/// Whether this shows the servers that settings name, as before the log does.
fn is_of_settings(read: &Read<'_>) -> bool {
    let Request::GetData(PathWatch { path, .. }) = read.request else { return false };
    let is_shown = |outcome: &Result<Response, ErrorCode>| {
        let Ok(Response::DataStat(Some(data), _)) = outcome else { return false };
        data.ends_with(b"version=0")
    };
    path == CONFIG && is_shown(read.outcome)
}

fn expected(nodes: &Nodes, read: &Read<'_>) -> Result<Response, ErrorCode> {
    let node = |path: &str| nodes.read(path).ok_or(ErrorCode::NoNode);
    let names =
        |path: &str| node(path).map(|_| nodes.names(path).map(str::to_owned).collect::<Vec<_>>());
    match read.request {
        Request::Exists(read) => Ok(Response::Stat(node(&read.path)?.1)),
        Request::GetData(read) => {
            let (data, stat) = node(&read.path)?;
            Ok(Response::DataStat(data.cloned(), stat))
        }
        Request::GetChildren2(read) => {
            Ok(Response::NamesStat(names(&read.path)?, node(&read.path)?.1))
        }
        Request::GetEphemerals(_) => Ok(Response::Names(nodes.owned(read.session))),
        Request::MultiRead(ops) => {
            let one = |op: &MultiReadOp| match op {
                MultiReadOp::GetData(read) => match node(&read.path) {
                    Ok((data, stat)) => MultiReadResult::GetData(data.cloned(), stat),
                    Err(error) => MultiReadResult::Error(error),
                },
                MultiReadOp::GetChildren(read) => match names(&read.path) {
                    Ok(names) => MultiReadResult::GetChildren(names),
                    Err(error) => MultiReadResult::Error(error),
                },
            };
            Ok(Response::MultiRead(ops.iter().map(one).collect()))
        }
        other => panic!("{other:?} is no read"),
    }
}
