//! Bodies of multi and multiRead: lists of operations and of their results, each behind a small
//! header, with a header of its own at the end.
//!
//! Called by: `request`, `response`.
//! Invariant: a list ends at its end header; every element takes at least that header's bytes, so a
//! frame bounds its list.
//! It does not know that a multi is all or none: the server does.

use crate::acl::Acl;
use crate::error_code::ErrorCode;
use crate::jute::{DecodeError, Reader, Record, Writer, record};
use crate::op_code::OpCode;
use crate::request::{
    CheckRequest, CreateMode, CreateRequest, CreateTtlRequest, DeleteRequest, PathWatch,
    SetDataRequest,
};
use crate::stat::Stat;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

record! {
    /// What stands before each element, and at the end of the list.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MultiHeader {
        /// The element's operation.
        pub op: OpCode,
        /// Whether this is the end.
        pub done: bool,
        /// In a result, what the operation came to; in a request, -1.
        pub error: ErrorCode,
    }
}

impl MultiHeader {
    const END: MultiHeader =
        MultiHeader { op: OpCode::Error, done: true, error: ErrorCode::Other(-1) };

    const fn request(op: OpCode) -> Self {
        Self { op, done: false, error: ErrorCode::Other(-1) }
    }

    const fn result(op: OpCode) -> Self {
        Self { op, done: false, error: ErrorCode::Ok }
    }
}

/// Reads elements until the end header.
pub(crate) fn decode_list<T>(
    reader: &mut Reader,
    decode_body: fn(OpCode, &mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut elements = Vec::new();
    loop {
        let header = MultiHeader::decode(reader)?;
        if header.done {
            return Ok(elements);
        }
        elements.push(decode_body(header.op, reader)?);
    }
}

/// Writes elements and the end header.
pub(crate) fn encode_list<T>(elements: &[T], writer: &mut Writer, encode: fn(&T, &mut Writer)) {
    for element in elements {
        encode(element, writer);
    }
    MultiHeader::END.encode(writer);
}

fn not_inside(op: OpCode) -> DecodeError {
    DecodeError::InvalidValue { what: "operation inside a multi", value: op.code() }
}

/// One operation of a multi.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MultiOp {
    /// As [`crate::Request::Create`].
    Create(CreateRequest),
    /// As [`crate::Request::Create2`].
    Create2(CreateRequest),
    /// As [`crate::Request::CreateContainer`].
    CreateContainer(CreateRequest),
    /// As [`crate::Request::CreateTtl`].
    CreateTtl(CreateTtlRequest),
    /// As [`crate::Request::Delete`].
    Delete(DeleteRequest),
    /// As [`crate::Request::SetData`].
    SetData(SetDataRequest),
    /// Fails the multi unless the znode has this version.
    Check(CheckRequest),
}

impl MultiOp {
    /// Creates a znode that is open to everyone.
    #[must_use]
    pub fn create(path: impl Into<String>, data: Option<Bytes>, mode: CreateMode) -> Self {
        let (path, acl, flags) = (path.into(), Acl::open(), mode.code());
        Self::Create(CreateRequest { path, data, acl, flags })
    }

    /// As [`MultiOp::create`], answered with the Stat too.
    #[must_use]
    pub fn create2(path: impl Into<String>, data: Option<Bytes>, mode: CreateMode) -> Self {
        let (path, acl, flags) = (path.into(), Acl::open(), mode.code());
        Self::Create2(CreateRequest { path, data, acl, flags })
    }

    /// Deletes a znode that has `version`, or any for `None`.
    #[must_use]
    pub fn delete(path: impl Into<String>, version: Option<i32>) -> Self {
        Self::Delete(DeleteRequest { path: path.into(), version: version.unwrap_or(-1) })
    }

    /// Replaces the data of a znode that has `version`, or any for `None`.
    #[must_use]
    pub fn set_data(path: impl Into<String>, data: Option<Bytes>, version: Option<i32>) -> Self {
        let (path, version) = (path.into(), version.unwrap_or(-1));
        Self::SetData(SetDataRequest { path, data, version })
    }

    /// Fails the multi unless the znode exists and has `version`, or any for `None`.
    #[must_use]
    pub fn check(path: impl Into<String>, version: Option<i32>) -> Self {
        Self::Check(CheckRequest { path: path.into(), version: version.unwrap_or(-1) })
    }

    /// The operation.
    #[must_use]
    pub const fn op(&self) -> OpCode {
        match self {
            Self::Create(_) => OpCode::Create,
            Self::Create2(_) => OpCode::Create2,
            Self::CreateContainer(_) => OpCode::CreateContainer,
            Self::CreateTtl(_) => OpCode::CreateTtl,
            Self::Delete(_) => OpCode::Delete,
            Self::SetData(_) => OpCode::SetData,
            Self::Check(_) => OpCode::Check,
        }
    }

    /// The znode that it is about (for a sequential create, the beginning of its path).
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Create(op) | Self::Create2(op) | Self::CreateContainer(op) => &op.path,
            Self::CreateTtl(op) => &op.path,
            Self::Delete(op) => &op.path,
            Self::SetData(op) => &op.path,
            Self::Check(op) => &op.path,
        }
    }

    /// The same, to be changed.
    pub fn path_mut(&mut self) -> &mut String {
        match self {
            Self::Create(op) | Self::Create2(op) | Self::CreateContainer(op) => &mut op.path,
            Self::CreateTtl(op) => &mut op.path,
            Self::Delete(op) => &mut op.path,
            Self::SetData(op) => &mut op.path,
            Self::Check(op) => &mut op.path,
        }
    }

    pub(crate) fn decode_body(op: OpCode, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create => Self::Create(Record::decode(reader)?),
            OpCode::Create2 => Self::Create2(Record::decode(reader)?),
            OpCode::CreateContainer => Self::CreateContainer(Record::decode(reader)?),
            OpCode::CreateTtl => Self::CreateTtl(Record::decode(reader)?),
            OpCode::Delete => Self::Delete(Record::decode(reader)?),
            OpCode::SetData => Self::SetData(Record::decode(reader)?),
            OpCode::Check => Self::Check(Record::decode(reader)?),
            other => return Err(not_inside(other)),
        })
    }

    pub(crate) fn encode_one(&self, writer: &mut Writer) {
        MultiHeader::request(self.op()).encode(writer);
        match self {
            Self::Create(op) | Self::Create2(op) | Self::CreateContainer(op) => op.encode(writer),
            Self::CreateTtl(op) => op.encode(writer),
            Self::Delete(op) => op.encode(writer),
            Self::SetData(op) => op.encode(writer),
            Self::Check(op) => op.encode(writer),
        }
    }
}

/// What one operation of a multi came to. In a failed multi all are `Error`: `Ok` before the one that
/// failed, its code, and `RuntimeInconsistency` after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MultiResult {
    /// Of a create: the path.
    Create(String),
    /// Of create2, createContainer and createTTL: the path and the Stat.
    Create2(String, Stat),
    /// Of a delete.
    Delete,
    /// Of a setData: the new Stat.
    SetData(Stat),
    /// Of a check.
    Check,
    /// The multi failed.
    Error(ErrorCode),
}

impl MultiResult {
    pub(crate) fn decode_body(op: OpCode, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create => Self::Create(Record::decode(reader)?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::Create2(Record::decode(reader)?, Record::decode(reader)?)
            }
            OpCode::Delete => Self::Delete,
            OpCode::SetData => Self::SetData(Record::decode(reader)?),
            OpCode::Check => Self::Check,
            OpCode::Error => Self::Error(Record::decode(reader)?),
            other => return Err(not_inside(other)),
        })
    }

    pub(crate) fn encode_one(&self, writer: &mut Writer) {
        match self {
            Self::Create(path) => {
                MultiHeader::result(OpCode::Create).encode(writer);
                path.encode(writer);
            }
            Self::Create2(path, stat) => {
                MultiHeader::result(OpCode::Create2).encode(writer);
                path.encode(writer);
                stat.encode(writer);
            }
            Self::Delete => MultiHeader::result(OpCode::Delete).encode(writer),
            Self::SetData(stat) => {
                MultiHeader::result(OpCode::SetData).encode(writer);
                stat.encode(writer);
            }
            Self::Check => MultiHeader::result(OpCode::Check).encode(writer),
            Self::Error(error) => encode_error(*error, writer),
        }
    }
}

/// One operation of a multiRead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiReadOp {
    /// As [`crate::Request::GetData`].
    GetData(PathWatch),
    /// As [`crate::Request::GetChildren`].
    GetChildren(PathWatch),
}

impl MultiReadOp {
    pub(crate) fn decode_body(op: OpCode, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::GetData => Self::GetData(Record::decode(reader)?),
            OpCode::GetChildren => Self::GetChildren(Record::decode(reader)?),
            other => return Err(not_inside(other)),
        })
    }

    pub(crate) fn encode_one(&self, writer: &mut Writer) {
        let (op, body) = match self {
            Self::GetData(body) => (OpCode::GetData, body),
            Self::GetChildren(body) => (OpCode::GetChildren, body),
        };
        MultiHeader::request(op).encode(writer);
        body.encode(writer);
    }
}

/// What one operation of a multiRead came to, independent of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiReadResult {
    /// Data and Stat.
    GetData(Option<Bytes>, Stat),
    /// The children's names.
    GetChildren(Vec<String>),
    /// This one failed.
    Error(ErrorCode),
}

impl MultiReadResult {
    pub(crate) fn decode_body(op: OpCode, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::GetData => Self::GetData(Record::decode(reader)?, Record::decode(reader)?),
            OpCode::GetChildren => Self::GetChildren(Record::decode(reader)?),
            OpCode::Error => Self::Error(Record::decode(reader)?),
            other => return Err(not_inside(other)),
        })
    }

    pub(crate) fn encode_one(&self, writer: &mut Writer) {
        match self {
            Self::GetData(data, stat) => {
                MultiHeader::result(OpCode::GetData).encode(writer);
                data.encode(writer);
                stat.encode(writer);
            }
            Self::GetChildren(names) => {
                MultiHeader::result(OpCode::GetChildren).encode(writer);
                names.encode(writer);
            }
            Self::Error(error) => encode_error(*error, writer),
        }
    }
}

fn encode_error(error: ErrorCode, writer: &mut Writer) {
    MultiHeader { op: OpCode::Error, done: false, error }.encode(writer);
    error.encode(writer);
}
