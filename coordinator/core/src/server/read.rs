//! Answers from the tree, and the watches and subscriptions that are left with them.
//!
//! Called by the pipeline, in a request's turn. Calls `tree`, `watch`, `subscription`. Invariant:
//! a read and its watch see the same state; notifications that setWatches finds missed leave
//! before its answer. It does not know sessions or consensus.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, AddWatchRequest, ChildrenPageRequest, ErrorCode, MultiReadOp, MultiReadResult, OpCode,
    PathWatch, Permissions, Request, Response, SetWatchesRequest, SubscribeRequest,
};

use super::audit::bounded;
use super::identity;
use super::limits::{MISSED_CHANGES_MAX, MULTI_READ_BYTES_MAX, PAGE_NAMES_MAX};
use super::notices::Notice;
use super::reply_size::{Asked, ManyReads, data_bytes, list_bytes};
use super::step::Server;
use crate::ConnectionId;
use crate::tree::{CONFIG_PATH, NodeView, is_allowed, masked, validate_path};
use crate::watch::Missed;

impl Server {
    pub(super) fn read(
        &mut self,
        id: ConnectionId,
        request: Request,
    ) -> Result<Response, ErrorCode> {
        let outcome = self.read_one(id, request);
        // Of reads only those are over a quota that would leave a watch.
        if matches!(outcome, Err(ErrorCode::QuotaExceeded)) {
            self.note_refused_watches(id);
        }
        outcome
    }

    fn note_refused_watches(&mut self, id: ConnectionId) {
        let counted = &mut self.counters.counted;
        counted.refused_watches = counted.refused_watches.saturating_add(1);
        let shown = self.connections.get(id).map(|held| identity::client(&held.identities));
        self.note(Notice::WatchesRefused {
            client: shown.map(|client| bounded(&client)).unwrap_or_default(),
            session: self.session_of(id),
            watches: self.watches.count_of(id),
            all: self.watches.count(),
        });
    }

    fn read_one(&mut self, id: ConnectionId, request: Request) -> Result<Response, ErrorCode> {
        match request {
            Request::Exists(read) => self.read_exists(id, &read),
            Request::GetData(read) => self.read_data(id, &read, Asked::by(OpCode::GetData)),
            Request::GetChildren(read) => {
                let asked = Asked::by(OpCode::GetChildren);
                self.read_children(id, &read, asked).map(Response::Names)
            }
            Request::GetChildren2(read) => self.read_children2(id, &read),
            Request::GetChildrenPage(page) => self.read_page(id, &page),
            Request::GetAcl(path) => self.read_acl(id, &path),
            Request::GetAllChildrenNumber(path) => self.count_descendants(id, &path),
            Request::GetEphemerals(prefix) => self.list_ephemerals(id, &prefix),
            Request::MultiRead(ops) => self.read_many(id, ops),
            Request::CheckWatches(watch) => {
                let found = self.watches.contains(id, &watch.path, watch.kind);
                if found { Ok(Response::Empty) } else { Err(ErrorCode::NoWatcher) }
            }
            Request::RemoveWatches(watch) => {
                let found = self.watches.remove(id, &watch.path, watch.kind);
                if found { Ok(Response::Empty) } else { Err(ErrorCode::NoWatcher) }
            }
            Request::AddWatch(AddWatchRequest { path, mode }) => validate_path(&path)
                .and_then(|()| self.watches.add(id, &path, mode))
                .map(|()| Response::Code(ErrorCode::Ok)),
            Request::SetWatches(watches) | Request::SetWatches2(watches) => {
                self.set_watches(id, &watches)
            }
            Request::Subscribe(subscribe) => self.subscribe(id, &subscribe),
            Request::Unsubscribe(subscription) => {
                let found = self.subscriptions.unsubscribe(id, subscription);
                if found { Ok(Response::Empty) } else { Err(ErrorCode::BadArguments) }
            }
            Request::WhoAmI => self.who_am_i(id),
            // Who the members are is told to who may read them.
            Request::DescribeEnsemble => {
                self.readable(id, CONFIG_PATH).map(|_| Response::Ensemble(self.describe_ensemble()))
            }
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    fn node(&self, path: &str) -> Result<NodeView<'_>, ErrorCode> {
        self.state.tree().get(path).ok_or(ErrorCode::NoNode)
    }

    /// The node, if the connection may read it.
    fn readable(&self, id: ConnectionId, path: &str) -> Result<NodeView<'_>, ErrorCode> {
        let node = self.node(path)?;
        if self.may(id, Permissions::READ, node.acl()) { Ok(node) } else { Err(ErrorCode::NoAuth) }
    }

    pub(super) fn may(&self, id: ConnectionId, permissions: i32, acl: &[Acl]) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(|held| is_allowed(acl, permissions, &held.identities))
    }

    fn read_acl(&self, id: ConnectionId, path: &str) -> Result<Response, ErrorCode> {
        let node = self.node(path)?;
        if !self.may(id, Permissions::READ | Permissions::ADMIN, node.acl()) {
            return Err(ErrorCode::NoAuth);
        }
        let acl = match self.may(id, Permissions::ADMIN, node.acl()) {
            true => node.acl().to_vec(),
            false => masked(node.acl()),
        };
        Ok(Response::AclStat(acl, node.stat()))
    }

    fn read_exists(&mut self, id: ConnectionId, read: &PathWatch) -> Result<Response, ErrorCode> {
        validate_path(&read.path)?;
        let stat = self.readable(id, &read.path).map(|node| node.stat());
        // Who may not read a node hears no more of it than that.
        if read.watch && !matches!(stat, Err(ErrorCode::NoAuth)) {
            self.watches.watch_data(id, &read.path)?;
        }
        stat.map(Response::Stat)
    }

    fn read_data(
        &mut self,
        id: ConnectionId,
        read: &PathWatch,
        asked: Asked,
    ) -> Result<Response, ErrorCode> {
        let node = self.readable(id, &read.path)?;
        let (mut data, mut stat) = (node.data(), node.stat());
        if let Some(usage) = self.state.tree().quota_usage(&read.path) {
            // In ZooKeeper the server writes this node; here it shows what is counted anyway.
            let text = format!("count={},bytes={}", usage.count, usage.bytes);
            stat.data_length = i32::try_from(text.len()).unwrap_or(i32::MAX);
            data = Some(text.into());
        }
        if read.path == CONFIG_PATH
            && let Some(text) = self.named_members()
        {
            // As in ZooKeeper, whose servers each show what their settings name until members are changed.
            stat.data_length = i32::try_from(text.len()).unwrap_or(i32::MAX);
            stat.version = -1;
            data = Some(text.into());
        }
        let bytes = data_bytes(data.as_ref().map_or(0, Bytes::len));
        self.admit_reply(id, (asked, Some(&read.path)), bytes)?;
        let response = Response::DataStat(data, stat);
        if read.watch {
            self.watches.watch_data(id, &read.path)?;
        }
        Ok(response)
    }

    fn read_children(
        &mut self,
        id: ConnectionId,
        read: &PathWatch,
        asked: Asked,
    ) -> Result<Vec<String>, ErrorCode> {
        self.readable(id, &read.path)?;
        let names = || self.state.tree().children(&read.path).ok_or(ErrorCode::NoNode);
        let bytes = list_bytes(names()?.map(str::len));
        self.admit_reply(id, (asked, Some(&read.path)), bytes)?;
        let names = self.state.tree().children(&read.path).ok_or(ErrorCode::NoNode)?;
        let names = names.map(str::to_owned).collect();
        if read.watch {
            self.watches.watch_children(id, &read.path)?;
        }
        Ok(names)
    }

    fn read_children2(
        &mut self,
        id: ConnectionId,
        read: &PathWatch,
    ) -> Result<Response, ErrorCode> {
        let stat = self.node(&read.path)?.stat();
        let asked = Asked::by(OpCode::GetChildren2).with_stat();
        Ok(Response::NamesStat(self.read_children(id, read, asked)?, stat))
    }

    /// Some of the children, so that no answer grows with their number.
    fn read_page(
        &self,
        id: ConnectionId,
        page: &ChildrenPageRequest,
    ) -> Result<Response, ErrorCode> {
        let stat = self.readable(id, &page.path)?.stat();
        let count_max = usize::try_from(page.count_max).unwrap_or(0).min(PAGE_NAMES_MAX);
        if count_max == 0 {
            return Err(ErrorCode::BadArguments);
        }
        let found = self.state.tree().children_page(&page.path, &page.after, &page.prefix);
        let (mut names, mut bytes) = (Vec::new(), 0usize);
        let bytes_max = self.page_bytes_max();
        for name in found.ok_or(ErrorCode::NoNode)? {
            bytes = bytes.saturating_add(name.len()).saturating_add(size_of::<i32>());
            if names.len() == count_max || (bytes > bytes_max && !names.is_empty()) {
                return Ok(Response::NamesPage(names, true, stat));
            }
            names.push(name.to_owned());
        }
        Ok(Response::NamesPage(names, false, stat))
    }

    /// Each read for itself, until the answer is large enough.
    fn read_many(
        &mut self,
        id: ConnectionId,
        ops: Vec<MultiReadOp>,
    ) -> Result<Response, ErrorCode> {
        self.admit_errors(id, ops.len())?;
        let mut bytes = 0usize;
        let mut reads = ManyReads::new(ops.len());
        let one = |op: &MultiReadOp| {
            let asked = reads.next();
            let result = match bytes < MULTI_READ_BYTES_MAX {
                true => self.read_one_of_many(id, op, asked),
                false => MultiReadResult::Error(ErrorCode::ThrottledOp),
            };
            bytes = bytes.saturating_add(result_bytes(&result));
            reads.add(&result);
            result
        };
        Ok(Response::MultiRead(ops.iter().map(one).collect()))
    }

    fn read_one_of_many(
        &mut self,
        id: ConnectionId,
        op: &MultiReadOp,
        asked: Asked,
    ) -> MultiReadResult {
        match op {
            MultiReadOp::GetData(read) => match self.read_data(id, read, asked) {
                Ok(Response::DataStat(data, stat)) => MultiReadResult::GetData(data, stat),
                Ok(_) => MultiReadResult::Error(ErrorCode::SystemError),
                Err(code) => MultiReadResult::Error(code),
            },
            MultiReadOp::GetChildren(read) => match self.read_children(id, read, asked) {
                Ok(names) => MultiReadResult::GetChildren(names),
                Err(code) => MultiReadResult::Error(code),
            },
        }
    }

    fn count_descendants(&self, id: ConnectionId, path: &str) -> Result<Response, ErrorCode> {
        self.readable(id, path)?;
        let count = self.state.tree().descendant_count(path).ok_or(ErrorCode::NoNode)?;
        Ok(Response::Count(i32::try_from(count).unwrap_or(i32::MAX)))
    }

    fn list_ephemerals(&mut self, id: ConnectionId, prefix: &str) -> Result<Response, ErrorCode> {
        let session = self.connections.get(id).and_then(|held| held.session());
        let session = session.ok_or(ErrorCode::SessionExpired)?;
        let all = self.state.tree().ephemerals_of(session.id);
        let below = all.filter(|path| path.starts_with(prefix));
        let names: Vec<String> = below.map(|path| path.to_string()).collect();
        let bytes = list_bytes(names.iter().map(String::len));
        self.admit_reply(id, (Asked::by(OpCode::GetEphemerals), Some(prefix)), bytes)?;
        Ok(Response::Names(names))
    }

    pub(super) fn set_watches(
        &mut self,
        id: ConnectionId,
        request: &SetWatchesRequest,
    ) -> Result<Response, ErrorCode> {
        let last = self.state.last_zxid();
        let once = self.watches.set_watches(id, request, self.state.tree(), last)?;
        let missed = Missed { connection: id, request };
        // First what happened before.
        let persists = !request.persistent_watches.is_empty()
            || !request.persistent_recursive_watches.is_empty();
        let changes =
            || self.subscriptions.changes_after(request.relative_zxid, MISSED_CHANGES_MAX);
        let mut missed = match persists.then(changes) {
            None => Vec::new(),
            Some(Some(changes)) => missed.of_changes(changes),
            Some(None) => missed.unknown(self.state.tree(), last),
        };
        missed.extend(once);
        missed.retain(|told| self.may_hear(told));
        if planted!(self.config.planted, LoseWatchOnReconnect) {
            return Ok(Response::Empty);
        }
        self.notify(missed);
        Ok(Response::Empty)
    }

    /// Of a subtree whose top may not be read nothing is told; below it, each node by its own list.
    fn subscribe(
        &mut self,
        id: ConnectionId,
        subscribe: &SubscribeRequest,
    ) -> Result<Response, ErrorCode> {
        match self.readable(id, &subscribe.path) {
            Ok(_) | Err(ErrorCode::NoNode) => {}
            Err(code) => return Err(code),
        }
        self.subscriptions.subscribe(id, subscribe).map(|()| Response::Empty)
    }

    fn who_am_i(&self, id: ConnectionId) -> Result<Response, ErrorCode> {
        let connection = self.connections.get(id).ok_or(ErrorCode::SessionExpired)?;
        Ok(Response::ClientInfos(connection.identities.iter().map(identity::to_info).collect()))
    }
}

/// What varies of a result's size.
fn result_bytes(result: &MultiReadResult) -> usize {
    match result {
        MultiReadResult::GetData(data, _) => data.as_ref().map_or(0, Bytes::len),
        MultiReadResult::GetChildren(names) => {
            let lengths = names.iter().map(|name| name.len().saturating_add(size_of::<i32>()));
            lengths.fold(0, usize::saturating_add)
        }
        MultiReadResult::Error(_) => 0,
    }
}
