//! What servers answer, and what they send unasked.
//!
//! Called by: the server (encoding), the client (decoding). Calls: `jute`, `multi`.
//! Invariant: a body follows the header exactly if its error is `Ok`; which body it is follows from
//! the operation alone, so the client has to remember what it asked.
//! It does not know which request an answer belongs to.

use crate::acl::Acl;
use crate::ensemble::{EnsembleInfo, TransferAnswer};
use crate::error_code::ErrorCode;
use crate::event::WatcherEvent;
use crate::frame::FrameWriter;
use crate::header::ReplyHeader;
use crate::ids::{Xid, Zxid};
use crate::jute::{DecodeError, Reader, Record, Writer, record};
use crate::multi::{MultiReadResult, MultiResult, decode_list, encode_list};
use crate::op_code::OpCode;
use crate::stat::Stat;
use crate::subscription::SubscriptionEvent;
use bytes::Bytes;

record! {
    /// One identity of a connection.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ClientInfo {
        /// As in [`Acl::scheme`].
        pub scheme: String,
        /// The identity.
        pub user: String,
    }
}

/// The body of a successful answer. Its variants are shapes; several operations share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The header says it all: delete, check watches, auth, setWatches, ping, closeSession,
    /// subscribe, unsubscribe, sessionOptions.
    Empty,
    /// create, sync.
    Path(String),
    /// create2, createContainer, createTTL.
    PathStat(String, Stat),
    /// exists, setData, setACL, check.
    Stat(Stat),
    /// getData, reconfig.
    DataStat(Option<Bytes>, Stat),
    /// getACL.
    AclStat(Vec<Acl>, Stat),
    /// getChildren: names, not paths. getEphemerals: paths.
    Names(Vec<String>),
    /// getChildren2.
    NamesStat(Vec<String>, Stat),
    /// getChildrenPage: names, whether more follow, and the parent's Stat.
    NamesPage(Vec<String>, bool, Stat),
    /// getAllChildrenNumber.
    Count(i32),
    /// multi.
    Multi(Vec<MultiResult>),
    /// multiRead.
    MultiRead(Vec<MultiReadResult>),
    /// sasl.
    Token(Option<Bytes>),
    /// addWatch: an error code that is always `Ok`.
    Code(ErrorCode),
    /// whoAmI.
    ClientInfos(Vec<ClientInfo>),
    /// transferLeader.
    Transfer(TransferAnswer),
    /// describeEnsemble.
    Ensemble(EnsembleInfo),
}

impl Response {
    /// Reads the body of an answer to `op` whose header says `Ok`.
    ///
    /// # Errors
    /// Any [`DecodeError`]: close the connection.
    pub fn decode(op: OpCode, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create | OpCode::Sync => Self::Path(Record::decode(reader)?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::PathStat(Record::decode(reader)?, Record::decode(reader)?)
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl | OpCode::Check => {
                Self::Stat(Record::decode(reader)?)
            }
            OpCode::GetData | OpCode::Reconfig => {
                Self::DataStat(Record::decode(reader)?, Record::decode(reader)?)
            }
            OpCode::GetAcl => Self::AclStat(Record::decode(reader)?, Record::decode(reader)?),
            OpCode::GetChildren | OpCode::GetEphemerals => Self::Names(Record::decode(reader)?),
            OpCode::GetChildren2 => {
                Self::NamesStat(Record::decode(reader)?, Record::decode(reader)?)
            }
            OpCode::GetChildrenPage => Self::NamesPage(
                Record::decode(reader)?,
                Record::decode(reader)?,
                Record::decode(reader)?,
            ),
            OpCode::GetAllChildrenNumber => Self::Count(Record::decode(reader)?),
            OpCode::Multi => Self::Multi(decode_list(reader, MultiResult::decode_body)?),
            OpCode::MultiRead => {
                Self::MultiRead(decode_list(reader, MultiReadResult::decode_body)?)
            }
            OpCode::Sasl => Self::Token(Record::decode(reader)?),
            OpCode::AddWatch => Self::Code(Record::decode(reader)?),
            OpCode::WhoAmI => Self::ClientInfos(Record::decode(reader)?),
            OpCode::TransferLeader => Self::Transfer(Record::decode(reader)?),
            OpCode::DescribeEnsemble => Self::Ensemble(Record::decode(reader)?),
            OpCode::Delete
            | OpCode::DeleteContainer
            | OpCode::Ping
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::Subscribe
            | OpCode::Unsubscribe
            | OpCode::SessionOptions
            | OpCode::CreateSession
            | OpCode::CloseSession
            | OpCode::Error
            | OpCode::Other(_) => Self::Empty,
        })
    }

    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Empty => {}
            Self::Path(path) => path.encode(writer),
            Self::PathStat(path, stat) => {
                path.encode(writer);
                stat.encode(writer);
            }
            Self::Stat(stat) => stat.encode(writer),
            Self::DataStat(data, stat) => {
                data.encode(writer);
                stat.encode(writer);
            }
            Self::AclStat(acl, stat) => {
                acl.encode(writer);
                stat.encode(writer);
            }
            Self::Names(names) => names.encode(writer),
            Self::NamesStat(names, stat) => {
                names.encode(writer);
                stat.encode(writer);
            }
            Self::NamesPage(names, more, stat) => {
                names.encode(writer);
                more.encode(writer);
                stat.encode(writer);
            }
            Self::Count(count) => count.encode(writer),
            Self::Multi(results) => encode_list(results, writer, MultiResult::encode_one),
            Self::MultiRead(results) => encode_list(results, writer, MultiReadResult::encode_one),
            Self::Token(token) => token.encode(writer),
            Self::Code(code) => code.encode(writer),
            Self::ClientInfos(infos) => infos.encode(writer),
            Self::Transfer(answer) => answer.encode(writer),
            Self::Ensemble(info) => info.encode(writer),
        }
    }
}

/// The whole frame of an answer, with its length prefix. `zxid` is the last write that this server
/// had applied when it answered.
#[must_use]
pub fn encode_reply(xid: Xid, zxid: Zxid, outcome: Result<&Response, ErrorCode>) -> Bytes {
    let mut frame = FrameWriter::new();
    let error = outcome.err().unwrap_or(ErrorCode::Ok);
    frame.put(&ReplyHeader { xid, zxid, error });
    if let Ok(response) = outcome {
        response.encode(frame.writer());
    }
    frame.finish()
}

/// The whole frame of a watch notification, with its length prefix. `zxid` is the write that fired it.
#[must_use]
pub fn encode_event(zxid: Zxid, event: &WatcherEvent) -> Bytes {
    let mut frame = FrameWriter::new();
    frame.put(&ReplyHeader { xid: Xid::NOTIFICATION, zxid, error: ErrorCode::Ok });
    frame.put(event);
    frame.finish()
}

/// The whole frame of a subscription's event, with its length prefix.
#[must_use]
pub fn encode_subscription_event(event: &SubscriptionEvent) -> Bytes {
    let mut frame = FrameWriter::new();
    let header = ReplyHeader { xid: Xid::SUBSCRIPTION, zxid: event.zxid, error: ErrorCode::Ok };
    frame.put(&header);
    frame.put(event);
    frame.finish()
}
