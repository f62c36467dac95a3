//! What clients ask: every operation with its fields.
//!
//! Called by: the server (decoding), the client (encoding). Calls: `jute`, `multi`.
//! Invariant: [`Request::op`] and the encoded body always belong together. An operation that we do not
//! know is a value ([`Request::Unknown`]), not an error, so that it can be answered and the session
//! lives on. Bytes after the last known field are ignored: that is how jute records grow.
//! It does not check paths, versions or permissions.

use crate::acl::Acl;
use crate::ensemble::TransferRequest;
use crate::frame::FrameWriter;
use crate::header::RequestHeader;
use crate::ids::{Xid, Zxid};
use crate::jute::{DecodeError, Reader, Record, Writer, closed_enum, record};
use crate::multi::{MultiOp, MultiReadOp, decode_list, encode_list};
use crate::op_code::OpCode;
use crate::subscription::SubscribeRequest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// What kind of znode a create makes: the value of its `flags`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum CreateMode as "create mode" {
        /// Stays until it is deleted.
        Persistent = 0,
        /// Goes with its session.
        Ephemeral = 1,
        /// Persistent, its name completed with a growing number.
        PersistentSequential = 2,
        /// Ephemeral, its name completed with a growing number.
        EphemeralSequential = 3,
        /// Goes by itself once its last child has gone.
        Container = 4,
        /// Goes by itself when it was not written for a time and has no children.
        PersistentTtl = 5,
        /// As `PersistentTtl`, its name completed with a growing number.
        PersistentSequentialTtl = 6,
    }
}

impl CreateMode {
    /// Whether the name is completed with a growing number.
    #[must_use]
    pub const fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential | Self::EphemeralSequential | Self::PersistentSequentialTtl
        )
    }

    /// Whether the znode goes with its session.
    #[must_use]
    pub const fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }
}

record! {
    /// Creates a znode: create, create2, createContainer.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct CreateRequest {
        /// Where; the beginning of where when `flags` is sequential.
        pub path: String,
        /// Its data.
        pub data: Option<Bytes>,
        /// Its access list; must not be empty.
        pub acl: Vec<Acl>,
        /// A [`CreateMode`], still unchecked.
        pub flags: i32,
    }
}

record! {
    /// Creates a znode that goes by itself after a time.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct CreateTtlRequest {
        /// As in [`CreateRequest`].
        pub path: String,
        /// As in [`CreateRequest`].
        pub data: Option<Bytes>,
        /// As in [`CreateRequest`].
        pub acl: Vec<Acl>,
        /// As in [`CreateRequest`].
        pub flags: i32,
        /// How long it stays unwritten and childless, in milliseconds.
        pub ttl_ms: i64,
    }
}

record! {
    /// Deletes a znode without children.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct DeleteRequest {
        /// Which one.
        pub path: String,
        /// The version that it must have; -1 for any.
        pub version: i32,
    }
}

record! {
    /// Replaces a znode's data.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct SetDataRequest {
        /// Which one.
        pub path: String,
        /// The new data.
        pub data: Option<Bytes>,
        /// The version that it must have; -1 for any.
        pub version: i32,
    }
}

record! {
    /// Fails unless a znode exists and has a version.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct CheckRequest {
        /// Which one.
        pub path: String,
        /// The version that it must have; -1 for any.
        pub version: i32,
    }
}

record! {
    /// Replaces a znode's access list.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct SetAclRequest {
        /// Which one.
        pub path: String,
        /// The new list.
        pub acl: Vec<Acl>,
        /// The access-list version that it must have; -1 for any.
        pub version: i32,
    }
}

record! {
    /// Reads a znode, with a watch if wanted: exists, getData, getChildren, getChildren2.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PathWatch {
        /// Which one.
        pub path: String,
        /// Whether to leave a one-shot watch.
        pub watch: bool,
    }
}

record! {
    /// Changes the ensemble's membership.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ReconfigRequest {
        /// Servers to add or change.
        pub joining_servers: Option<String>,
        /// Server ids to remove.
        pub leaving_servers: Option<String>,
        /// The whole new membership instead.
        pub new_members: Option<String>,
        /// The configuration that it must replace; -1 for any.
        pub config_id: i64,
    }
}

closed_enum! {
    /// Which watches checkWatches and removeWatches mean.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum WatchKind as "watch kind" {
        /// One-shot watches of children.
        Children = 1,
        /// One-shot watches of data and existence.
        Data = 2,
        /// All of them.
        Any = 3,
        /// Persistent ones.
        Persistent = 4,
        /// Persistent ones of whole subtrees.
        PersistentRecursive = 5,
    }
}

record! {
    /// Asks for or removes watches of this connection.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct WatchKindRequest {
        /// Of which znode.
        pub path: String,
        /// Which ones.
        pub kind: WatchKind,
    }
}

record! {
    /// Shows credentials.
    #[derive(Clone, PartialEq, Eq)]
    pub struct AuthRequest {
        /// 0.
        pub auth_type: i32,
        /// As in [`Acl::scheme`].
        pub scheme: String,
        /// The credentials, in the scheme's form. Secret.
        pub auth: Option<Bytes>,
    }
}

impl std::fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthRequest").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// Paths in one setWatches or setWatches2: as many as one connection may watch. With [`crate::SET_WATCHES_BYTES_MAX`] they have
/// 67 bytes each; shorter ones take time and memory by their number.
pub const SET_WATCHES_PATHS_MAX: usize = 1_000_000;
/// Those of persistent watches among them, which are set all in one step, so that what they missed is told in order, and nothing
/// before it that comes later. Clients that know these watches name as many as have 128 KiB.
pub const PERSISTENT_PATHS_MAX: usize = 20_000;

/// Sets watches again after a reconnect; what changed since `relative_zxid` fires at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetWatchesRequest {
    /// The last write that the client knows of.
    pub relative_zxid: Zxid,
    /// Znodes whose data is watched.
    pub data_watches: Vec<String>,
    /// Znodes whose creation is watched.
    pub exist_watches: Vec<String>,
    /// Znodes whose children are watched.
    pub child_watches: Vec<String>,
    /// Persistent watches; setWatches2 only.
    pub persistent_watches: Vec<String>,
    /// Persistent watches of whole subtrees; setWatches2 only.
    pub persistent_recursive_watches: Vec<String>,
}

impl SetWatchesRequest {
    /// Paths in all, those that are named twice too.
    #[must_use]
    pub fn path_count(&self) -> usize {
        let one_shot = [&self.data_watches, &self.exist_watches, &self.child_watches];
        let persistent = [&self.persistent_watches, &self.persistent_recursive_watches];
        one_shot.into_iter().chain(persistent).map(Vec::len).fold(0, usize::saturating_add)
    }

    fn decode(reader: &mut Reader, persistent: bool) -> Result<Self, DecodeError> {
        let mut left = Left { paths: SET_WATCHES_PATHS_MAX, limit: SET_WATCHES_PATHS_MAX };
        let mut request = Self {
            relative_zxid: Record::decode(reader)?,
            data_watches: left.decode(reader)?,
            exist_watches: left.decode(reader)?,
            child_watches: left.decode(reader)?,
            ..Self::default()
        };
        if persistent {
            let limit = PERSISTENT_PATHS_MAX;
            left = Left { paths: left.paths.min(limit), limit };
            request.persistent_watches = left.decode(reader)?;
            request.persistent_recursive_watches = left.decode(reader)?;
        }
        Ok(request)
    }

    fn encode(&self, writer: &mut Writer, persistent: bool) {
        self.relative_zxid.encode(writer);
        self.data_watches.encode(writer);
        self.exist_watches.encode(writer);
        self.child_watches.encode(writer);
        if persistent {
            self.persistent_watches.encode(writer);
            self.persistent_recursive_watches.encode(writer);
        }
    }
}

/// How many paths more a request may name.
struct Left {
    paths: usize,
    limit: usize,
}

impl Left {
    /// A list, if it is not too long: its count is looked at before anything is made of it.
    fn decode(&mut self, reader: &mut Reader) -> Result<Vec<String>, DecodeError> {
        // Null and what is below are for the list's own decoder.
        let count = usize::try_from(i32::decode(&mut reader.clone())?).unwrap_or(0);
        let left = self.paths.checked_sub(count);
        self.paths = left.ok_or(DecodeError::TooMany { what: "paths", limit: self.limit })?;
        Record::decode(reader)
    }
}

closed_enum! {
    /// How far a persistent watch reaches.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum AddWatchMode as "watch mode" {
        /// The znode: its data and its children.
        Persistent = 0,
        /// The znode and everything below it.
        PersistentRecursive = 1,
    }
}

record! {
    /// Adds a persistent watch.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AddWatchRequest {
        /// Of which znode.
        pub path: String,
        /// How far it reaches.
        pub mode: AddWatchMode,
    }
}

record! {
    /// Ours: options of the session, kept with it through reconnects.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct SessionOptionsRequest {
        /// How long after its connection was lost by the peer's end the session goes on, in
        /// milliseconds; -1 for the whole session time-out.
        pub fast_death_grace_ms: i32,
    }
}

record! {
    /// Ours: some of a znode's children, in ascending order, for lists that are too long for one answer.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ChildrenPageRequest {
        /// Which znode's.
        pub path: String,
        /// Names behind this one; empty for all.
        pub after: String,
        /// Names that begin with this; empty for all.
        pub prefix: String,
        /// At most so many; the server may give fewer.
        pub count_max: i32,
    }
}

macro_rules! requests {
    (
        body { $($(#[$meta:meta])* $variant:ident($body:ty),)* }
        empty { $($(#[$empty_meta:meta])* $empty:ident,)* }
    ) => {
        /// A request. Each variant is the operation of the same name in [`OpCode`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(#[$meta])* $variant($body),)*
            $($(#[$empty_meta])* $empty,)*
            /// setWatches: without the persistent ones.
            SetWatches(SetWatchesRequest),
            /// setWatches2: with the persistent ones.
            SetWatches2(SetWatchesRequest),
            /// Several writes, all or none.
            Multi(Vec<MultiOp>),
            /// Several reads, each for itself.
            MultiRead(Vec<MultiReadOp>),
            /// An operation that this version does not know, or that only servers may use: its number.
            Unknown(i32),
        }

        impl Request {
            /// The operation.
            #[must_use]
            pub fn op(&self) -> OpCode {
                match self {
                    $(Self::$variant(_) => OpCode::$variant,)*
                    $(Self::$empty => OpCode::$empty,)*
                    Self::SetWatches(_) => OpCode::SetWatches,
                    Self::SetWatches2(_) => OpCode::SetWatches2,
                    Self::Multi(_) => OpCode::Multi,
                    Self::MultiRead(_) => OpCode::MultiRead,
                    Self::Unknown(op) => OpCode::from_code(*op),
                }
            }

            /// Reads the body of `op`.
            ///
            /// # Errors
            /// Any [`DecodeError`]: answer `MarshallingError`.
            pub fn decode(op: OpCode, reader: &mut Reader) -> Result<Self, DecodeError> {
                Ok(match op {
                    $(OpCode::$variant => Self::$variant(Record::decode(reader)?),)*
                    $(OpCode::$empty => Self::$empty,)*
                    OpCode::SetWatches => {
                        Self::SetWatches(SetWatchesRequest::decode(reader, false)?)
                    }
                    OpCode::SetWatches2 => {
                        Self::SetWatches2(SetWatchesRequest::decode(reader, true)?)
                    }
                    OpCode::Multi => Self::Multi(decode_list(reader, MultiOp::decode_body)?),
                    OpCode::MultiRead => {
                        Self::MultiRead(decode_list(reader, MultiReadOp::decode_body)?)
                    }
                    OpCode::Error | OpCode::CreateSession | OpCode::Other(_) => {
                        Self::Unknown(op.code())
                    }
                })
            }

            /// Writes the body.
            pub fn encode(&self, writer: &mut Writer) {
                match self {
                    $(Self::$variant(body) => body.encode(writer),)*
                    $(Self::$empty => {})*
                    Self::SetWatches(request) => request.encode(writer, false),
                    Self::SetWatches2(request) => request.encode(writer, true),
                    Self::Multi(ops) => encode_list(ops, writer, MultiOp::encode_one),
                    Self::MultiRead(ops) => encode_list(ops, writer, MultiReadOp::encode_one),
                    Self::Unknown(_) => {}
                }
            }
        }
    };
}

requests! {
    body {
        /// Creates a znode; answered with its path.
        Create(CreateRequest),
        /// Creates a znode; answered with its path and Stat.
        Create2(CreateRequest),
        /// Creates a container; answered with its path and Stat.
        CreateContainer(CreateRequest),
        /// Creates a TTL node; answered with its path and Stat.
        CreateTtl(CreateTtlRequest),
        /// Deletes a znode.
        Delete(DeleteRequest),
        /// Deletes a container or TTL node at this path: servers only, refuse it from clients.
        DeleteContainer(String),
        /// Answered with the Stat; the watch is left even where there is no znode.
        Exists(PathWatch),
        /// Answered with data and Stat.
        GetData(PathWatch),
        /// Answered with the Stat.
        SetData(SetDataRequest),
        /// Answered with the access list of the znode at this path, and its Stat.
        GetAcl(String),
        /// Answered with the Stat.
        SetAcl(SetAclRequest),
        /// Answered with the children's names.
        GetChildren(PathWatch),
        /// Answered with the children's names and the Stat.
        GetChildren2(PathWatch),
        /// Answered with this path, once the server has caught up.
        Sync(String),
        /// Compares a version.
        Check(CheckRequest),
        /// Changes the ensemble's membership; answered with the new configuration and its Stat.
        Reconfig(ReconfigRequest),
        /// Asks whether a watch is set.
        CheckWatches(WatchKindRequest),
        /// Removes watches.
        RemoveWatches(WatchKindRequest),
        /// Shows credentials; its xid is -4.
        Auth(AuthRequest),
        /// One token of a SASL exchange; answered with another.
        Sasl(Option<Bytes>),
        /// Asks for the session's own ephemerals below this path.
        GetEphemerals(String),
        /// Counts the znodes below this path.
        GetAllChildrenNumber(String),
        /// Adds a persistent watch.
        AddWatch(AddWatchRequest),
        /// Ours: answered with some of the children's names, and whether there are more.
        GetChildrenPage(ChildrenPageRequest),
        /// Ours: subscribes to a subtree.
        Subscribe(SubscribeRequest),
        /// Ours: ends the subscription with this number.
        Unsubscribe(i32),
        /// Ours: sets the session's options.
        SessionOptions(SessionOptionsRequest),
        /// Ours: moves leadership; answered with what became of it.
        TransferLeader(TransferRequest),
    }
    empty {
        /// Keeps the session alive; its xid is -2.
        Ping,
        /// Asks for the connection's identities.
        WhoAmI,
        /// Ours: asks who is in the ensemble and who leads it.
        DescribeEnsemble,
        /// Ends the session.
        CloseSession,
    }
}

impl Request {
    /// The xid that this request must have, for those that have one of their own.
    #[must_use]
    pub fn special_xid(&self) -> Option<Xid> {
        match self.op() {
            OpCode::Ping => Some(Xid::PING),
            OpCode::Auth => Some(Xid::AUTH),
            OpCode::SetWatches | OpCode::SetWatches2 => Some(Xid::SET_WATCHES),
            _ => None,
        }
    }
}

/// Reads a request from a frame's content. The inner result is the body's: a client can be told of
/// a body that cannot be read, by the xid of the header.
///
/// # Errors
/// Any [`DecodeError`] of the header: close the connection.
pub fn decode_request(
    frame: Bytes,
) -> Result<(RequestHeader, Result<Request, DecodeError>), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader)?;
    Ok((header, Request::decode(header.op, &mut reader)))
}

/// The whole frame of a request, with its length prefix.
#[must_use]
pub fn encode_request(xid: Xid, request: &Request) -> Bytes {
    let mut frame = FrameWriter::new();
    frame.put(&RequestHeader { xid, op: request.op() });
    request.encode(frame.writer());
    frame.finish()
}
