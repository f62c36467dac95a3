//! What requests and commands weigh in queues, messages and entries.
//!
//! Called by everything that bounds a queue by bytes. Calls nothing. Invariant: at least the bytes
//! that clients choose freely are counted. It does not know limits.

use bytes::Bytes;

use coordinator_protocol::{
    Acl, CreateRequest, DecodeError, MultiOp, MultiReadOp, ReconfigRequest, Request,
    SetWatchesRequest,
};

use crate::members::SERVER_TEXT_BYTES_MAX;
use crate::state::{Command, TreeOp, WriteOp};

/// Allowance for what does not vary.
const FIXED_BYTES: usize = 96;

/// Weight of a request while it waits for its answer.
pub(super) fn request_bytes(request: &Result<Request, DecodeError>) -> usize {
    let varying = match request {
        Ok(request) => varying_bytes(request),
        Err(_) => 0,
    };
    varying.saturating_add(FIXED_BYTES)
}

/// Weight of an operation.
fn op_bytes(op: &WriteOp) -> usize {
    let varying = match op {
        WriteOp::Tree(op) => tree_op_bytes(op),
        WriteOp::Multi(ops) => {
            ops.iter().map(|op| tree_op_bytes(op).saturating_add(FIXED_BYTES)).sum()
        }
        WriteOp::Reconfig(change) => reconfig_bytes(change),
        WriteOp::CloseSession | WriteOp::SessionOptions { .. } => 0,
    };
    varying.saturating_add(FIXED_BYTES)
}

/// Weight of a command.
pub(super) fn command_bytes(command: &Command) -> usize {
    match command {
        Command::Write { op, identities, .. } => {
            let who = identities.iter().map(|one| text(&one.scheme).saturating_add(text(&one.id)));
            op_bytes(op).saturating_add(who.sum())
        }
        Command::RemoveDue { path } => text(path).saturating_add(FIXED_BYTES),
        Command::FoundMembers { servers } => servers.len().saturating_mul(SERVER_TEXT_BYTES_MAX),
        Command::CreateSession { .. }
        | Command::Attach { .. }
        | Command::Expire { .. }
        | Command::AdvanceMembers { .. } => FIXED_BYTES,
    }
}

fn varying_bytes(request: &Request) -> usize {
    match request {
        Request::Create(create) | Request::Create2(create) | Request::CreateContainer(create) => {
            create_bytes(create)
        }
        Request::CreateTtl(create) => {
            text(&create.path).saturating_add(of(&create.data)).saturating_add(acl(&create.acl))
        }
        Request::SetData(set) => text(&set.path).saturating_add(of(&set.data)),
        Request::SetAcl(set) => text(&set.path).saturating_add(acl(&set.acl)),
        Request::Delete(delete) => text(&delete.path),
        Request::Check(check) => text(&check.path),
        Request::Exists(read)
        | Request::GetData(read)
        | Request::GetChildren(read)
        | Request::GetChildren2(read) => text(&read.path),
        Request::CheckWatches(watch) | Request::RemoveWatches(watch) => text(&watch.path),
        Request::AddWatch(watch) => text(&watch.path),
        Request::Subscribe(subscribe) => text(&subscribe.path),
        Request::GetChildrenPage(page) => {
            text(&page.path).saturating_add(text(&page.after)).saturating_add(text(&page.prefix))
        }
        Request::GetAcl(path)
        | Request::Sync(path)
        | Request::DeleteContainer(path)
        | Request::GetEphemerals(path)
        | Request::GetAllChildrenNumber(path) => text(path),
        Request::Auth(auth) => text(&auth.scheme).saturating_add(of(&auth.auth)),
        Request::Sasl(token) => of(token),
        Request::Reconfig(change) => reconfig_bytes(change),
        Request::SetWatches(watches) | Request::SetWatches2(watches) => watches_bytes(watches),
        Request::Multi(ops) => ops.iter().map(multi_op_bytes).sum(),
        Request::MultiRead(ops) => ops.iter().map(multi_read_bytes).sum(),
        Request::Unsubscribe(_)
        | Request::SessionOptions(_)
        | Request::Ping
        | Request::WhoAmI
        | Request::TransferLeader(_)
        | Request::DescribeEnsemble
        | Request::CloseSession
        | Request::Unknown(_) => 0,
    }
}

fn reconfig_bytes(change: &ReconfigRequest) -> usize {
    let parts = [&change.joining_servers, &change.leaving_servers, &change.new_members];
    parts.into_iter().flatten().map(|part| text(part)).sum()
}

/// A text among many: its own header counts.
fn text(text: &str) -> usize {
    text.len().saturating_add(size_of::<String>())
}

fn of(data: &Option<Bytes>) -> usize {
    data.as_ref().map_or(0, Bytes::len)
}

fn acl(acl: &[Acl]) -> usize {
    acl.iter().map(|one| text(&one.scheme).saturating_add(text(&one.id))).sum()
}

fn create_bytes(create: &CreateRequest) -> usize {
    text(&create.path).saturating_add(of(&create.data)).saturating_add(acl(&create.acl))
}

fn watches_bytes(watches: &SetWatchesRequest) -> usize {
    let lists = [
        &watches.data_watches,
        &watches.exist_watches,
        &watches.child_watches,
        &watches.persistent_watches,
        &watches.persistent_recursive_watches,
    ];
    lists.into_iter().flatten().map(|path| text(path)).sum()
}

fn multi_op_bytes(op: &MultiOp) -> usize {
    let varying = match op {
        MultiOp::Create(create) | MultiOp::Create2(create) | MultiOp::CreateContainer(create) => {
            create_bytes(create)
        }
        MultiOp::CreateTtl(create) => {
            text(&create.path).saturating_add(of(&create.data)).saturating_add(acl(&create.acl))
        }
        MultiOp::SetData(set) => text(&set.path).saturating_add(of(&set.data)),
        MultiOp::Delete(delete) => text(&delete.path),
        MultiOp::Check(check) => text(&check.path),
    };
    varying.saturating_add(FIXED_BYTES)
}

fn multi_read_bytes(op: &MultiReadOp) -> usize {
    match op {
        MultiReadOp::GetData(read) | MultiReadOp::GetChildren(read) => text(&read.path),
    }
}

fn tree_op_bytes(op: &TreeOp) -> usize {
    match op {
        TreeOp::Create(create) | TreeOp::Create2(create) => create_bytes(create),
        TreeOp::SetData(set) => set.path.len().saturating_add(of(&set.data)),
        TreeOp::CreateTtl(create) => {
            text(&create.path).saturating_add(of(&create.data)).saturating_add(acl(&create.acl))
        }
        TreeOp::SetAcl(set) => text(&set.path).saturating_add(acl(&set.acl)),
        TreeOp::Delete(delete) => delete.path.len(),
        TreeOp::Check(check) => check.path.len(),
    }
}
