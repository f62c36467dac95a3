//! One record of ZooKeeper's transaction log.
//!
//! Called by: `log`. Calls: the protocol's records.
//! Invariant: a transaction that failed (also as a part of a multi) changes nothing.
//! Does not know: files.
//!
//! ```text
//! | session: 8 | cxid: 4 | zxid: 8 | time: 8 | type: 4 | the type's own record | digest, since 3.6
//! ```

use bytes::Bytes;
use coordinator_protocol::{Acl, DecodeError, Reader, Record};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Whose request it was.
    pub session: i64,
    /// Its number.
    pub zxid: i64,
    /// The leader's clock, ms since 1970.
    pub time_ms: i64,
    /// What it does.
    pub operation: Operation,
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A session begins.
    CreateSession,
    /// A session ends.
    CloseSession {
        /// Its ephemerals, where the log tells them.
        paths: Vec<String>,
    },
    /// Znodes change; several in a multi.
    Changes(Vec<Change>),
    /// It failed, or only checked.
    Nothing,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A node appears.
    Create(Create),
    /// A node goes.
    Delete {
        /// Which.
        path: String,
    },
    /// New data.
    SetData {
        /// Of which node.
        path: String,
        /// `None` is null.
        data: Option<Bytes>,
        /// The version that it gets.
        version: i32,
    },
    /// A new access list.
    SetAcl {
        /// Of which node.
        path: String,
        /// The list.
        acl: Vec<Acl>,
        /// The version that it gets.
        version: i32,
    },
}

/// A node that appears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Where.
    pub path: String,
    /// `None` is null.
    pub data: Option<Bytes>,
    /// The list.
    pub acl: Vec<Acl>,
    /// Whether it goes with the session.
    pub is_ephemeral: bool,
    /// Whether it goes when its last child has gone.
    pub is_container: bool,
    /// How long it stays without being written.
    pub ttl_ms: Option<i64>,
    /// Children that its parent has ever had, with it; old logs do not tell.
    pub parent_cversion: Option<i32>,
}

impl Transaction {
    /// Reads a whole record.
    pub fn decode(record: Bytes) -> Result<Transaction, DecodeError> {
        let mut reader = Reader::new(record);
        let session = i64::decode(&mut reader)?;
        let _cxid = i32::decode(&mut reader)?;
        let zxid = i64::decode(&mut reader)?;
        let time_ms = i64::decode(&mut reader)?;
        let kind = i32::decode(&mut reader)?;
        let operation = operation(kind, &mut reader)?;
        Ok(Transaction { session, zxid, time_ms, operation })
    }
}

fn operation(kind: i32, reader: &mut Reader) -> Result<Operation, DecodeError> {
    match kind {
        -10 => Ok(Operation::CreateSession),
        -11 => {
            // Before 3.6 there was nothing here.
            let paths = if reader.left() == 0 { Vec::new() } else { Record::decode(reader)? };
            Ok(Operation::CloseSession { paths })
        }
        14 => multi(reader),
        _ => Ok(change(kind, reader)?
            .map_or(Operation::Nothing, |change| Operation::Changes(vec![change]))),
    }
}

fn multi(reader: &mut Reader) -> Result<Operation, DecodeError> {
    let count = i32::decode(reader)?;
    let mut changes = Vec::new();
    let mut failed = false;
    for _ in 0..count.max(0) {
        let kind = i32::decode(reader)?;
        let record = Option::<Bytes>::decode(reader)?.unwrap_or_default();
        failed |= kind == -1;
        changes.extend(change(kind, &mut Reader::new(record))?);
    }
    Ok(if failed { Operation::Nothing } else { Operation::Changes(changes) })
}

/// The change of a transaction of this type; none of an error or a check.
fn change(kind: i32, reader: &mut Reader) -> Result<Option<Change>, DecodeError> {
    let change = match kind {
        1 | 15 | 19 | 21 => Change::Create(create(kind, reader)?),
        2 | 20 => Change::Delete { path: Record::decode(reader)? },
        // 16 is reconfig, which writes the members into /zookeeper/config.
        5 | 16 => Change::SetData {
            path: Record::decode(reader)?,
            data: Record::decode(reader)?,
            version: Record::decode(reader)?,
        },
        7 => Change::SetAcl {
            path: Record::decode(reader)?,
            acl: Record::decode(reader)?,
            version: Record::decode(reader)?,
        },
        -1 | 13 => return Ok(None),
        value => return Err(DecodeError::InvalidValue { what: "type of a transaction", value }),
    };
    Ok(Some(change))
}

fn create(kind: i32, reader: &mut Reader) -> Result<Create, DecodeError> {
    let path = Record::decode(reader)?;
    let data = Record::decode(reader)?;
    let acl = Record::decode(reader)?;
    let is_ephemeral = matches!(kind, 1 | 15) && bool::decode(reader)?;
    // -1: the leader left it to whoever applies.
    let known = reader.left() >= 4;
    let parent_cversion = if known { Some(i32::decode(reader)?) } else { None };
    let ttl_ms = if kind == 21 { Some(i64::decode(reader)?) } else { None };
    Ok(Create {
        path,
        data,
        acl,
        is_ephemeral,
        is_container: kind == 19,
        ttl_ms,
        parent_cversion: parent_cversion.filter(|count| *count != -1),
    })
}
