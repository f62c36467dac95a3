//! ZooKeeper's wire format without any input or output: bytes in, values out, and back.
//!
//! Called by: `coordinator-core` (answers), `coordinator` (frames of a socket), `coordinator-client` (asks).
//! Invariant: what a stranger sends can neither panic nor make us allocate more than a small multiple of
//! the bytes that arrived; a declared count is never believed.
//! It does not know sessions, trees, sockets or time.
//!
//! A frame is a 4-byte big-endian length and then records. A server reads one [`ConnectRequest`] and
//! after it [`RequestHeader`] + [`Request`]; it sends one [`ConnectResponse`] and after it
//! [`ReplyHeader`] + [`Response`], [`WatcherEvent`] or [`SubscriptionEvent`].

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::arithmetic_side_effects
    )
)]

mod acl;
mod ensemble;
mod error_code;
mod event;
mod four_letter_word;
mod frame;
mod handshake;
mod header;
mod ids;
mod jute;
mod multi;
mod op_code;
mod request;
mod request_frame;
mod response;
mod stat;
mod subscription;

pub use acl::{Acl, Permissions};
pub use ensemble::{EnsembleInfo, MemberInfo, TransferAnswer, TransferOutcome, TransferRequest};
pub use error_code::ErrorCode;
pub use event::{EventType, KeeperState, WatcherEvent};
pub use four_letter_word::FourLetterWord;
pub use frame::{FRAME_BYTES_MAX, FrameError, FrameWriter, decode_frame};
pub use handshake::{ConnectRequest, ConnectResponse, SessionPassword};
pub use header::{ReplyHeader, RequestHeader};
pub use ids::{SessionId, Xid, Zxid};
pub use jute::{DecodeError, Reader, Record, Writer};
pub use multi::{MultiOp, MultiReadOp, MultiReadResult, MultiResult};
pub use op_code::OpCode;
pub use request::{
    AddWatchMode, AddWatchRequest, AuthRequest, CheckRequest, ChildrenPageRequest, CreateMode,
    CreateRequest, CreateTtlRequest, DeleteRequest, PERSISTENT_PATHS_MAX, PathWatch,
    ReconfigRequest, Request, SET_WATCHES_PATHS_MAX, SessionOptionsRequest, SetAclRequest,
    SetDataRequest, SetWatchesRequest, WatchKind, WatchKindRequest, decode_request, encode_request,
};
pub use request_frame::{
    SET_WATCHES_BYTES_MAX, decode_request_frame, decode_request_frame_within, large_frame_bytes,
};
pub use response::{ClientInfo, Response, encode_event, encode_reply, encode_subscription_event};
pub use stat::Stat;
pub use subscription::{
    Item, ItemKind, SubscribeRequest, SubscriptionEvent, SubscriptionEventKind,
};
